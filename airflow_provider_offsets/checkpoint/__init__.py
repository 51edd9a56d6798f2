"""Spark's checkpoint: its files and logs, seeding it at chosen offsets, and closing it."""
