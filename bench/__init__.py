"""Measurements that compare a replay with a hand-written program in the same run: ``make bench``. They have no verdict."""
