"""``airflow offsets …``: what the stores say, and positions brought from one to another."""
