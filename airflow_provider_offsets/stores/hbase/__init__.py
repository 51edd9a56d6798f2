"""Offset store in HBase, in the Cloudera row layout."""
