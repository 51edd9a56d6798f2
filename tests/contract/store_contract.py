"""The contract of every offset store, whatever its backend. Subclass it where a ``store`` fixture is defined."""

from __future__ import annotations

import itertools
import json
import threading
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_offsets.control.owners import claim_resources, hand_over, owners_of
from airflow_provider_offsets.control.record_cell import RecordCell
from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.epoch import ProcessIdentity, Recorded
from airflow_provider_offsets.core.limits import LAST_TIME_MS
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.record.events import ClaimLaunch, LaunchEpoch, RecordBatch, StartBatch, TakeLease
from airflow_provider_offsets.core.record.model import EpochLaunch, StartedBatch
from airflow_provider_offsets.errors import BatchConflict, InputRefused, StoreDataError
from airflow_provider_offsets.stores.protocols import ControlStore, HistoryStore, OffsetStore

NOW_MS = 1_760_000_000_000
"""A time of 13 digits that begins as current times do: neighbours such as ``g:17`` sort directly after its rows."""

GROUPS_BESIDE_G = [
    pytest.param("g:0", id="the lower bound of the slides is t:g:0"),
    pytest.param("g:10", id="sorts between the bounds of the slides"),
    pytest.param("g:1", id="shares the first digit of the time"),
    pytest.param("g:17", id="sorts behind all rows of our days, so a search from the newest meets it first"),
    pytest.param("g:170", id="sorts before the rows of our days"),
    pytest.param("g:1790", id="sorts behind the rows of our days"),
    pytest.param("g:1760000000000", id="the tail begins with a whole time of ours"),
    pytest.param("g:17600000000000", id="the tail begins with 14 digits"),
    pytest.param("g:176000000-x", id="goes on with a character below the digits"),
    pytest.param("g:176000000x", id="goes on with a character above the digits"),
    pytest.param("g:9999999999999", id="the tail begins with the greatest time"),
    pytest.param("g2", id="shares the first letter"),
    pytest.param("g:", id="ends with a colon"),
    pytest.param("g: ", id="a space sorts before all digits"),
    pytest.param("gé", id="not ASCII"),
    pytest.param("g;", id="sorts right behind all that begins with the group and a colon"),
    pytest.param("g::", id="nothing between two colons"),
    pytest.param("g::1760000000000", id="nothing between two colons, and a time"),
    pytest.param("g:0000000000000", id="the tail begins with the least time"),
    pytest.param("g:1760000000000:1760000000000", id="the tail begins with two times"),
    pytest.param("g:1760000000000:", id="the tail begins with a time and a colon"),
    pytest.param("G", id="another case"),
    pytest.param("t:g", id="begins with the topic"),
]

# One test over several stores is intended, and each example uses its own names within one store.
_MEANT = [HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
EXAMPLES = settings(max_examples=25, deadline=None, suppress_health_check=_MEANT)
GROUPS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=40)
"""Names of groups: Kafka has no rule; ours have no control characters."""
TOPICS = st.from_regex(r"[A-Za-z0-9._-]{1,40}", fullmatch=True).filter(lambda name: name not in (".", ".."))
"""Kafka's own rule; it refuses the names ``.`` and ``..`` too."""
NEIGHBOURS = st.from_regex(r"g(:[0-9]{1,14}|:[0-9]{0,13}[x-]|[:;2 ])?(:[0-9]{13})?", fullmatch=True)
"""Groups that sort among each other's rows."""
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200)


def position(offsets: dict[int, int], topic: str = "t") -> Position:
    return Position({TopicPartition(topic, number): offset for number, offset in offsets.items()})


def batch(number: int, *, time_ms: int | None = None, query_id: str = "q", epoch: int = 1, topics: str = "t") -> Batch:
    """Return the batch that reads ten records of partition 0 of each topic (one letter each)."""
    start, end = (
        Position({TopicPartition(topic, 0): offset for topic in topics}) for offset in (10 * number, 10 * number + 10)
    )
    when = NOW_MS + number * 1000 if time_ms is None else time_ms
    return Batch(end=end, batch_time_ms=when, batch_id=number, query_id=query_id, epoch=epoch, start=start)


def ids(batches: Iterable[Batch]) -> list[int | None]:
    return [each.batch_id for each in batches]


