"""Greatest values of Kafka and of the row keys of a history."""

from __future__ import annotations

LAST_OFFSET = 2**63 - 1
"""The greatest offset in Kafka."""

LAST_PARTITION = 2**31 - 1
"""The greatest partition number in Kafka."""

TIME_DIGITS = 13
"""Number of digits of the time, in milliseconds since 1970, in the row key of the Cloudera row layout."""

LAST_TIME_MS = 10**TIME_DIGITS - 1
"""The greatest time that a row key can hold (year 2286). Search bounds use it instead of a clock."""
