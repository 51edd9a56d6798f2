"""Airflow connections to clients: opened late, closed always."""
