"""Position stores from the connections in a pipeline's ``offsets_in``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.snapshot import CHECKPOINT, HISTORY
from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.hooks.connection import find_connection
from airflow_provider_offsets.hooks.kafka import open_kafka
from airflow_provider_offsets.hooks.offsets import store_url
from airflow_provider_offsets.stores import open_positions
from airflow_provider_offsets.stores.protocols import PositionStore


@contextmanager
def open_kept(pipeline: StreamingPipeline) -> Iterator[dict[str, PositionStore]]:
    """Yield the position stores of ``offsets_in`` by connection id, and close them on exit.

    ``history`` and ``checkpoint`` have no connection of their own and are omitted.

    :raises InputRefused: a connection has another type than ``offsets`` or ``kafka``, or no URL.
    """
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(open_kept_at(name))
            for name in pipeline.offsets_in
            if name not in (HISTORY, CHECKPOINT)
        }


@contextmanager
def open_kept_at(conn_id: str) -> Iterator[PositionStore]:
    """Yield the position store of one connection, and close it on exit.

    A connection of type ``offsets`` refers to the store of its URL, one of type ``kafka`` to the committed offsets of
    the cluster's consumer groups.

    :raises InputRefused: the connection has another type, or no URL.
    """
    connection = find_connection(conn_id)
    if connection.conn_type == "offsets":
        with closing(open_positions(store_url(connection))) as store:
            yield store
    elif connection.conn_type == "kafka":
        from airflow_provider_offsets.kafka.group_store import KafkaGroupStore

        with open_kafka(conn_id) as clients:
            yield KafkaGroupStore(clients)
    else:
        raise InputRefused(
            seen=f"connection {conn_id!r} in offsets_in has type {connection.conn_type!r}",
            expected="type 'offsets' (a history, or ZooKeeper) or 'kafka' (the committed offsets of the group)",
            do="correct offsets_in, or the type of the connection",
        )
