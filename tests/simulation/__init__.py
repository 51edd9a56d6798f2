"""Deterministic simulation: the real operations and driver loops in one process, against fakes of the platform.

``python -m tests.simulation --seeds 1000`` runs histories; one seed is one history, byte for byte the same each time.
"""
