"""Offset store in SQLite or PostgreSQL."""
