"""Record of a pipeline: one value that all processes share, and the function that changes it."""
