"""Measurements, without a verdict, of a replay and a hand-written program in the same run: ``make bench``."""
