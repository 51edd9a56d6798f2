"""Positions as text for other tools: the CSV of ``kafka-consumer-groups --export``, our own JSON, and Spark's.

The CSV has no header. The columns are ``topic,partition,offset`` for one group, and ``group,topic,partition,offset``
for several (Kafka's ``CsvUtils``). The tool reads the form that its ``--group`` options ask for. Our JSON also names
the cluster and the topic ids of the offsets, if they are known. Spark's JSON is that of its option
``startingOffsets``, for one group.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.hidden import hidden_character
from airflow_provider_offsets.core.limits import LAST_OFFSET, LAST_PARTITION
from airflow_provider_offsets.core.live import TopicIdentity
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.strict_json import BYTE_ORDER_MARK, read_json
from airflow_provider_offsets.errors import InputRefused

_JSON = re.compile(r"\ufeff?\s*(\{\s*([\"}]|$)|\[\s*[\"{])")
"""Start of JSON that no CSV has: CSV quotes a field that contains a quote."""


_UNNAMED = "\n"
"""Placeholder for an unnamed group: no group has such an id."""


@dataclass(frozen=True)
class GroupPosition:
    """Position of one group, with the cluster and topics that give the offsets a meaning."""

    group_id: str
    position: Position
    identity: TopicIdentity | None = None
    """None if the cluster was not asked, and for CSV, which cannot hold an identity."""
    store: str = ""
    """Store that the position was read from, for people."""


@dataclass(frozen=True)
class _Document:
    groups: tuple[GroupPosition, ...]


class _Lines(list[str]):
    """Target of a csv writer."""

    def write(self, line: str) -> None:
        self.append(line)


def to_csv(groups: Sequence[GroupPosition]) -> str:
    """Return the CSV that ``kafka-consumer-groups --from-file`` reads, in the one-group form for one group."""
    lines = _Lines()
    writer = csv.writer(lines, lineterminator="\n")
    for group in groups:
        of_many = (group.group_id,) if len(groups) > 1 else ()
        for (topic, partition), offset in group.position.items():
            writer.writerow((*of_many, topic, partition, offset))
    return "".join(lines)


def to_json(groups: Sequence[GroupPosition]) -> str:
    """Return our own JSON: one object on one line."""
    return codec.dumps(_Document(tuple(groups)))


def read_positions(text: str, *, group_id: str = "") -> tuple[GroupPosition, ...]:
    """Return the positions in a text of either form, in the order in which the groups first appear.

    :param text: content of a file: JSON, or the CSV of ``kafka-consumer-groups``.
    :param group_id: group of a CSV in the one-group form, or of Spark's JSON. For other forms, only this group is
        returned if it is named.
    :raises InputRefused: the text has neither form, names a partition twice, or has no group where one is required.
    """
    return _only(_from_json(text, group_id) if _JSON.match(text) else _from_csv(text, group_id), group_id)


def parse_position(text: str, *, group_id: str = "") -> GroupPosition:
    """Return the only position in a text of either form, or the position of ``group_id``.

    :param text: CSV, our own JSON or Spark's.
    :param group_id: group to return. A CSV in the one-group form and Spark's JSON name no group: their position gets
        this id, or an empty id.
    :raises InputRefused: the text has neither form, or has several groups and none was named.
    """
    given = group_id or _UNNAMED
    groups = _from_json(text, given) if _JSON.match(text) else _from_csv(text, given)
    if group_id:
        groups = _only(groups, group_id)
    if len(groups) != 1:
        raise _refused(
            f"{len(groups) or 'no'} groups{': ' if groups else ''}{', '.join(repr(each.group_id) for each in groups)}",
            "one group, or the name of one of them",
        )
    return replace(groups[0], group_id="") if groups[0].group_id == _UNNAMED else groups[0]


def _only(groups: tuple[GroupPosition, ...], group_id: str) -> tuple[GroupPosition, ...]:
    chosen = tuple(each for each in groups if not group_id or each.group_id == group_id)
    if not chosen:
        raise _refused(
            f"no position{f' of group {group_id!r}' if group_id else ''}; it has the groups"
            f" {', '.join(repr(each.group_id) for each in groups) or 'none'}"
        )
    return chosen


def _from_json(text: str, group_id: str) -> tuple[GroupPosition, ...]:
    try:
        data = read_json(text)
    except ValueError as error:
        raise _refused(f"JSON that cannot be read: {error}") from error
    if _is_of_spark(data):
        groups = _of_spark(data, group_id)
    else:
        _require_ours(data)
        try:
            document: _Document = codec.build(_Document, data, "the export")
        except ValueError as error:
            raise _refused(f"JSON that cannot be read: {error}") from error
        groups = document.groups
    named = [each.group_id for each in groups]
    if twice := [name for name in named if named.count(name) > 1]:
        raise _refused(f"group {twice[0]!r} twice")
    if large := [offset for each in groups for offset in each.position.values() if offset > LAST_OFFSET]:
        raise _refused(f"offset {large[0]}")
    if far := [key for each in groups for key in each.position if key.partition > LAST_PARTITION]:
        raise _refused(f"partition {far[0].partition}", f"a whole number from 0 to {LAST_PARTITION}")
    if empty := [each.group_id for each in groups if not each.position]:
        raise _refused(f"no offset of group {empty[0]!r}" if empty[0].strip() else "no offset")
    return groups


def _is_of_spark(data: Any) -> bool:
    """Check whether JSON has the shape of Spark's ``startingOffsets``: topic, partition, offset."""
    return isinstance(data, dict) and bool(data) and all(isinstance(each, dict) for each in data.values())


