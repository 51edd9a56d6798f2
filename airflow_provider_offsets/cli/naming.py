"""Pipelines, groups and open stores from command line arguments."""

from __future__ import annotations

import contextlib
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_offsets import clock
from airflow_provider_offsets.connections import open_session
from airflow_provider_offsets.control.owners import owners_of
from airflow_provider_offsets.core.audit.window import AuditWindow, Bound
from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.hidden import hidden_character
from airflow_provider_offsets.core.pipeline import StreamingPipeline, checkpoint_resource, stored_resources
from airflow_provider_offsets.core.restart.accepted import COUNT
from airflow_provider_offsets.core.snapshot import CHECKPOINT, HISTORY
from airflow_provider_offsets.errors import InputRefused, StoreInUse, StoreLayoutError
from airflow_provider_offsets.hooks.connection import find_connection
from airflow_provider_offsets.hooks.kafka import open_kafka
from airflow_provider_offsets.hooks.offsets import OffsetsHook, store_url
from airflow_provider_offsets.hooks.positions import open_kept_at
from airflow_provider_offsets.operations.transferring import Write, carry_out, stopped_pipeline
from airflow_provider_offsets.stores.protocols import OffsetStore, PositionStore

if TYPE_CHECKING:
    from airflow_provider_offsets.core.live import LiveTopics


def pipeline(args: Namespace) -> StreamingPipeline:
    """Return the pipeline named by ``--pipeline``, from ``--file`` or from ``pipelines.yaml`` in the dags folder."""
    from airflow_provider_offsets.factories.pipelines import load_pipelines

    return load_pipelines(_file(args))[args.pipeline]


def _file(args: Namespace) -> Path:
    from airflow.configuration import conf

    return Path(args.file or Path(conf.get("core", "dags_folder")) / "pipelines.yaml")


def stream(args: Namespace, groups: Sequence[str] | None = None) -> Stream:
    """Return group and topics from the arguments, or from the pipeline where an argument is missing.

    :param args: the parsed arguments of the command.
    :param groups: group ids; the first one is used instead of ``--group``.
    :raises InputRefused: neither the arguments nor a pipeline name a group and topics.
    """
    for option in ("group", "groups", "to_group", "topics"):
        require_visible(getattr(args, option, None), f"--{option.replace('_', '-').removesuffix('s')}")
    known = pipeline(args) if args.pipeline else None
    group = groups[0] if groups else getattr(args, "group", None) or (known.group_id if known else "")
    topics = tuple((args.topics or "").split(",")) if args.topics else known.topics if known else ()
    named = [*(groups or ()), *topics]
    if twice := [each for each in named if named.count(each) > 1]:
        raise InputRefused(
            seen=f"{twice[0]!r} is named twice", expected="each group and each topic once", do="remove one of the two"
        )
    if not group or not topics:
        raise InputRefused(
            seen=f"no {'topics were' if group else 'group was'} named",
            expected="--pipeline, or --group and --topics",
            do="add these options",
        )
    return Stream(group, topics)


def require_visible(given: str | Sequence[str] | None, option: str) -> None:
    """Raise if a value of an option has a hidden character, which some clients cut off and others do not.

    :param given: the value or values; None without the option.
    :param option: its name, for the message.
    :raises InputRefused: a value has one.
    """
    for text in [given] if isinstance(given, str) else given or ():
        if hidden := hidden_character(text):
            raise InputRefused(
                seen=f"{option} {text!r} has {hidden}",
                expected="a name without hidden characters",
                do="remove the character",
            )


def counts(accepted: Sequence[str] | None, option: str = "--accept-skipped") -> dict[str, int]:
    """Return ``{topic: count}`` from ``TOPIC=COUNT`` texts.

    :param accepted: values of the option; None if the option is absent.
    :param option: name of the option, for the error message.
    :raises InputRefused: a text has another form.
    """
    pairs = [each.rpartition("=") for each in accepted or ()]
    topics = [topic for topic, _, _ in pairs]
    wrong = [each for each in pairs if not COUNT.fullmatch(f"{each[0]}:{each[2]}") or topics.count(each[0]) > 1]
    if wrong:
        raise InputRefused(
            seen=f"{option} has the value {''.join(wrong[0])!r}"
            f"{' and another one for this topic' if topics.count(wrong[0][0]) > 1 else ''}",
            expected="TOPIC=COUNT, each topic once",
            do="write the count as in orders=120",
        )
    return {topic: int(count) for topic, _, count in pairs}


