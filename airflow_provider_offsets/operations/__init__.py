"""The steps of an operation: observe, plan, stop, apply, submit, audit.

This package does not depend on Airflow. Every step is recorded in the control store under its operation, and is safe to
repeat.
"""
