"""Backfill of an interval: boundaries, plan, shards, and the audit of a replay."""
