"""Airflow triggers, which wait without a worker slot: a loop over the functions that operators and sensors use."""
