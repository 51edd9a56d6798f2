"""The key under which a sink can find a batch: its pipeline, its query, its number, and what it read."""

from __future__ import annotations

import re
from dataclasses import dataclass

_KEY = re.compile(r"(?P<pipeline>[^:]+):(?P<query_id>.+):(?P<batch_id>[0-9]+):(?P<digest>[0-9a-f]{16})")


@dataclass(frozen=True, order=True)
class BatchKey:
    """Name of one output. It stays the same when the batch is tried again, and never belongs to another output.

    A rewind reads records under new batch ids, so the records that it reads again have another key: they are written
    again, as the plan announced.
    """

    pipeline: str
    query_id: str
    """The query id of the checkpoint. In a replay the run id of the attempt."""
    batch_id: int
    """Spark's batch id, from 0 up. In a replay the number of the shard."""
    digest: str
    """Digest of the ranges that the batch reads: 16 hex digits."""

    def __str__(self) -> str:
        return f"{self.pipeline}:{self.query_id}:{self.batch_id}:{self.digest}"


def parse_key(text: str) -> BatchKey | None:
    """Return the key that a text is, or None if it is none: another program wrote it."""
    found = _KEY.fullmatch(text)
    if found is None:
        return None
    return BatchKey(found["pipeline"], found["query_id"], int(found["batch_id"]), found["digest"])
