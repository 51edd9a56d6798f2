"""The acts of an operation: observe, plan, stop, apply, submit, audit. They know no Airflow; every act is recorded in
the control store under its operation, and is safe to repeat.
"""