class StoreContract:
    """Contract for a subclass that defines the fixture ``store``, and may replace ``fill`` by something faster."""

    SWAPS_ARE_ATOMIC = True
    """Whether a swap that lost leaves no facts either."""

    ROWS = 1_200
    """Number of rows of a long history: the largest page is read more than once."""

    @pytest.fixture
    def stream(self) -> Stream:
        """Return a group that no other test has, so that the tests can share one set of tables."""
        return Stream(f"g-{uuid.uuid4().hex[:8]}", ("t",))

    @pytest.fixture
    def pipeline(self) -> str:
        return f"p-{uuid.uuid4().hex[:8]}"

    @pytest.fixture
    def fill(self, store: OffsetStore) -> Callable[[Stream, list[Batch]], None]:
        """Return a function that records many batches; each row is placed at its batch time."""

        def record(stream: Stream, batches: list[Batch]) -> None:
            for each in batches:
                store.append(stream, each)

        return record

    def test_the_store_has_history_and_control(self, store: OffsetStore) -> None:
        assert isinstance(store, HistoryStore)
        assert isinstance(store, ControlStore)

    def test_create_is_safe_to_repeat(self, store: OffsetStore, stream: Stream) -> None:
        store.append(stream, batch(1))
        store.create()
        assert ids(store.newest_first(stream)) == [1]

    def test_close_is_safe_to_repeat_and_the_store_goes_on(self, store: OffsetStore, stream: Stream) -> None:
        store.append(stream, batch(1))
        store.close()
        store.close()
        assert ids(store.newest_first(stream)) == [1]

    # history

    def test_nothing_stored_is_not_offset_zero(self, store: OffsetStore, stream: Stream) -> None:
        assert store.position(stream) is None
        assert list(store.newest_first(stream)) == []
        assert list(store.oldest_first(stream)) == []
        assert store.prepared(stream, NOW_MS) is None

    def test_a_recorded_batch_is_given_back_whole(self, store: OffsetStore, stream: Stream) -> None:
        recorded = store.append(stream, batch(1))
        assert recorded == batch(1).at_row(NOW_MS + 1000)
        assert list(store.newest_first(stream)) == [recorded]
        assert list(store.oldest_first(stream)) == [recorded]
        assert store.position(stream) == position({0: 20})

    def test_a_row_of_a_given_time_is_added_once(self, store: OffsetStore, stream: Stream) -> None:
        first = batch(1).at_row(NOW_MS + 7)
        assert store.append(stream, first) == first
        store.append(stream, batch(2).at_row(NOW_MS + 8))
        assert store.append(stream, first) == first
        assert ids(store.oldest_first(stream)) == [1, 2]

    def test_the_same_row_of_a_later_epoch_keeps_the_first_epoch(self, store: OffsetStore, stream: Stream) -> None:
        first = store.append(stream, batch(1, epoch=4).at_row(NOW_MS))
        assert store.append(stream, batch(1, epoch=5).at_row(NOW_MS)) == first
        assert [each.epoch for each in store.oldest_first(stream)] == [4]

    @pytest.mark.parametrize(
        ("other", "reason"),
        [
            (Batch(position({0: 99}), NOW_MS + 1000, 1, "q", 1, position({0: 10})), "another end"),
            (Batch(position({0: 20}), NOW_MS + 1000, 1, "q", 1, position({0: 11})), "another start"),
            (Batch(position({0: 20}), NOW_MS + 1000, 2, "q", 1, position({0: 10})), "another batch of this query"),
            (Batch(position({0: 20}), NOW_MS + 1000, 1, "r", 1, position({0: 10})), "another query's batch"),
        ],
    )
    def test_another_batch_at_a_recorded_row_is_refused(
        self, store: OffsetStore, stream: Stream, other: Batch, reason: str
    ) -> None:
        recorded = store.append(stream, batch(1).at_row(NOW_MS))
        with pytest.raises(BatchConflict, match=r'batch 1 of query q.*"0":20'):
            store.append(stream, other.at_row(NOW_MS))
        assert list(store.oldest_first(stream)) == [recorded]

    def test_a_late_row_is_at_its_own_time(self, store: OffsetStore, stream: Stream) -> None:
        for number in (1, 3, 2):
            store.append(stream, batch(number).at_row(NOW_MS + number))
        assert ids(store.oldest_first(stream)) == [1, 2, 3]
        assert ids(store.newest_first(stream)) == [3, 2, 1]
        assert ids(store.newest_first(stream, until_ms=NOW_MS + 2)) == [2, 1]

    def test_a_batch_id_of_another_query_is_another_batch(self, store: OffsetStore, stream: Stream) -> None:
        store.append(stream, batch(1, query_id="q"))
        store.append(stream, batch(1, query_id="r"))
        assert [each.query_id for each in store.oldest_first(stream)] == ["q", "r"]

    def test_batches_without_identity_are_never_the_same(self, store: OffsetStore, stream: Stream) -> None:
        for _ in range(2):
            store.append(stream, Batch(position({0: 5}), NOW_MS))
        assert [each.row_time_ms for each in store.oldest_first(stream)] == [NOW_MS, NOW_MS + 1]

    def test_a_clock_five_minutes_behind_changes_no_order(self, store: OffsetStore, stream: Stream) -> None:
        store.append(stream, batch(1, time_ms=NOW_MS))
        for number in (2, 3):
            store.append(stream, batch(number, time_ms=NOW_MS - 300_000 + number))
        assert [each.row_time_ms for each in store.oldest_first(stream)] == [NOW_MS, NOW_MS + 1, NOW_MS + 2]
        assert ids(store.newest_first(stream)) == [3, 2, 1]
        assert store.position(stream) == position({0: 40})

    def test_as_of_is_the_first_batch_until_then(self, store: OffsetStore, stream: Stream) -> None:
        for number in (1, 2, 3):
            store.append(stream, batch(number))
        for until_ms, seen in [
            (NOW_MS + 999, []),
            (NOW_MS + 1000, [1]),
            (NOW_MS + 2999, [2, 1]),
            (NOW_MS + 3000, [3, 2, 1]),
            (NOW_MS * 100, [3, 2, 1]),
            (-1, []),
        ]:
            assert ids(store.newest_first(stream, until_ms=until_ms)) == seen

    def test_ranges_hold_both_ends(self, store: OffsetStore, stream: Stream) -> None:
        for number in range(1, 6):
            store.append(stream, batch(number))
        for since, until, seen in [
            (2000, 4000, [2, 3, 4]),
            (2001, 3999, [3]),
            (4001, 4002, []),
            (4000, 2000, []),
        ]:
            assert ids(store.oldest_first(stream, since_ms=NOW_MS + since, until_ms=NOW_MS + until)) == seen
        assert ids(store.oldest_first(stream, since_ms=NOW_MS + 4000)) == [4, 5]
        assert ids(store.oldest_first(stream, until_ms=NOW_MS + 2000)) == [1, 2]

    def test_many_rows_are_read_in_order(
        self, store: OffsetStore, stream: Stream, fill: Callable[[Stream, list[Batch]], None]
    ) -> None:
        fill(stream, [batch(number) for number in range(self.ROWS)])
        assert ids(store.oldest_first(stream)) == list(range(self.ROWS))
        newest = itertools.islice(store.newest_first(stream), 1_150)
        assert ids(newest) == list(range(self.ROWS - 1, self.ROWS - 1_151, -1))
        assert store.position(stream) == position({0: 10 * self.ROWS})

    def test_a_row_of_ten_thousand_partitions(self, store: OffsetStore, stream: Stream) -> None:
        start, end = (position({number: number * 7 + more for number in range(10_000)}) for more in (0, 9))
        recorded = store.append(stream, Batch(end, NOW_MS, 1, "q", 1, start))
        store.append(stream, Batch(end.updated({TopicPartition("t", 0): 10}), NOW_MS + 1, 2, "q", 1, end))
        assert next(store.oldest_first(stream)) == recorded
        assert recorded.record_count == 90_000

    def test_batches_may_be_recorded_while_the_history_is_read(self, store: OffsetStore, stream: Stream) -> None:
        for number in range(20):
            store.append(stream, batch(number))
        reading = store.newest_first(stream)
        assert next(reading).batch_id == 19
        store.append(stream, batch(20))
        assert ids(reading) == list(range(18, -1, -1))

    def test_several_topics_are_one_batch(self, store: OffsetStore, stream: Stream) -> None:
        both = Stream(stream.group_id, ("u", "t"))
        recorded = [store.append(both, batch(number, topics="tu")) for number in (1, 2)]
        assert list(store.oldest_first(both)) == recorded
        assert list(store.newest_first(Stream(stream.group_id, ("t", "u")))) == recorded[::-1]
        assert store.append(both, recorded[0]) == recorded[0]
        assert list(store.oldest_first(both)) == recorded
        assert store.position(both) == Position({TopicPartition("t", 0): 30, TopicPartition("u", 0): 30})

    def test_a_history_goes_on_when_topics_are_added_or_taken_away(self, store: OffsetStore, stream: Stream) -> None:
        before, after = Stream(stream.group_id, ("t",)), Stream(stream.group_id, ("t", "u"))
        recorded = [store.append(before, batch(1)), store.append(after, batch(2, topics="tu"))]
        assert list(store.oldest_first(after)) == recorded
        assert list(store.newest_first(before)) == recorded[::-1]

    def test_one_group_on_different_topics_is_two_histories(self, store: OffsetStore, stream: Stream) -> None:
        one, two = Stream(stream.group_id, ("t",)), Stream(stream.group_id, ("u",))
        first = store.append(one, batch(1, query_id="one"))
        second = store.append(two, batch(1, query_id="two", topics="u"))
        assert (list(store.newest_first(one)), list(store.newest_first(two))) == ([first], [second])

    @pytest.mark.parametrize("neighbour", GROUPS_BESIDE_G)
    def test_a_group_never_sees_its_neighbours(self, store: OffsetStore, neighbour: str) -> None:
        # The common prefix of a test's groups separates them from other tests' groups and keeps their order.
        own, topic = uuid.uuid4().hex[:8], "t"
        mine, other = Stream(f"{own}g", (topic,)), Stream(f"{own}{neighbour}", (topic,))

        def one(number: int, offset: int) -> Batch:
            return Batch(position({0: offset}, topic), NOW_MS + number, number, "q", 1)

        for number in range(3):
            store.append(other, one(number, 900 + number))
        assert store.position(mine) is None
        recorded = [store.append(mine, one(number, number)) for number in range(3)]
        for number in range(3, 6):
            store.append(other, one(number, 900 + number))
        assert list(store.newest_first(mine)) == recorded[::-1]
        assert list(store.oldest_first(mine)) == recorded
        assert ids(store.newest_first(other)) == [5, 4, 3, 2, 1, 0]
        assert store.prepared(mine, NOW_MS + 4) is None
        assert ids(store.newest_first(mine, until_ms=NOW_MS + 1)) == [1, 0]

    @pytest.mark.parametrize(
        ("refused", "reason"),
        [
            (Stream("", ("t",)), "an empty group"),
            (Stream("g\n", ("t",)), "a control character"),
            (Stream("g\x00", ("t",)), "NUL"),
            (Stream("g\ud800", ("t",)), "half of a surrogate pair is not UTF-8"),
            (Stream("g", ()), "no topic"),
            (Stream("g", ("t:u",)), "topics hold no colon: the key is split at the first one"),
            (Stream("g", ("t", "u v")), "Kafka has no such topic"),
        ],
    )
    def test_streams_that_fit_no_row_key(self, store: OffsetStore, refused: Stream, reason: str) -> None:
        with pytest.raises(InputRefused):
            store.append(refused, batch(1))
        with pytest.raises(InputRefused):
            list(store.newest_first(refused))

    @pytest.mark.parametrize(
        ("refused", "reason"),
        [
            (Batch(Position(), NOW_MS), "it ends nowhere, and a row without cells is none"),
            (Batch(position({0: 1}, "other"), NOW_MS), "a topic of another stream"),
            (Batch(position({0: 1}), -1), "before 1970"),
            (Batch(position({0: 1}), 10**13), "14 digits"),
            (Batch(position({0: 1}), NOW_MS, 1, "q\0"), "NUL in the query id"),
            (Batch(position({0: 2**63}), NOW_MS), "ends where Kafka cannot count to"),
            (Batch(position({0: 1}), NOW_MS, start=position({0: 2**63})), "begins where Kafka cannot count to"),
        ],
    )
    def test_batches_that_fit_no_row(self, store: OffsetStore, stream: Stream, refused: Batch, reason: str) -> None:
        with pytest.raises(InputRefused):
            store.append(stream, refused)
        assert store.position(stream) is None

    @EXAMPLES
    @given(data=st.data())
    def test_what_is_recorded_is_read_back(self, store: OffsetStore, data: st.DataObject) -> None:
        stream = Stream(f"h-{uuid.uuid4().hex}", ("t", "u.v-w_x"))
        partitions = st.builds(TopicPartition, st.sampled_from(stream.topics), st.integers(0, 20))
        positions = st.dictionaries(partitions, st.integers(0, 2**62), min_size=1).map(Position)
        time_ms = st.integers(0, 10**13 - 1000)
        drawn = st.builds(
            Batch,
            end=positions,
            batch_time_ms=time_ms,
            batch_id=st.integers(0, 2**31),
            query_id=st.none() | st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20),
            epoch=st.none() | st.integers(0, 2**31),
            start=st.none() | positions,
        )
        batches = data.draw(st.lists(drawn, max_size=4, unique_by=lambda each: (each.query_id, each.batch_id)))
        recorded = [store.append(stream, each) for each in batches]
        assert [each.at_row(0) for each in recorded] == [each.at_row(0) for each in batches]
        assert list(store.oldest_first(stream)) == recorded
        assert list(store.newest_first(stream)) == recorded[::-1]
        assert [store.append(stream, each) for each in recorded] == recorded
        assert list(store.oldest_first(stream)) == recorded
        times = [each.row_time_ms for each in recorded]
        assert times == sorted(set(times), key=lambda each: each or 0)

    @EXAMPLES
    @given(data=st.data())
    def test_no_lookup_ever_gives_another_groups_batch(self, store: OffsetStore, data: st.DataObject) -> None:
        own = uuid.uuid4().hex
        names = data.draw(st.lists(NEIGHBOURS | GROUPS, min_size=2, max_size=4, unique=True), "groups")
        topics = tuple(data.draw(st.lists(TOPICS, min_size=1, max_size=2, unique=True), "topics"))
        streams = [Stream(f"{own}{name}", topics) for name in names]
        recorded: dict[Stream, list[Batch]] = {stream: [] for stream in streams}
        turns = data.draw(st.lists(st.sampled_from(streams), max_size=6), "turns")
        for number, stream in enumerate(turns):
            end = Position({TopicPartition(topic, 0): number for topic in topics})
            recorded[stream].append(store.append(stream, Batch(end, NOW_MS, number, "q", 1)))
        for stream, batches in recorded.items():
            assert list(store.oldest_first(stream)) == batches
            assert list(store.newest_first(stream)) == batches[::-1]
            assert store.position(stream) == (batches[-1].end if batches else None)
            until_ms = NOW_MS + data.draw(st.integers(-1, 3), "until")
            as_of = [each for each in batches if each.row_time_ms and each.row_time_ms <= until_ms]
            assert list(store.newest_first(stream, until_ms=until_ms)) == as_of[::-1]
            for at_ms in range(NOW_MS, NOW_MS + len(turns)):
                assert store.prepared(stream, at_ms) == next((one for one in batches if one.row_time_ms == at_ms), None)

    @EXAMPLES
    @given(times_ms=st.lists(st.integers(-400_000, 400_000).map(NOW_MS.__add__), min_size=1, max_size=5))
    def test_a_clock_that_goes_back_changes_no_answer(self, store: OffsetStore, times_ms: list[int]) -> None:
        stream = Stream(f"h-{uuid.uuid4().hex}", ("t",))
        recorded = [store.append(stream, batch(number, time_ms=at_ms)) for number, at_ms in enumerate(times_ms)]
        assert ids(store.oldest_first(stream)) == list(range(len(times_ms)))
        assert list(store.newest_first(stream)) == recorded[::-1]
        assert store.position(stream) == recorded[-1].end
        for each in recorded:
            assert store.append(stream, each) == each
            assert store.prepared(stream, each.row_time_ms or 0) == each
            assert next(store.newest_first(stream, until_ms=each.row_time_ms)) == each

    def test_a_row_of_the_last_time_leaves_no_room(self, store: OffsetStore, stream: Stream) -> None:
        last = store.append(stream, Batch(position({0: 5}), LAST_TIME_MS))
        with pytest.raises(StoreDataError, match="9999999999999"):
            store.append(stream, batch(1))
        assert list(store.oldest_first(stream)) == [last]

    def test_topics_that_were_recorded_one_by_one_are_one_position(self, store: OffsetStore, stream: Stream) -> None:
        both = Stream(stream.group_id, ("t", "u"))
        store.append(both, batch(1, topics="tu"))
        store.append(both, batch(2, topics="t"))
        assert store.position(both) == Position({TopicPartition("t", 0): 30, TopicPartition("u", 0): 20})
        assert store.position(Stream(stream.group_id, ("u",))) == position({0: 20}, "u"), "its own topics, no others"

    def test_appenders_at_the_same_time_each_get_a_place(self, store: OffsetStore, stream: Stream) -> None:
        in_threads(lambda number: store.append(stream, batch(number, time_ms=NOW_MS)), 8)
        rows = list(store.oldest_first(stream))
        assert sorted(each.batch_id or 0 for each in rows) == list(range(8))
        assert len({each.row_time_ms for each in rows}) == 8

    # swaps

    def test_facts_are_kept_with_the_text_and_are_no_history(
        self, store: OffsetStore, stream: Stream, pipeline: str
    ) -> None:
        started = batch(1).at_row(NOW_MS)
        assert store.swap(pipeline, "pipeline", None, "started", stream=stream, prepare=started)
        assert store.get(pipeline, "pipeline") == "started"
        assert store.prepared(stream, NOW_MS) == started
        assert store.prepared(stream, NOW_MS + 1) is None
        assert store.position(stream) is None
        assert list(store.newest_first(stream)) == list(store.oldest_first(stream)) == []

    def test_a_row_is_added_with_the_text(self, store: OffsetStore, stream: Stream, pipeline: str) -> None:
        done = batch(1).at_row(NOW_MS)
        assert store.swap(pipeline, "pipeline", None, "started", stream=stream, prepare=done)
        assert store.swap(pipeline, "pipeline", "started", "recorded", stream=stream, append=done)
        assert store.get(pipeline, "pipeline") == "recorded"
        assert list(store.newest_first(stream)) == [done]
        assert store.prepared(stream, NOW_MS) == done
        assert store.append(stream, done) == done, "whoever reads the record next may write its row again"
        assert list(store.oldest_first(stream)) == [done]

    def test_facts_text_and_row_in_one_swap(self, store: OffsetStore, stream: Stream, pipeline: str) -> None:
        """A batch under ``sink=`` is recorded this way: its end is unknown until Spark has committed it."""
        done = batch(1).at_row(NOW_MS)
        assert store.swap(pipeline, "pipeline", None, "recorded", stream=stream, prepare=done, append=done)
        assert list(store.newest_first(stream)) == [store.prepared(stream, NOW_MS)] == [done]

    @pytest.mark.parametrize(("text", "expected"), [(None, "1"), ("1", None), ("1", "0")])
    def test_a_swap_that_lost_adds_no_row(
        self, store: OffsetStore, stream: Stream, pipeline: str, text: str | None, expected: str | None
    ) -> None:
        if text is not None:
            store.check_and_put(pipeline, "pipeline", None, text)
        late = batch(1).at_row(NOW_MS)
        assert not store.swap(pipeline, "pipeline", expected, "2", stream=stream, prepare=late, append=late)
        assert not store.swap(pipeline, "pipeline", expected, "2", stream=stream, append=late)
        assert store.get(pipeline, "pipeline") == text
        assert list(store.newest_first(stream)) == []
        assert store.prepared(stream, NOW_MS) in ((None,) if self.SWAPS_ARE_ATOMIC else (None, late))

    def test_facts_of_an_older_epoch_never_replace_those_of_a_newer_one(
        self, store: OffsetStore, stream: Stream, pipeline: str
    ) -> None:
        newer, older = batch(1, epoch=5).at_row(NOW_MS), batch(2, epoch=4).at_row(NOW_MS)
        store.swap(pipeline, "pipeline", None, "5", stream=stream, prepare=newer)
        with pytest.raises(BatchConflict, match="epoch 5"):
            store.swap(pipeline, "pipeline", "5", "4", stream=stream, prepare=older)
        assert store.get(pipeline, "pipeline") == "5"
        assert store.prepared(stream, NOW_MS) == newer

    @pytest.mark.parametrize(
        ("kept", "new", "is_replaced"),
        [
            (batch(1, epoch=4), batch(2, epoch=5), True),
            (batch(1, epoch=4), batch(1, epoch=5), True),
            (batch(1, epoch=4), Batch(position({0: 99}), NOW_MS, 1, "q", 4, position({0: 10})), True),
            (batch(1, epoch=4), batch(1, epoch=4), True),
            (batch(1, epoch=4), batch(2, epoch=4), False),
        ],
        ids=["a later epoch", "its own run of it", "the same epoch, planned again", "nothing new", "another batch"],
    )
    def test_facts_that_replace_others(
        self, store: OffsetStore, stream: Stream, pipeline: str, kept: Batch, new: Batch, is_replaced: bool
    ) -> None:
        kept, new = kept.at_row(NOW_MS), new.at_row(NOW_MS)
        store.swap(pipeline, "pipeline", None, "1", stream=stream, prepare=kept)
        if is_replaced:
            assert store.swap(pipeline, "pipeline", "1", "2", stream=stream, prepare=new)
            assert store.swap(pipeline, "pipeline", "2", "3", stream=stream, append=new)
            assert list(store.newest_first(stream)) == [new]
        else:
            with pytest.raises(BatchConflict):
                store.swap(pipeline, "pipeline", "1", "2", stream=stream, prepare=new)
        assert store.get(pipeline, "pipeline") == ("3" if is_replaced else "1")
        assert store.prepared(stream, NOW_MS) == (new if is_replaced else kept)

    def test_facts_of_a_recorded_batch_are_never_replaced(
        self, store: OffsetStore, stream: Stream, pipeline: str
    ) -> None:
        done = batch(1, epoch=4).at_row(NOW_MS)
        store.swap(pipeline, "pipeline", None, "1", stream=stream, prepare=done, append=done)
        other = Batch(position({0: 99}), NOW_MS, 1, "q", 5, position({0: 10}), NOW_MS)
        with pytest.raises(BatchConflict):
            store.swap(pipeline, "pipeline", "1", "2", stream=stream, prepare=other)
        assert store.get(pipeline, "pipeline") == "1"
        assert list(store.newest_first(stream)) == [store.prepared(stream, NOW_MS)] == [done]

    def test_facts_of_a_batch_that_was_cut_off_stay(self, store: OffsetStore, stream: Stream, pipeline: str) -> None:
        """The next epoch runs the batch again at its own batch time; nobody writes a row of the first run."""
        cut_off, again = batch(1, epoch=1).at_row(NOW_MS), batch(1, epoch=2).at_row(NOW_MS + 1)
        store.swap(pipeline, "pipeline", None, "1", stream=stream, prepare=cut_off)
        store.swap(pipeline, "pipeline", "1", "2", stream=stream, prepare=again)
        store.swap(pipeline, "pipeline", "2", "3", stream=stream, append=again)
        assert list(store.oldest_first(stream)) == [again]
        assert store.position(stream) == again.end
        assert store.prepared(stream, NOW_MS) == cut_off

    def test_a_swap_of_several_topics(self, store: OffsetStore, stream: Stream, pipeline: str) -> None:
        both = Stream(stream.group_id, ("u", "t"))
        done = batch(1, topics="tu").at_row(NOW_MS)
        store.swap(pipeline, "pipeline", None, "1", stream=both, prepare=done)
        assert store.prepared(both, NOW_MS) == store.prepared(Stream(stream.group_id, ("u",)), NOW_MS) == done
        assert store.position(both) is None
        store.swap(pipeline, "pipeline", "1", "2", stream=both, append=done)
        assert list(store.newest_first(both)) == [done]

    def test_pipelines_that_share_a_group_keep_rows_of_one_time_apart(
        self, store: OffsetStore, stream: Stream, pipeline: str
    ) -> None:
        """Each pipeline places its rows by its own record, and does not know the other pipeline."""
        pairs = [
            (f"{pipeline}-{topic}", Stream(stream.group_id, (topic,)), batch(1, topics=topic, epoch=epoch))
            for topic, epoch in (("t", 9), ("u", 1))
        ]
        for name, own, done in pairs:
            assert store.swap(name, "pipeline", None, "1", stream=own, prepare=done.at_row(NOW_MS))
        for name, own, done in pairs:
            assert store.swap(name, "pipeline", "1", "2", stream=own, append=done.at_row(NOW_MS))
        for _, own, done in pairs:
            assert list(store.newest_first(own)) == [done.at_row(NOW_MS)]
            assert store.prepared(own, NOW_MS) == done.at_row(NOW_MS)
        both = Stream(stream.group_id, ("t", "u"))
        assert len(list(store.newest_first(both))) == len(list(store.oldest_first(both))) == 2

    def test_eight_swap_at_once_and_one_wins_with_its_row(
        self, store: OffsetStore, stream: Stream, pipeline: str
    ) -> None:
        rows = [batch(number).at_row(NOW_MS + number) for number in range(8)]

        def swap(number: int) -> bool:
            row = rows[number]
            return store.swap(pipeline, "pipeline", None, str(number), stream=stream, prepare=row, append=row)

        won = in_threads(swap, 8)
        assert won.count(True) == 1
        winner = won.index(True)
        assert store.get(pipeline, "pipeline") == str(winner)
        assert list(store.newest_first(stream)) == [rows[winner]]
        assert store.prepared(stream, NOW_MS + winner) == rows[winner]

    def test_two_who_record_the_same_batch_at_once_record_it_once(
        self, store: OffsetStore, stream: Stream, pipeline: str
    ) -> None:
        """A driver that was taken for dead, and the operation that accounts for its batch."""
        row = batch(1).at_row(NOW_MS)

        def swap(number: int) -> bool:
            return store.swap(pipeline, "pipeline", None, str(number), stream=stream, prepare=row, append=row)

        assert in_threads(swap, 4).count(True) == 1
        assert list(store.newest_first(stream)) == [row]

    @pytest.mark.parametrize(
        ("refused", "error"),
        [
            (Batch(position({0: 1}, "other"), NOW_MS, 1, "q", 1, None, NOW_MS), InputRefused),
            (Batch(Position(), NOW_MS, 1, "q", 1, None, NOW_MS), InputRefused),
            (Batch(position({0: 1}), NOW_MS, 1, "q", 1, None, LAST_TIME_MS + 1), StoreDataError),
        ],
    )
    @pytest.mark.parametrize("part", ["prepare", "append"])
    def test_a_batch_that_fits_no_row_is_refused_before_anything_is_set(
        self, store: OffsetStore, stream: Stream, pipeline: str, part: str, refused: Batch, error: type[Exception]
    ) -> None:
        parts: dict[str, Any] = {part: refused}
        with pytest.raises(error):
            store.swap(pipeline, "pipeline", None, "1", stream=stream, **parts)
        assert store.get(pipeline, "pipeline") is None

    @EXAMPLES
    @given(
        steps=st.lists(st.tuples(st.sampled_from(["begin", "record", "both"]), st.booleans(), st.integers(1, 3))),
    )
    def test_the_history_is_what_was_recorded_by_swaps_that_won(
        self, store: OffsetStore, steps: list[tuple[str, bool, int]]
    ) -> None:
        stream, pipeline = Stream(f"h-{uuid.uuid4().hex}", ("t", "u")), f"h-{uuid.uuid4().hex}"
        text: str | None = None
        recorded: list[Batch] = []
        started: Batch | None = None
        row_time_ms = NOW_MS
        for number, (kind, wins, later_ms) in enumerate(steps):
            if kind != "record" or started is None:
                row_time_ms += later_ms
                started = batch(number, topics="tu").at_row(row_time_ms)
                parts: dict[str, Any] = (
                    {"prepare": started} if kind == "begin" else {"prepare": started, "append": started}
                )
            else:
                parts = {"append": started}
            expected = text if wins else "a text that was there before"
            assert store.swap(pipeline, "pipeline", expected, str(number), stream=stream, **parts) == wins
            if wins:
                text = str(number)
                assert store.prepared(stream, row_time_ms) == started
            if wins and "append" in parts:
                recorded.append(started)
            if "append" in parts or not wins:
                started = None
            assert store.get(pipeline, "pipeline") == text
        assert list(store.oldest_first(stream)) == recorded
        assert list(store.newest_first(stream)) == recorded[::-1]

    # control

    def test_a_text_is_created_once(self, store: OffsetStore, pipeline: str) -> None:
        assert store.get(pipeline, "epoch") is None
        assert store.check_and_put(pipeline, "epoch", None, "1")
        assert not store.check_and_put(pipeline, "epoch", None, "2")
        assert store.get(pipeline, "epoch") == "1"

    def test_a_text_is_replaced_only_if_it_is_the_expected_one(self, store: OffsetStore, pipeline: str) -> None:
        assert not store.check_and_put(pipeline, "epoch", "1", "2")
        assert store.get(pipeline, "epoch") is None
        store.check_and_put(pipeline, "epoch", None, "1")
        assert not store.check_and_put(pipeline, "epoch", "0", "2")
        assert store.check_and_put(pipeline, "epoch", "1", "2")
        assert store.check_and_put(pipeline, "epoch", "2", "2")
        assert store.get(pipeline, "epoch") == "2"

    def test_the_empty_text_is_a_text(self, store: OffsetStore, pipeline: str) -> None:
        assert not store.check_and_put(pipeline, "note", "", "x")
        assert store.check_and_put(pipeline, "note", None, "")
        assert store.get(pipeline, "note") == ""
        assert not store.check_and_put(pipeline, "note", None, "x")
        assert list(store.scan(pipeline, "")) == [("note", "")]
        assert store.check_and_put(pipeline, "note", "", "x")

    @pytest.mark.parametrize("expected", [None, "0"], ids=["create", "replace"])
    def test_eight_claim_at_once_and_one_wins(self, store: OffsetStore, pipeline: str, expected: str | None) -> None:
        if expected is not None:
            store.check_and_put(pipeline, "epoch", None, expected)
        won = in_threads(lambda number: store.check_and_put(pipeline, "epoch", expected, f"claim {number}"), 8)
        assert won.count(True) == 1
        assert store.get(pipeline, "epoch") == f"claim {won.index(True)}"

    def test_scan_is_sorted_and_keeps_to_the_prefix(self, store: OffsetStore, pipeline: str) -> None:
        names = ["a", "a/1", "a/10", "a/2", "a/é", "a/𝄞", "A/1", "a:1", "a0", "b/1", "é"]
        for name in reversed(names):
            store.check_and_put(pipeline, name, None, name.upper())
        assert [name for name, _ in store.scan(pipeline, "a/")] == ["a/1", "a/10", "a/2", "a/é", "a/𝄞"]
        assert [name for name, _ in store.scan(pipeline, "")] == sorted(names)
        assert dict(store.scan(pipeline, "é")) == {"é": "É"}
        assert list(store.scan(pipeline, "zz")) == []

    def test_scan_goes_on_past_one_page(self, store: OffsetStore, pipeline: str) -> None:
        for number in range(520):
            store.check_and_put(pipeline, f"beat/{number:04}", None, str(number))
        assert [text for _, text in store.scan(pipeline, "beat/")] == [str(number) for number in range(520)]

    def test_scan_never_crosses_pipelines(self, store: OffsetStore, pipeline: str) -> None:
        pipelines = [pipeline, f"{pipeline}.b", f"{pipeline}-b", f"{pipeline}b", f"{pipeline}_b", pipeline[:-1]]
        for owner in pipelines:
            store.check_and_put(owner, "epoch", None, owner)
            store.check_and_put(owner, "b:epoch", None, owner)
        for owner in pipelines:
            assert list(store.scan(owner, "")) == [("b:epoch", owner), ("epoch", owner)]
            assert store.get(owner, "epoch") == owner

    def test_the_owners_of_resources_belong_to_no_pipeline(self, store: OffsetStore, pipeline: str) -> None:
        mine = f"checkpoint {pipeline}"
        claims = in_threads(lambda number: claim_resources(store, f"{pipeline}-{number}", [mine]), 4)

        [owner] = {each[mine] for each in claims}
        hand_over(store, owner, f"{pipeline}-new", is_due=lambda: True)
        assert owners_of(store, [mine]) == {mine: f"{pipeline}-new"}
        assert list(store.scan(pipeline, "")) == []

    @pytest.mark.parametrize("refused", ["", "a:", "a:b", "a b", ".a", "_a", "a\n"])
    def test_pipelines_that_fit_no_row_key(self, store: OffsetStore, refused: str) -> None:
        for call in control_calls(store, refused, "name"):
            with pytest.raises(InputRefused):
                call()
        with pytest.raises(InputRefused):
            list(store.scan(refused, ""))

    @pytest.mark.parametrize("refused", ["", " a", "a ", "a\n", "a\0b", "\ud800"])
    def test_names_that_fit_no_row_key(self, store: OffsetStore, pipeline: str, refused: str) -> None:
        for call in control_calls(store, pipeline, refused):
            with pytest.raises(InputRefused):
                call()

    @pytest.mark.parametrize("refused", ["\0", "a\0b", "\ud800"])
    def test_texts_that_some_store_cannot_hold(self, store: OffsetStore, pipeline: str, refused: str) -> None:
        with pytest.raises(InputRefused):
            store.check_and_put(pipeline, "name", None, refused)

    @EXAMPLES
    @given(first=TEXTS, second=TEXTS)
    def test_texts_are_kept_as_they_are(self, store: OffsetStore, first: str, second: str) -> None:
        pipeline = f"h-{uuid.uuid4().hex}"
        assert store.check_and_put(pipeline, "text", None, first)
        assert store.get(pipeline, "text") == first
        assert store.check_and_put(pipeline, "text", second, "x") == (first == second)
        assert not store.check_and_put(pipeline, "text", None, second)

    def test_json_with_every_kind_of_text(self, store: OffsetStore, pipeline: str) -> None:
        text = json.dumps({"who": "Žofie 𝄞 \0 \"'`", "lines": "a\nb\r\n\t"}, ensure_ascii=False)
        assert store.check_and_put(pipeline, "operation/1", None, text)
        assert dict(store.scan(pipeline, "operation/")) == {"operation/1": text}