def window(args: Namespace) -> AuditWindow:
    """Return the part of the history between ``--since`` and ``--until``.

    :raises InputRefused: a bound is malformed.
    """
    return AuditWindow(_bound(args.since, "--since"), _bound(args.until, "--until"))


def _bound(text: str | None, option: str) -> Bound | None:
    if text is None:
        return None
    try:
        return Bound.read(text)
    except ValueError as error:
        raise InputRefused(
            seen=f"{option} is {text!r}: {error}",
            expected="a time with a time zone, or the number of a batch or of an epoch",
            do="write a time as in 2026-11-01T00:00Z, or batch:12 or epoch:3",
        ) from error


def live(args: Namespace, topics: Sequence[str]) -> LiveTopics | None:
    """Return the live topics in the cluster of ``--kafka-conn-id`` or of the pipeline; None if neither is named.

    :param args: the parsed arguments of the command.
    :param topics: names of the topics.
    :raises TopicMissing: a topic does not exist.
    """
    conn_id = args.kafka_conn_id or (pipeline(args).kafka_conn_id if args.pipeline else "")
    if not conn_id:
        return None
    from airflow_provider_offsets.kafka.reader import KafkaReader

    find_connection(conn_id)
    with open_kafka(conn_id) as clients:
        return KafkaReader(clients).live_topics(topics)


@contextmanager
def stopped(args: Namespace, command: str, streams: Sequence[Stream]) -> Iterator[Write]:
    """Hold the lease of a pipeline whose job is stopped; hold none if no pipeline is named.

    :param args: the parsed arguments of the command.
    :param command: name of the command that holds the lease.
    :param streams: the groups and topics to write.
    :returns: the function that writes.
    :raises StoreInUse: the job runs or may be running, or no pipeline is named and one owns what is to be written.
    :raises LeaseHeld: another operation acted recently, and ``--take-over`` is not set.
    """
    if not args.pipeline:
        _require_unowned(args, streams)
        yield carry_out
        return
    with (
        open_session(pipeline(args), operation(command)) as session,
        stopped_pipeline(session, take_over=args.take_over) as write,
    ):
        yield write


def _require_unowned(args: Namespace, streams: Sequence[Stream]) -> None:
    """Raise if a pipeline of ``pipelines.yaml``, or of the same control store, owns what is written without its name.

    Only the pipeline's lease keeps its job from starting meanwhile. A control store is opened only if its pipelines may
    own the target, so other stores need not be reachable from here.
    """
    from airflow_provider_offsets.factories.pipelines import load_pipelines

    file = _file(args)
    known = load_pipelines(file).values() if file.exists() else ()
    for conn_id in sorted({each.store_conn_id for each in known}):
        used = {each.authoritative for each in known if each.store_conn_id == conn_id} - {HISTORY, CHECKPOINT}
        resources = _resources(args.target, streams, conn_id, sorted(used))
        if not resources:
            continue
        if conn_id:
            find_connection(conn_id)
        with contextlib.suppress(StoreLayoutError), contextlib.closing(OffsetsHook(conn_id).get_conn()) as store:
            for resource, owner in owners_of(store, resources).items():
                raise StoreInUse(
                    seen=f"the {resource} belongs to pipeline {owner!r}",
                    expected="the option --pipeline, because the lease of that pipeline keeps its job from starting",
                    do=f"add the option --pipeline {owner}",
                )


