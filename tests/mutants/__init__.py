"""Planted mistakes: what the unit tests and the simulation have to find.

``python -m tests.mutants`` plants each mistake and checks that it is found; ``make mutants`` runs it.
"""
