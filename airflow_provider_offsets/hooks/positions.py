"""From the connections that a pipeline's ``offsets_in`` names to the stores where its job keeps positions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from airflow.sdk import BaseHook

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.snapshot import CHECKPOINT, HISTORY
from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.hooks.kafka import open_kafka
from airflow_provider_offsets.hooks.offsets import store_url
from airflow_provider_offsets.stores import open_positions
from airflow_provider_offsets.stores.protocols import PositionStore


@contextmanager
def open_kept(pipeline: StreamingPipeline) -> Iterator[dict[str, PositionStore]]:
    """Give the stores of ``offsets_in`` that a connection leads to, by its id, and close them in the end.

    ``history`` and ``checkpoint`` have no connection of their own and are left out.

    :raises InputRefused: a connection of another type than ``offsets`` or ``kafka``, or one without its URL.
    """
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(open_kept_at(name))
            for name in pipeline.offsets_in
            if name not in (HISTORY, CHECKPOINT)
        }


@contextmanager
def open_kept_at(conn_id: str) -> Iterator[PositionStore]:
    """Give the store of positions that one connection leads to, and close it in the end.

    A connection of type ``offsets`` leads to the store of its URL, one of type ``kafka`` to the committed offsets of
    the cluster's consumer groups.

    :raises InputRefused: a connection of another type, or one without its URL.
    """
    connection = BaseHook.get_connection(conn_id)
    if connection.conn_type == "offsets":
        with closing(open_positions(store_url(connection))) as store:
            yield store
    elif connection.conn_type == "kafka":
        from airflow_provider_offsets.kafka.group_store import KafkaGroupStore

        with open_kafka(conn_id) as clients:
            yield KafkaGroupStore(clients)
    else:
        raise InputRefused(
            seen=f"connection {conn_id!r} of type {connection.conn_type!r} in offsets_in",
            expected="type 'offsets' (a history, or ZooKeeper) or 'kafka' (the committed offsets of the group)",
            do="correct offsets_in, or the type of the connection",
        )