def _resources(target: str, streams: Sequence[Stream], store_conn_id: str, used: Sequence[str]) -> list[str]:
    """Return what a write to a target changes, as the pipelines of a control store name it.

    :param target: as given to ``--to``.
    :param streams: the groups and topics to write.
    :param store_conn_id: the control store of the pipelines.
    :param used: connection ids of the stores that their jobs start from.
    """
    word, _, rest = target.partition(":")
    if word == "checkpoint":
        return [checkpoint_resource(_folder(rest))]
    names = [*(each for each in used if _is_at(each, target)), *([HISTORY] if _is_at(store_conn_id, target) else [])]
    return [resource for name in names for stream in streams for resource in stored_resources(name, stream)]


def _is_at(conn_id: str, target: str) -> bool:
    """Check whether a connection leads to a target: it is named, or both have one URL."""
    if target in (conn_id, f"kafka:{conn_id}"):
        return True
    url = _url(conn_id)
    return url is not None and url == (target if "://" in target else _url(target.removeprefix("kafka:")))


def _url(conn_id: str) -> str | None:
    """Return the URL of a connection's store; None if there is no such connection, or if it is of another type."""
    with contextlib.suppress(InputRefused):
        connection = find_connection(conn_id)
        return store_url(connection) if connection.conn_type == "offsets" else None
    return None


def operation(command: str) -> str:
    """Return the operation id of one call of a command."""
    return f"airflow offsets {command}/{clock.now_text()}"


@contextmanager
def store_of(known: StreamingPipeline) -> Iterator[OffsetStore]:
    """Yield the store of a pipeline, and close it on exit."""
    with contextlib.closing(OffsetsHook(known.store_conn_id).get_conn()) as store:
        yield store


@contextmanager
def opened(name: str) -> Iterator[PositionStore]:
    """Yield the store named by ``--from`` or ``--to``, and close it on exit.

    :raises InputRefused: the name is not a store, or contains a password, which shell history and process list would
        expose.
    """
    word, colon, rest = name.partition(":")
    if rest.startswith("//"):
        from airflow_provider_offsets.stores import open_positions

        with contextlib.closing(open_positions(_without_password(name))) as store:
            yield store
    elif colon and word == "checkpoint":
        from airflow_provider_offsets.checkpoint.positions import CheckpointPositions

        yield CheckpointPositions(_folder(rest))
    else:
        with open_kept_at(_known(name, only_kafka=bool(colon) and word == "kafka")) as kept:
            yield kept


def _folder(location: str) -> str:
    """Return a location of a checkpoint as :func:`load_pipelines` reads it. Variables are those of the shell.

    :raises InputRefused: it is empty or no path, or has something that a shell has not filled in.
    """
    from airflow_provider_offsets.factories.pipelines import resolved, why_no_location

    why = why_no_location(location)
    if not location:
        why = "names no folder", "checkpoint:<folder>", "add the folder; an empty variable of the shell leaves nothing"
    elif "$" in location or "{{" in location:
        why = "has a variable, which nobody fills in here", "a whole path", "write the path without quotes around it"
    if why:
        raise InputRefused(seen=f"'checkpoint:{location}' {why[0]}", expected=why[1], do=why[2])
    require_visible(location, "checkpoint:")
    return resolved(location, Path.cwd())


def _known(name: str, *, only_kafka: bool) -> str:
    """Return the id of a connection, after checking that it exists and leads to a store."""
    connection = find_connection(name.partition(":")[2] if only_kafka else name)
    if connection.conn_type not in (("kafka",) if only_kafka else ("offsets", "kafka")):
        raise InputRefused(
            seen=f"connection {connection.conn_id!r} has type {connection.conn_type!r}",
            expected="type kafka" if only_kafka else "type offsets or kafka",
            do="name another connection; 'airflow connections list' shows all of them",
        )
    return connection.conn_id


def _without_password(url: str) -> str:
    user, at, _ = url.partition("//")[2].rpartition("@")
    if (at and ":" in user) or "password" in url.partition("?")[2].lower():
        raise InputRefused(
            seen=f"the URL of a {url.partition(':')[0]} store contains a password",
            expected="no secret on the command line, where other users can see it",
            do="create a connection of type offsets, and name it",
        )
    return url
