"""Waits that cost no worker slot: a loop with a sleep, over the same functions that operators and sensors use."""
