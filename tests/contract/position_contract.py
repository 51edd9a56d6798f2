"""The contract of every writable position store. Subclass it where a ``store`` fixture is defined.

A store that keeps positions of existing topics only (a consumer group) names them in ``TOPICS``, ``PARTITIONS`` and
``LAST``.
"""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.limits import LAST_OFFSET
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import InputRefused, StateChanged
from airflow_provider_offsets.stores.protocols import WritablePositionStore
from tests.contract.store_contract import EXAMPLES, GROUPS, GROUPS_BESIDE_G, TOPICS, in_threads


def numbered(topic: str, *offsets: int) -> Position:
    """Return the position of a topic with these offsets for the partitions from 0 up."""
    return Position({TopicPartition(topic, number): offset for number, offset in enumerate(offsets)})


class PositionContract:
    """Contract for a subclass that defines the fixture ``store``. Only the property test uses offsets above 9."""

    TOPICS: st.SearchStrategy[str] = TOPICS
    GROUPS: st.SearchStrategy[str] = GROUPS
    LAST: int = LAST_OFFSET
    """The greatest offset that can be written."""
    PARTITIONS: int = 12
    """Largest number of partitions in the examples; at least 3."""

    @pytest.fixture
    def topics(self) -> tuple[str, str]:
        """Return two topics whose positions the store can keep."""
        return "t", "u"

    @pytest.fixture
    def stream(self, topics: tuple[str, str]) -> Stream:
        """Return a group that no other test has, and one topic."""
        return Stream(f"g-{uuid.uuid4().hex[:8]}", topics[:1])

    @pytest.fixture
    def both(self, stream: Stream, topics: tuple[str, str]) -> Stream:
        """Return a group that no other test has, and two topics."""
        return Stream(stream.group_id, topics)

    @pytest.fixture
    def position(self, stream: Stream) -> Position:
        return numbered(stream.topics[0], 3, 0, 9)

    def test_it_can_be_written(self, store: WritablePositionStore) -> None:
        assert isinstance(store, WritablePositionStore)

    def test_nothing_stored_is_not_offset_zero(self, store: WritablePositionStore, stream: Stream) -> None:
        assert store.position(stream) is None

    def test_what_was_written_is_read(self, store: WritablePositionStore, stream: Stream, position: Position) -> None:
        store.write(stream, position, expected=None)
        assert store.position(stream) == position

    def test_it_moves_forth_and_back(self, store: WritablePositionStore, stream: Stream, position: Position) -> None:
        [topic] = stream.topics
        store.write(stream, position, expected=None)
        for later in (numbered(topic, 4, 1, 9), numbered(topic, 0, 0, 0)):
            store.write(stream, later, expected=position)
            assert store.position(stream) == later
            position = later

    def test_repeating_a_write_changes_nothing(
        self, store: WritablePositionStore, stream: Stream, position: Position
    ) -> None:
        moved = numbered(stream.topics[0], 4, 1, 9)
        store.write(stream, position, expected=None)
        store.write(stream, position, expected=None)
        store.write(stream, moved, expected=position)
        store.write(stream, moved, expected=position)
        assert store.position(stream) == moved

    def test_something_else_is_stored(self, store: WritablePositionStore, stream: Stream, position: Position) -> None:
        moved = numbered(stream.topics[0], 4, 1, 9)
        store.write(stream, position, expected=None)
        for expected in (None, numbered(stream.topics[0], 3, 0, 8), numbered(stream.topics[0], 3, 0)):
            with pytest.raises(StateChanged) as refused:
                store.write(stream, moved, expected=expected)
            assert "9" in refused.value.seen, "it says what is stored"
            assert store.position(stream) == position

    def test_nothing_is_stored_where_something_was_expected(
        self, store: WritablePositionStore, stream: Stream, position: Position
    ) -> None:
        with pytest.raises(StateChanged):
            store.write(stream, position, expected=numbered(stream.topics[0], 0, 0, 0))
        assert store.position(stream) is None

    def test_partitions_are_added(self, store: WritablePositionStore, stream: Stream) -> None:
        [topic] = stream.topics
        two, three = numbered(topic, 5, 6), numbered(topic, 5, 7, 0)
        store.write(stream, two, expected=None)
        store.write(stream, three, expected=two)
        assert store.position(stream) == three

    def test_a_stored_partition_is_not_left_out(
        self, store: WritablePositionStore, stream: Stream, position: Position
    ) -> None:
        store.write(stream, position, expected=None)
        with pytest.raises(InputRefused, match=r"\[2\]"):
            store.write(stream, numbered(stream.topics[0], 3, 0), expected=position)
        assert store.position(stream) == position

    def test_several_topics(self, store: WritablePositionStore, both: Stream) -> None:
        first, second = both.topics
        one = numbered(first, 1)
        store.write(both, one, expected=None)
        assert store.position(both) == one
        two = one.updated(numbered(second, 2, 0))
        store.write(both, two, expected=one)
        assert store.position(both) == two
        with pytest.raises(InputRefused):
            store.write(both, numbered(second, 3, 1), expected=two)
        assert store.position(both) == two

    def test_another_topic_of_the_group_is_left_alone(
        self, store: WritablePositionStore, stream: Stream, position: Position, topics: tuple[str, str]
    ) -> None:
        other = Stream(stream.group_id, topics[1:])
        store.write(stream, position, expected=None)
        assert store.position(other) is None
        store.write(other, numbered(topics[1], 8), expected=None)
        assert store.position(stream) == position

    @pytest.mark.parametrize(
        ("offsets", "reason"),
        [
            ({}, "no partition at all"),
            ({("elsewhere", 0): 1}, "a topic of another stream"),
            ({("t", 0): 1, ("elsewhere", 0): 1}, "one topic of it, and one of another stream"),
            ({("t", 1): 1}, "partition 0 is missing: a position that is half written is read as such"),
            ({("t", 0): 1, ("t", 2): 1}, "a hole"),
            ({("t", 0): LAST_OFFSET + 1}, "no signed number of 64 bits"),
        ],
    )
    def test_positions_that_are_not_written(
        self, store: WritablePositionStore, stream: Stream, offsets: dict[tuple[str, int], int], reason: str
    ) -> None:
        name = {"t": stream.topics[0]}
        refused = Position(
            {TopicPartition(name.get(topic, topic), number): offset for (topic, number), offset in offsets.items()}
        )
        with pytest.raises(InputRefused):
            store.write(stream, refused, expected=None)
        assert store.position(stream) is None

    @pytest.mark.parametrize(
        ("group", "reason"),
        [
            ("", "an empty group"),
            ("g\n", "a control character"),
            ("g\x00", "NUL"),
            ("g\ud800", "half of a surrogate pair is not UTF-8"),
        ],
    )
    def test_groups_that_cannot_be_stored(
        self, store: WritablePositionStore, stream: Stream, position: Position, group: str, reason: str
    ) -> None:
        bad = Stream(group, stream.topics)
        with pytest.raises(InputRefused):
            store.write(bad, position, expected=None)
        with pytest.raises(InputRefused):
            store.position(bad)

    @pytest.mark.parametrize(
        ("names", "reason"), [((), "no topic"), (("t:u",), "a colon"), (("u v",), "a space"), (("a/b",), "a slash")]
    )
    def test_topics_that_kafka_cannot_have(
        self, store: WritablePositionStore, stream: Stream, position: Position, names: tuple[str, ...], reason: str
    ) -> None:
        with pytest.raises(InputRefused):
            store.position(Stream(stream.group_id, names))
        with pytest.raises(InputRefused):
            store.write(Stream(stream.group_id, names), position, expected=None)

    @pytest.mark.parametrize("neighbour", GROUPS_BESIDE_G)
    def test_a_group_never_sees_its_neighbours(
        self, store: WritablePositionStore, topics: tuple[str, str], neighbour: str
    ) -> None:
        # The common prefix of a test's groups separates them from other tests' groups and keeps their order.
        own, topic = uuid.uuid4().hex[:8], topics[0]
        mine, other = Stream(f"{own}g", (topic,)), Stream(f"{own}{neighbour}", (topic,))
        theirs, ours = numbered(topic, 9, 8, 7), numbered(topic, 1, 2)
        store.write(other, theirs, expected=None)
        assert store.position(mine) is None
        store.write(mine, ours, expected=None)
        assert (store.position(mine), store.position(other)) == (ours, theirs)

    @given(data=st.data())
    @EXAMPLES
    def test_written_and_read_is_identity_whatever_the_names(
        self, store: WritablePositionStore, data: st.DataObject
    ) -> None:
        names = st.lists(self.TOPICS, min_size=1, max_size=3, unique=True)
        groups = data.draw(st.lists(self.GROUPS, min_size=2, max_size=3, unique=True), "groups")
        own = uuid.uuid4().hex[:8]
        kept: dict[Stream, Position] = {}
        for group in groups:
            stream = Stream(f"{own}{group}", tuple(data.draw(names, "topics")))
            offsets = st.lists(st.integers(0, self.LAST), min_size=1, max_size=self.PARTITIONS)
            position = Position()
            for topic in stream.topics:
                position = position.updated(numbered(topic, *data.draw(offsets, topic)))
            assert store.position(stream) is None, "no other group's"
            store.write(stream, position, expected=None)
            kept[stream] = position
        assert {stream: store.position(stream) for stream in kept} == kept


class AtomicPositionContract(PositionContract):
    """Contract for a store that compares and writes in one step: of those that expect the same, one succeeds."""

    def test_eight_write_at_once_and_one_wins(self, store: WritablePositionStore, stream: Stream) -> None:
        [topic] = stream.topics
        stored = numbered(topic, 0, 0)
        store.write(stream, stored, expected=None)
        wanted = [numbered(topic, 1, number) for number in range(8)]

        def write(number: int) -> bool:
            try:
                store.write(stream, wanted[number], expected=stored)
            except StateChanged:
                return False
            return True

        won = in_threads(write, 8)
        assert won.count(True) == 1
        assert store.position(stream) == wanted[won.index(True)]
