"""Ways to name a starting point."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.selector import missing_partitions, parse_selector
from airflow_provider_offsets.core.snapshot import Observation, Snapshot
from airflow_provider_offsets.errors import SelectorError, SnapshotNotFound
from tests.unit.core.worlds import TOPIC, at, live, running, seen

THERE = live((10, 100), (0, 100), (0, 100))
NOW = running(THERE, at(40, 60))


def none_stored(snapshot_id: str) -> Snapshot:
    raise SnapshotNotFound(seen=snapshot_id, expected="a snapshot", do="look")


def choose(text: str, world: Observation = NOW) -> Position:
    return parse_selector(text, none_stored).choose(world)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("committed", at(40, 60)),
        ("  committed ", at(40, 60)),
        ("earliest", at(10, 0, 0)),
        ('offsets:{"flights":{"0":12}}', at(12, 60)),
        ('offsets:{"flights":{"2":7}}', at(40, 60, 7)),
        ("shift:-5", at(35, 55)),
        ("shift:+5", at(45, 65)),
        ("shift:-50", at(0, 10)),
    ],
)
def test_what_a_selector_chooses(text: str, wanted: Position) -> None:
    assert choose(text) == wanted


@pytest.mark.parametrize("text", ["committed", "shift:-5"])
def test_before_the_first_start_there_is_nowhere_to_go_on_from(text: str) -> None:
    assert choose(text, seen(THERE)) == Position()


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", "start selector ''"),
        ("latest-ish", "start selector 'latest-ish'"),
        ("committed:", "start selector 'committed:'"),
        ("snapshot:", "start selector 'snapshot:'"),
        ("shift:", "'shift:' is followed by ''"),
        ("shift:ten", "'shift:' is followed by 'ten'"),
        ("offsets:", "'offsets:' is followed by ''"),
        ("offsets:{}", "names no partition"),
        ('offsets:{"flights":{"0":-2}}', "offsets begin at 0"),
        ('offsets:{"flights":{"0":"12"}}', "holds '12'"),
        ('offsets:{"flights":', "at character 11"),
    ],
)
def test_what_cannot_be_read_is_quoted(text: str, quoted: str) -> None:
    with pytest.raises(SelectorError) as caught:
        choose(text)
    assert quoted in str(caught.value)
    assert "do this:" in str(caught.value)


def test_partitions_that_the_cluster_does_not_have_are_named() -> None:
    with pytest.raises(SelectorError, match=r"flights\[3\], other\[0\]"):
        choose('offsets:{"flights":{"3":1},"other":{"0":1}}')


def taken(world: Observation) -> Snapshot:
    return Snapshot("s-1", "operation-1", "", "", "2025-01-01T00:00:00Z", world)


def test_a_snapshot_gives_its_position_and_leaves_later_partitions_out() -> None:
    then = taken(running(live((0, 50), (0, 50)), at(20, 30)))

    assert parse_selector("snapshot:s-1", lambda _: then).choose(NOW) == at(20, 30)


@pytest.mark.parametrize(
    "there",
    [live((0, 50), (0, 50), cluster_id="cluster-9"), live((0, 50), (0, 50), topic_id="id-9")],
    ids=["of another cluster", "of a topic that was made again"],
)
def test_a_snapshot_of_something_else_is_refused(there: object) -> None:
    then = taken(running(there, at(20, 30)))  # type: ignore[arg-type]
    with pytest.raises(SelectorError, match="snapshot 's-1' is of cluster"):
        parse_selector("snapshot:s-1", lambda _: then).choose(NOW)


def test_a_snapshot_that_is_not_stored_says_so() -> None:
    with pytest.raises(SnapshotNotFound):
        choose("snapshot:s-9")


@pytest.mark.parametrize(
    ("why", "position", "live_count", "missing"),
    [
        ("nothing named: all are new", at(), 3, ()),
        ("named from 0 up", at(1, 1), 4, ()),
        ("a hole", at(1, None, 1), 4, (1,)),
        ("only the last is named", at(None, None, 1), 3, (0, 1)),
        ("holes beyond what is there are no partitions", at(1, None, None, None, 1), 2, (1,)),
    ],
)
def test_a_hole_is_not_a_new_partition(why: str, position: Position, live_count: int, missing: tuple[int, ...]) -> None:
    expected = tuple(TopicPartition(TOPIC, number) for number in missing)
    assert missing_partitions(position, TOPIC, live_count) == expected, why
