"""Small programs as users write them: ``mypy`` reads them, with the root package as their only import of ours."""
