"""Names of batches in metadata: the key of this provider, and the fields that Spark's own sinks write."""

from __future__ import annotations

from airflow_provider_offsets.core.sink.key import parse_key
from airflow_provider_offsets.core.sink.ledger import Written


def by_key(text: object, place: str, rows: int | None = None, at_ms: int | None = None) -> Written | None:
    """Return the write that a key names, or None if the text is no key.

    :param text: what the metadata holds where a key would be.
    :param place: where the sink names the batch.
    :param rows: number of rows that were written; None for unknown.
    :param at_ms: time of the write; None for unknown.
    """
    key = parse_key(text) if isinstance(text, str) else None
    if key is None:
        return None
    return Written(key.query_id, key.batch_id, place, rows, key.pipeline, key.digest, at_ms)


def by_query(
    query_id: object, epoch_id: object, place: str, rows: int | None = None, at_ms: int | None = None
) -> Written | None:
    """Return the write that the sink of ``sink=`` names by query and epoch, or None if one of both is missing.

    :param query_id: id of the streaming query.
    :param epoch_id: Spark's batch id, as text.
    :param place: where the sink names the batch.
    :param rows: number of rows that were written; None for unknown.
    :param at_ms: time of the write; None for unknown.
    """
    epoch = number(epoch_id)
    if not query_id or epoch is None:
        return None
    return Written(str(query_id), epoch, place, rows, at_ms=at_ms)


def number(value: object) -> int | None:
    """Return the number that metadata holds, or None if it holds none: table formats store numbers as text."""
    text = str(value)
    return int(text) if text.isdecimal() and text.isascii() else None


def identity(written: Written) -> tuple[str, str, int, str]:
    """Return what two writes of one batch have in common."""
    return written.pipeline, written.query_id, written.batch_id, written.digest
