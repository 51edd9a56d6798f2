"""The ``airflow offsets`` commands: inspect offset stores, and copy positions from one store to another."""
