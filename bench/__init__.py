"""Measurements, as whole acts of this package: ``make bench``. They judge nothing."""
