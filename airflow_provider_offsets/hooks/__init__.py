"""Clients from Airflow connections, opened late and always closed."""
