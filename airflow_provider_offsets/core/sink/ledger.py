"""What the metadata of a sink says: the batches that were written, and the rows that somebody removed."""

from __future__ import annotations

from dataclasses import dataclass

KEY_PROPERTY = "offsets.batch"
"""Name under which a table format stores the text of a ``BatchKey``: in Delta's ``userMetadata``, a JSON object, and in
the summary of an Iceberg snapshot."""


@dataclass(frozen=True)
class Written:
    """One write that names its batch."""

    query_id: str
    """Empty if the sink does not name the query: that is so for Spark's own file sinks."""
    batch_id: int
    place: str
    """Where the sink says so, for people: ``version 12``, ``snapshot 3051729675574597004``, ``_spark_metadata/7``."""
    rows: int | None = None
    """Number of rows that were written; None if the sink does not say."""
    pipeline: str = ""
    """Empty if the sink does not name the pipeline: that is so for sinks of ``sink=``."""
    digest: str = ""
    """Digest of the ranges that were read; empty if the sink does not say."""
    at_ms: int | None = None
    """Time of the write by the clock of the writer, in milliseconds since 1970; None if the sink does not say."""


@dataclass(frozen=True)
class Unnamed:
    """One write that names no batch: of another program, or of this one without write options."""

    place: str
    at_ms: int | None = None
    """As in ``Written``."""


@dataclass(frozen=True)
class Removed:
    """Rows or files that were removed from the sink after a batch had written them."""

    place: str
    what: str
    """The operation that removed them, for people: ``DELETE``, ``file is gone``."""
    rows: int | None = None
    """Number of removed rows; None if the sink does not say."""


@dataclass(frozen=True)
class Ledger:
    """Everything that the metadata of a sink says. The order of ``written`` is that of the writes."""

    written: tuple[Written, ...] = ()
    removed: tuple[Removed, ...] = ()
    unnamed: tuple[Unnamed, ...] = ()
    missing_before: str = ""
    """Where the metadata begins (``version 40``), if there may have been writes before that; empty if it is
    complete."""
    begins_at_ms: int | None = None
    """Time of the oldest write that the metadata has; None if the sink does not say."""