def _of_spark(data: dict[str, Any], group_id: str) -> tuple[GroupPosition, ...]:
    if not group_id:
        raise _refused("JSON of Spark's startingOffsets, which names no group", "a group that is given with the file")
    try:
        return (GroupPosition(group_id, Position.from_plain(data)),)
    except ValueError as error:
        raise _refused(
            f"JSON of Spark's startingOffsets that is no position: {error}",
            "whole offsets from 0 up, because -1 (latest) and -2 (earliest) are no offsets",
        ) from error


def _require_ours(data: Any) -> None:
    """Raise if JSON is not that of an export, and name the tool that wrote it if that is known."""
    of_tool = isinstance(data, dict) and isinstance(data.get("partitions"), list)
    if of_tool and any(isinstance(each, dict) and "offset" in each for each in data["partitions"]):
        raise _refused("the JSON of kafka-delete-records, which names offsets up to which records are deleted")
    if of_tool:
        raise _refused("the JSON of another tool of Kafka, such as kafka-reassign-partitions")
    if not isinstance(data, dict) or "groups" not in data:
        keys = ", ".join(map(repr, data)) if isinstance(data, dict) else f"a {type(data).__name__}"
        raise _refused(f"JSON with {keys or 'nothing in it'}, and without the key 'groups'")
    if unknown := codec.unknown_key(_Document, data):
        raise _refused(f"JSON with the unknown key {unknown!r}", "only the keys of an export")


def _from_csv(text: str, group_id: str) -> tuple[GroupPosition, ...]:
    found: dict[str, dict[TopicPartition, int]] = {}
    width = None
    for number, fields in enumerate(_rows(text), start=1):
        if not fields:
            continue
        width = width or len(fields)
        if len(fields) not in (3, 4) or len(fields) != width:
            raise _refused(f"line {number} with {len(fields)} fields", "as many as the first line has, 3 or 4")
        group, topic, partition, offset = fields if width == 4 else (group_id, *fields)
        for name in (group, topic):
            if name != _UNNAMED and (hidden := hidden_character(name)):
                raise _refused(f"line {number}: {name!r} with {hidden}", "names without hidden characters")
        if not group:
            raise _refused(f"line {number} without a group", "a file of the many-groups form, or a group given with it")
        offsets = found.setdefault(group, {})
        key = TopicPartition(topic, _whole(partition, f"line {number}: partition", LAST_PARTITION))
        if key in offsets:
            raise _refused(f"line {number}: {key} of group {group!r} a second time")
        offsets[key] = _whole(offset, f"line {number}: offset", LAST_OFFSET)
    return tuple(GroupPosition(group, Position(offsets)) for group, offsets in found.items())


def _rows(text: str) -> Iterator[list[str]]:
    try:
        # Not ``splitlines``, which also splits at characters that are legal in a group id.
        yield from csv.reader((f"{line}\n" for line in text.removeprefix(BYTE_ORDER_MARK).split("\n")), strict=True)
    except csv.Error as error:
        raise _refused(f"CSV that cannot be read: {error}") from error


def _whole(text: str, what: str, last: int) -> int:
    text = text.strip(" ")
    if not (text.isascii() and text.isdecimal()) or len(text) > 19 or int(text) > last:
        raise _refused(f"{what} {text[:40]!r}", f"a whole number from 0 to {last}")
    return int(text)


def _refused(seen: str, expected: str = "") -> InputRefused:
    return InputRefused(
        seen=f"a file of offsets has {seen}",
        expected=expected
        or "lines of topic,partition,offset or group,topic,partition,offset, each partition once; or the JSON of"
        " an export or of Spark's startingOffsets",
        do="correct the file. Nothing was written",
    )
