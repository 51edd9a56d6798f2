"""Leakproof Kafka to Spark streaming from Airflow.

Importing this package imports nothing else: the Spark driver, which has no Airflow, ships it by ``py_files``.
"""

__version__ = "0.1.0"
