"""Every stored value is read back unchanged, and equal values have the same bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.audit.report import AuditReport
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Claim, Cut, Ended, Epoch, Heartbeat, Operation, StopRequest
from airflow_provider_offsets.core.live import LiveTopics
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition
from airflow_provider_offsets.core.replay.model import Replayed, ReplayPlan, Shard
from airflow_provider_offsets.core.restart.model import RestartForm, RestartPlan
from airflow_provider_offsets.core.snapshot import Observation, Snapshot

counts = st.integers(0, 2**53)
partitions = st.builds(TopicPartition, st.sampled_from(["a", "flights", "x.y-z_1"]), st.integers(0, 20))
positions = st.dictionaries(partitions, counts, max_size=6).map(Position)
ranges = st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 9), counts, counts).map(
    lambda given: OffsetRange(given[0], given[1], min(given[2:]), max(given[2:]))
)
st.register_type_strategy(Position, positions)
st.register_type_strategy(OffsetRange, ranges)

STORED = [
    AuditReport,
    Batch,
    Claim,
    Cut,
    Ended,
    Epoch,
    Heartbeat,
    LiveTopics,
    Observation,
    Operation,
    Position,
    ReplayPlan,
    Replayed,
    RestartPlan,
    Shard,
    Snapshot,
    StopRequest,
]


@pytest.mark.parametrize("kind", STORED, ids=lambda kind: kind.__name__)
@settings(max_examples=30)
@given(data=st.data())
def test_it_comes_back_as_it_was(kind: type, data: st.DataObject) -> None:
    value = data.draw(st.from_type(kind))

    text = codec.dumps(value)

    assert codec.loads(kind, text) == value
    assert codec.dumps(codec.loads(kind, text)) == text


@dataclass(frozen=True)
class Part:
    count: int


@dataclass(frozen=True)
class Whole:
    name: str
    ratio: float = 1.0
    parts: tuple[Part, ...] = ()
    by_name: dict[str, int] = field(default_factory=dict)
    form: RestartForm | None = None


@dataclass(frozen=True)
class Optionals:
    plain: int | None = None
    within: tuple[int | None, ...] = ()
    mapped: dict[str, tuple[int | None, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class WithoutOne:
    mapped: dict[str, int] | None = None


def test_an_optional_value_is_read_anywhere() -> None:
    value = Optionals(1, (1, None), {"a": (None, 2)})

    assert codec.loads(Optionals, codec.dumps(value)) == value
    assert codec.loads(Optionals, '{"plain": null}') == Optionals()


def test_another_union_is_a_mistake_of_the_program() -> None:
    """Python 3.9 cannot evaluate it, which a newer one would not show."""
    with pytest.raises(TypeError, match=r"WithoutOne has mapped: dict\[str, int\] \| None"):
        codec.loads(WithoutOne, "{}")


def test_a_newer_writer_may_know_more() -> None:
    assert codec.loads(Whole, '{"name":"a","since_version_9":[1]}') == Whole("a")


def test_equal_values_give_equal_text() -> None:
    assert codec.dumps(Whole("a", by_name={"y": 1, "x": 2})) == codec.dumps(Whole("a", by_name={"x": 2, "y": 1}))


def test_a_whole_number_may_stand_for_a_fraction() -> None:
    ratio = codec.loads(Whole, '{"name":"a","ratio":2}').ratio

    assert (ratio, type(ratio)) == (2.0, float)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"ratio":1}', "Whole lacks a field.*name"),
        ('{"name":5}', "Whole.name is 5, expected str"),
        ('{"name":null}', "Whole.name is None, expected str"),
        ('{"name":"a","parts":[{"count":1},{"count":"2"}]}', r"Whole.parts\[1\].count is '2', expected int"),
        ('{"name":"a","parts":[{"count":true}]}', r"Whole.parts\[0\].count is True, expected int"),
        ('{"name":"a","parts":"text"}', "Whole.parts is 'text', expected a list"),
        ('{"name":"a","parts":null}', "Whole.parts is None, expected a list"),
        ('{"name":"a","by_name":[1]}', r"Whole.by_name is \[1\], expected an object"),
        ('{"name":"a","by_name":{"x":1.5}}', "Whole.by_name.x is 1.5, expected int"),
        ('{"name":"a","form":"sideways"}', "sideways"),
        ("[1]", r"Whole is \[1\], expected an object"),
        ("not JSON", "Expecting value"),
    ],
)
def test_what_does_not_fit_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        codec.loads(Whole, text)


@pytest.mark.parametrize(
    "data",
    [[], {"a": 1}, {"a": {"x": 1}}, {"a": {"-1": 1}}, {"a": {"0": "1"}}, {"a": {"0": -1}}, {"a": {"0": True}}],
    ids=str,
)
def test_what_is_no_position_is_refused(data: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # each says it in words of its own
        Position.from_plain(data)
