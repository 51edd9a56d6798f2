"""The sink of a pipeline: which of its batches the sink's own metadata names, compared with the history."""
