"""Start selectors: the text forms of where a job starts, and their resolution to offsets."""
