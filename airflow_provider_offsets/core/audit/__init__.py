"""Audit of a history: what was lost, skipped, replayed or duplicated, and why."""
