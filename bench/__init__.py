"""Measurements beside a hand-written program, in the same run: ``make bench``. They judge nothing."""