def control_calls(store: OffsetStore, pipeline: str, name: str) -> list[Callable[[], Any]]:
    return [lambda: store.get(pipeline, name), lambda: store.check_and_put(pipeline, name, None, "x")]


def count_round_trips(store: OffsetStore, way: str, trips: list[Any]) -> None:
    """Begin and record a batch as a driver does that has claimed its launch; ``trips`` then holds the round trips.

    :param way: ``process`` or ``sink``, as the user's function is passed to a tracked stream.
    """
    pipeline, stream = f"p-{uuid.uuid4().hex[:8]}", Stream(f"g-{uuid.uuid4().hex[:8]}", ("t",))
    driver, row = ProcessIdentity("worker", "boot", 1, 7), batch(1).at_row(NOW_MS)
    cell = RecordCell(store, pipeline)
    cell.create()
    cell.change(TakeLease("op", 0, 0))
    cell.change(LaunchEpoch("op", 1, EpochLaunch(1, "tag", "op", "plan", "/checkpoint"), 0))
    cell.change(ClaimLaunch("tag", driver, 0))
    recorded = RecordBatch("tag", driver, "run", Recorded(1, "tag", 1, "q", NOW_MS, "digest"))
    trips.clear()
    if way == "process":
        started = StartedBatch(1, "q", NOW_MS, "run", NOW_MS, "digest")
        cell.change(StartBatch("tag", driver, started), stream=stream, prepare=row)
        cell.change(recorded, stream=stream, append=row)
    else:
        cell.change(StartBatch("tag", driver, StartedBatch(1, "q", NOW_MS, "run")))
        cell.change(recorded, stream=stream, prepare=row, append=row)
    cost = len(trips)
    assert list(store.newest_first(stream)) == [row]
    del trips[cost:]


def in_threads(call: Callable[[int], Any], count: int) -> list[Any]:
    """Call the function in this many threads at once, and return the results in the order of the threads' numbers."""
    answers: list[Any] = [None] * count
    problems: list[BaseException] = []
    together = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            together.wait()
            answers[number] = call(number)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    return answers
