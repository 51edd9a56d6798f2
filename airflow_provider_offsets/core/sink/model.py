"""The sink that a pipeline names: a table or folder whose metadata the audit reads. Nothing here writes to it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from airflow_provider_offsets.errors import InputRefused


class SinkFormat(enum.Enum):
    """Format of a sink that keeps a ledger: metadata that names the batches written to it."""

    DELTA = "delta"
    """The log of a Delta table."""
    ICEBERG = "iceberg"
    """The snapshots of an Iceberg table."""
    FILES = "files"
    """The log ``_spark_metadata`` of Spark's own file sinks, which only ``sink=`` writes."""
    BATCH_TABLE = "batch_table"
    """A table in a database, with one row per batch, that the program writes together with the batch."""


@dataclass(frozen=True)
class Sink:
    """Sink of a pipeline.

    :raises InputRefused: fields that the format needs are missing, or there are fields that it does not have.
    """

    format: SinkFormat
    location: str = ""
    """Delta and files: the folder, a path or a URL. Iceberg: the folder of the table, or ``<catalog>:<table>`` with a
    catalog that PyIceberg's own configuration names. Empty for a batch table."""
    conn_id: str = ""
    """Connection of the database of a batch table."""
    batch_table: str = ""
    """Name of the batch table. It has the columns ``batch_key`` (text) and ``rows`` (integer)."""
    table: str = ""
    """Name of the table that the batches are appended to, in the same database. Its rows are counted, if it is
    given."""

    def __post_init__(self) -> None:
        is_table = self.format is SinkFormat.BATCH_TABLE
        needed = ("conn_id", "batch_table") if is_table else ("location",)
        allowed = (*needed, "table") if is_table else needed
        missing = [name for name in needed if not getattr(self, name)]
        extra = [
            name
            for name in ("location", "conn_id", "batch_table", "table")
            if getattr(self, name) and name not in allowed
        ]
        if missing or extra:
            raise InputRefused(
                seen=f"sink of format {self.format.value!r}: "
                + "; ".join(
                    [f"missing {', '.join(missing)}"] * bool(missing) + [f"unknown {', '.join(extra)}"] * bool(extra)
                ),
                expected=f"{', '.join(needed)}" + (", and optionally table" if is_table else ""),
                do="correct 'sink' of the pipeline",
            )

    def __str__(self) -> str:
        return f"{self.format.value} {self.location or self.batch_table}"
