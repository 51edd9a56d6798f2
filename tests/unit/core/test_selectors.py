"""Ways to name a starting point: each row with the reason for its result."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core import interchange
from airflow_provider_offsets.core.limits import LAST_TIME_MS
from airflow_provider_offsets.core.live import LivePartition, LiveTopic, LiveTopics, TopicIdentity
from airflow_provider_offsets.core.position import Position, TopicPartition, first_missing, missing_partitions
from airflow_provider_offsets.core.problem import ProblemKind
from airflow_provider_offsets.core.restart.choice import weigh
from airflow_provider_offsets.core.restart.model import OnConflict, RestartPlan
from airflow_provider_offsets.core.restart.planner import plan_restart
from airflow_provider_offsets.core.selectors.model import Chosen, PastPosition, Sources, StartSelector
from airflow_provider_offsets.core.selectors.parse import parse_start, start_text
from airflow_provider_offsets.core.selectors.resolve import (
    AsOf,
    AtTimestamp,
    Before,
    Committed,
    Earliest,
    FromFile,
    FromGroup,
    FromSnapshot,
    Latest,
    Offsets,
    Shift,
    Start,
)
from airflow_provider_offsets.core.snapshot import Observation, Snapshot
from airflow_provider_offsets.errors import OffsetsError, SelectorError, SnapshotNotFound
from tests.unit.core.observations import (
    IDENTITY,
    NOON,
    TOPIC,
    FakeSources,
    at,
    live,
    processed,
    running,
    seen,
    untracked,
)

THERE = live((10, 100), (0, 100), (0, 100))
NOW = running(THERE, at(40, 60))
HOUR = 3_600_000
OTHER_CLUSTER, OTHER_TOPIC = TopicIdentity("cluster-9", {TOPIC: "id-1"}), TopicIdentity("cluster-1", {TOPIC: "id-9"})


def taken(session: Observation, snapshot_id: str = "s-1") -> Snapshot:
    return Snapshot(snapshot_id, "operation-1", "", "", "2025-01-01T00:00:00Z", session)


def chosen(text: str, session: Observation = NOW, **sources: Any) -> dict[TopicPartition, Chosen]:
    there: Sources = FakeSources(**{"position": session.stored or Position(), **sources})
    return parse_start(text).choose(session, there)


def wanted(text: str, session: Observation = NOW, **sources: Any) -> Position:
    return Position({partition: each.offset for partition, each in chosen(text, session, **sources).items()})


def planned(text: str, session: Observation = NOW, **sources: Any) -> RestartPlan:
    """Return the plan, as ``operations.planning`` makes it."""
    choice = weigh(parse_start(text), chosen(text, session, **sources), session, OnConflict.REFUSE)
    plan = plan_restart(choice.wanted, session, selector=text, chosen_by=choice.chosen_by, named=choice.named)
    return RestartPlan(**{**vars(plan), "problems": (*choice.problems, *plan.problems)})


ROWS: list[tuple[str, str, Position, dict[str, Any]]] = [
    ("at its position; a partition that it never read is new: law 3", "committed", at(40, 60, 0), {}),
    ("spaces are nothing", "  committed ", at(40, 60, 0), {}),
    ("what retention has left, in new partitions too", "earliest", at(10, 0, 0), {}),
    ("the ends, in new partitions too: the plan counts all that is skipped", "latest", at(100, 100, 100), {}),
    ("exactly there; the others stay", 'offsets:{"flights":{"0":12}}', at(12, 60, 0), {}),
    ("a new one may be named too", 'offsets:{"flights":{"2":7}}', at(40, 60, 7), {}),
    (
        "with a fallback of its own, the others do not stay: they are asked for there",
        'offsets:{"flights":{"0":12}} | latest',
        at(12, 100, 100),
        {},
    ),
    ("back from its position; a new partition has nothing to go back from", "shift:-5", at(35, 55, 0), {}),
    ("forward", "shift:+5", at(45, 65, 0), {}),
    ("forward, without the sign", "shift:5", at(45, 65, 0), {}),
    ("before what retention has left: not clamped, the plan counts it", "shift:-35", at(5, 25, 0), {}),
    ("before offset 0 there never was anything", "shift:-50", at(0, 10, 0), {}),
    ("past the end: not clamped, the plan refuses it", "shift:+50", at(90, 110, 0), {}),
    (
        "from the position on which the stores agree, if they contradict each other and the smallest was asked for",
        "shift:-5",
        at(25, 55, 0),
        {"position": at(30, 60)},
    ),
    (
        "a snapshot; the partition that was made after it from 0",
        "snapshot:s-1",
        at(20, 30, 0),
        {"snapshots": (taken(running(live((0, 50), (0, 50)), at(20, 30))),)},
    ),
    (
        "a hole of a snapshot is not new: the next one is asked",
        "snapshot:s-1 | latest",
        at(20, 100, 30),
        {"snapshots": (taken(seen(live((0, 50), (0, 50), (0, 50)), processed=processed(at(20, None, 30)))),)},
    ),
    (
        "a snapshot from before the first start says nothing",
        "snapshot:s-1 | earliest",
        at(10, 0, 0),
        {"snapshots": (taken(seen(THERE)),)},
    ),
    (
        "after the last batch at or before that time",
        "as-of:2026-11-01T12:00Z",
        at(30, 50, 5),
        {"past": ((NOON - 1, PastPosition(at(20, 40, 1), "")), (NOON, PastPosition(at(30, 50, 5), "")))},
    ),
    (
        "a batch a millisecond later does not count",
        "as-of:2026-11-01T11:59:59.999Z",
        at(20, 40, 1),
        {"past": ((NOON - 1, PastPosition(at(20, 40, 1), "")), (NOON, PastPosition(at(30, 50, 5), "")))},
    ),
    (
        "a partition that was not read by then is read from 0, and not left to the fallback, which would skip it",
        "as-of:2026-11-01T12:00Z | latest",
        at(30, 50, 0),
        {"past": ((NOON, PastPosition(at(30, 50), "")),)},
    ),
    (
        "before the first batch the history says nothing: the fallback is asked",
        "as-of:2026-11-01T12:00Z | earliest",
        at(10, 0, 0),
        {"past": ((NOON + 1, PastPosition(at(30, 50), "")),)},
    ),
    (
        "by record time, each partition for itself",
        "timestamp:2026-11-01T12:00Z",
        at(50, 70, 0),
        {"times": {NOON: (50, 70, 0)}},
    ),
    (
        "a partition that was never read is new, whatever times its records have: law 3",
        "timestamp:2026-11-01T12:00Z | latest",
        at(50, 70, 0),
        {"times": {NOON: (50, 70, 3)}},
    ),
    (
        "at the first start all are asked for",
        "timestamp:2026-11-01T12:00Z",
        at(50, 70, 3),
        {"times": {NOON: (50, 70, 3)}, "position": Position()},
    ),
    (
        "no record of that time or later: the end, which the row says, and the plan counts as skipped",
        "timestamp:2026-11-01T12:00Z",
        at(50, 100, 0),
        {"times": {NOON: (50, None, None)}},
    ),
    (
        "that is an answer: a fallback is not asked",
        "timestamp:2026-11-01T12:00Z | earliest",
        at(50, 100, 0),
        {"times": {NOON: (50, None, None)}},
    ),
    (
        "a partition that appeared after the look is not in the plan",
        "timestamp:2026-11-01T12:00Z",
        at(50, 70, 0),
        {"times": {NOON: (50, 70, 3, 9)}},
    ),
    (
        "the zone counts",
        "timestamp:2026-11-01T12:00+01:00",
        at(50, 70, 0),
        {"times": {NOON - HOUR: (50, 70, 3)}},
    ),
    (
        "so long before the operation's first plan",
        "duration:PT1H",
        at(50, 70, 0),
        {"times": {NOON - HOUR: (50, 70, 3)}},
    ),
    (
        "what the other group has committed; what it has not is not said, and certainly not the latest",
        "group:other | earliest",
        at(33, 0, 0),
        {"commits": {"other": at(33)}},
    ),
    (
        "ids of groups may hold colons",
        "group:other:1 | committed",
        at(33, 60, 0),
        {"commits": {"other:1": at(33)}},
    ),
    (
        "a file of one group, as Kafka's tool writes it; the others stay",
        "file:/data/o.csv",
        at(7, 60, 0),
        {"files": {"/data/o.csv": "flights,0,7\n"}},
    ),
    (
        "a file of several groups, one of them named",
        "file:/data/o.csv#b:1",
        at(8, 9, 0),
        {"files": {"/data/o.csv": '"a",flights,0,7\n"b:1",flights,0,8\n"b:1",flights,1,9\n'}},
    ),
    (
        "our own JSON, of these very topics",
        "file:/data/o.json",
        at(8, 9, 0),
        {
            "files": {
                "/data/o.json": interchange.to_json([interchange.GroupPosition("g", at(8, 9), IDENTITY, "zookeeper")])
            }
        },
    ),
    (
        "three in a row: each partition by the first that says something of it",
        'offsets:{"flights":{"2":5}} | group:other | latest',
        at(100, 44, 5),
        {"commits": {"other": at(None, 44, 66)}},
    ),
]


@pytest.mark.parametrize(("why", "text", "expected", "sources"), ROWS, ids=[row[0] for row in ROWS])
def test_what_a_start_chooses(why: str, text: str, expected: Position, sources: dict[str, Any]) -> None:
    assert wanted(text, **sources) == expected, why


def test_every_form_is_in_the_table() -> None:
    forms = {type(part) for _, text, _, _ in ROWS for part in parse_start(text).parts}

    assert forms == {
        Committed,
        Earliest,
        Latest,
        Offsets,
        Shift,
        FromSnapshot,
        AsOf,
        AtTimestamp,
        Before,
        FromFile,
        FromGroup,
    }


REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("nothing", "", {}, "Start selector ''"),
    ("no such word", "latest-ish", {}, "Start selector 'latest-ish'"),
    ("the part that is wrong is quoted", "as-of:2026-11-01T00:00Z | erliest", {}, "Start selector 'erliest' in"),
    ("nothing behind the bar", "committed |", {}, "Start selector '' in 'committed |'"),
    ("a value where none belongs", "committed:", {}, "Start selector 'committed:'"),
    ("no value where one belongs", "group", {}, "Start selector 'group'"),
    ("no id", "snapshot:", {}, "'snapshot:' is followed by nothing"),
    ("no group", "group: ", {}, "'group:' is followed by nothing"),
    ("no number", "shift:", {}, "'shift:' is followed by ''"),
    ("no number in digits", "shift:ten", {}, "'shift:' is followed by 'ten'"),
    ("no number as people write it", "shift:1_000", {}, "'shift:' is followed by '1_000'"),
    ("no JSON", "offsets:", {}, "'offsets:' is followed by ''"),
    ("no partition", "offsets:{}", {}, "names no partition"),
    ("-2 is a wish", 'offsets:{"flights":{"0":-2}}', {}, "offsets begin at 0"),
    ("text for a number", 'offsets:{"flights":{"0":"12"}}', {}, "holds '12'"),
    ("half of it", 'offsets:{"flights":', {}, "at character 11"),
    ("an offset twice", 'offsets:{"flights":{"0":1,"0":9}}', {}, "'0' appears twice"),
    ("a topic twice", 'offsets:{"flights":{"0":1},"flights":{"1":1}}', {}, "'flights' appears twice"),
    ("a blank in a topic", 'offsets:{"flights ":{"0":1}}', {}, "'flights ' has a space (U+0020) at its end"),
    ("a fraction", 'offsets:{"flights":{"0":1.0}}', {}, "holds 1.0"),
    ("a partition that nobody writes so", 'offsets:{"flights":{"00":1}}', {}, "has partition '00'"),
    ("a space before a group belongs to it", "group: lead", {}, "'group:' is followed by ' lead'"),
    ("a blank that trims", "committed\u00a0", {}, "a no-break space (U+00A0) at its end"),
    ("a blank without a width", "snapshot:s\u200b1", {}, "a zero width space (U+200B) after 'snapshot:s'"),
    ("a time that is a number", "timestamp:1761955200000", {}, "it is not a date and time"),
    ("no zone", "as-of:2026-11-01T00:00", {}, "'as-of:' is followed by '2026-11-01T00:00': it has no time zone"),
    ("no time", "timestamp:noon", {}, "'timestamp:' is followed by 'noon': it is not a date and time"),
    ("Kafka would read -1 as latest", "timestamp:-1", {}, "'timestamp:' is followed by '-1'"),
    ("a month is not always equally long", "duration:P1M", {}, "'duration:' is followed by 'P1M': years and months"),
    ("before 1970 nothing has a time", "duration:P99999D", {}, "'duration:P99999D' reaches back before 1970"),
    ("which folder would that be in?", "file:offsets.csv", {}, "'file:' is followed by 'offsets.csv'"),
    ("no path", "file:#g", {}, "'file:' is followed by '#g'"),
    ("no such partitions", 'offsets:{"flights":{"3":1},"x":{"0":1}}', {}, "names flights[3], x[0], which the pipeline"),
    (
        "of a topic that is not read: ignoring it would hide a mistyped one",
        "file:/f",
        {"files": {"/f": "flights,0,1\nflihgts,1,1\n"}},
        "'file:/f' names flihgts[1], which",
    ),
    ("several groups", "file:/f", {"files": {"/f": "a,flights,0,1\nb,flights,0,2\n"}}, "2 groups: 'a', 'b'"),
    ("another group", "file:/f#c", {"files": {"/f": "a,flights,0,1\n"}}, "no position of group 'c'"),
    ("an empty file", "file:/f", {"files": {"/f": ""}}, "'file:/f': a file of offsets has no groups"),
    ("a file of something else", "file:/f", {"files": {"/f": "flights,0,soon\n"}}, "line 1: offset 'soon'"),
    (
        "a file of another cluster",
        "file:/f",
        {"files": {"/f": interchange.to_json([interchange.GroupPosition("g", at(1), OTHER_CLUSTER)])}},
        "'file:/f' is of cluster 'cluster-9'",
    ),
    (
        "a file of a topic that was recreated",
        "file:/f",
        {"files": {"/f": interchange.to_json([interchange.GroupPosition("g", at(1), OTHER_TOPIC)])}},
        "['flights'] topics were recreated",
    ),
    (
        "a snapshot of another cluster",
        "snapshot:s-1",
        {"snapshots": (taken(running(live((0, 50), cluster_id="cluster-9"), at(20))),)},
        "Snapshot 's-1' is of cluster 'cluster-9'",
    ),
    (
        "a snapshot of a topic that was recreated",
        "snapshot:s-1",
        {"snapshots": (taken(running(live((0, 50), topic_id="id-9"), at(20))),)},
        "['flights'] topics were recreated",
    ),
    (
        "history of a topic that was recreated",
        "as-of:2026-11-01T12:00Z | earliest",
        {"past": ((NOON, PastPosition(at(30), "after batch 7", OTHER_TOPIC)),)},
        "What was recorded by 2026-11-01T12:00:00Z (after batch 7) is of cluster",
    ),
    (
        "a fallback that is wrong, though nothing is left to it now: in the window it might be asked",
        "earliest | snapshot:s-9",
        {},
        "s-9",
    ),
]


@pytest.mark.parametrize(("why", "text", "sources", "quoted"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_is_wrong_is_quoted(why: str, text: str, sources: dict[str, Any], quoted: str) -> None:
    with pytest.raises(OffsetsError) as caught:
        chosen(text, **sources)
    assert isinstance(caught.value, SelectorError | SnapshotNotFound)
    assert quoted in str(caught.value), why
    assert ". Expected " in str(caught.value)


class TestPlanned:
    """What the plan makes of a selector: no position moves silently."""

    @pytest.mark.parametrize(
        ("text", "sources", "reasons"),
        [
            (
                "committed",
                {},
                ["continues at its position", "continues at its position", "new partition: from offset 0"],
            ),
            (
                "shift:-50",
                {},
                [
                    "retention has deleted the earlier records; chosen by shift:-50 (only 40 offsets are before its"
                    " position)",
                    "chosen by shift:-50",
                    "new partition: from offset 0; chosen by shift:-50",
                ],
            ),
            (
                "timestamp:2026-11-01T12:00Z",
                {"times": {NOON: (10, None, 0)}},
                [
                    "chosen by timestamp:2026-11-01T12:00:00Z (earliest retained offset; the times of deleted records"
                    " are unknown)",
                    "chosen by timestamp:2026-11-01T12:00:00Z (no record at or after 2026-11-01T12:00:00Z: its end)",
                    "new partition: from offset 0; chosen by timestamp:2026-11-01T12:00:00Z",
                ],
            ),
            (
                "as-of:2026-11-01T12:00Z | group:g | earliest",
                {"past": ((NOON, PastPosition(at(40), "after batch 7")),), "commits": {"g": at(None, 5)}},
                [
                    "continues at its position; chosen by as-of:2026-11-01T12:00:00Z (after batch 7)",
                    "chosen by as-of:2026-11-01T12:00:00Z (after batch 7; not read by then)",
                    "new partition: from offset 0; chosen by as-of:2026-11-01T12:00:00Z (after batch 7; not read by"
                    " then)",
                ],
            ),
            (
                f'offsets:{{"{TOPIC}":{{"0":11,"1":{"1" * 15},"2":{"2" * 15}}}}} | earliest',
                {},
                ['chosen by offsets:{"flights":{"0":11,"1":111111111111111,"2":222222222…'] * 3,
            ),
        ],
    )
    def test_each_row_says_what_chose_it(self, text: str, sources: dict[str, Any], reasons: list[str]) -> None:
        assert [row.why for row in planned(text, **sources).rows] == reasons

    def test_latest_skips_and_is_refused(self) -> None:
        plan = planned("latest")

        assert (plan.skipped, [each.kind for each in plan.problems]) == (60 + 40 + 100, [ProblemKind.SKIP])

    def test_a_time_after_the_last_record_is_counted_as_skipping(self) -> None:
        plan = planned("timestamp:2026-11-01T12:00Z", times={NOON: (None, None, None)})

        assert (plan.skipped, [each.kind for each in plan.problems]) == (60 + 40, [ProblemKind.SKIP])

    def test_before_the_first_record_that_is_left_no_loss_is_claimed(self) -> None:
        plan = planned("timestamp:2026-11-01T12:00Z", times={NOON: (10, 0, 0)})

        assert (plan.replay, plan.unreplayable, plan.lost, plan.problems) == (30 + 60, 0, 0, ())

    @pytest.mark.parametrize(
        ("text", "kinds"),
        [("shift:-35", [ProblemKind.LOSS]), ("shift:+50", [ProblemKind.SKIP, ProblemKind.OFFSET_PAST_END])],
    )
    def test_a_shift_beyond_what_there_is_is_refused(self, text: str, kinds: list[ProblemKind]) -> None:
        assert {each.kind for each in planned(text).problems} == set(kinds)

    @pytest.mark.parametrize(
        ("why", "text", "session", "sources", "unnamed"),
        [
            ("a group that committed nothing", "group:g", NOW, {}, "flights[0], flights[1]"),
            ("a commit is missing", "group:g", NOW, {"commits": {"g": at(15)}}, "flights[1]"),
            ("the history begins later", "as-of:2026-11-01T12:00Z", NOW, {}, "flights[0], flights[1]"),
            (
                "a first start by a history that is not there",
                "as-of:2026-11-01T12:00Z",
                seen(THERE),
                {},
                "flights[0], flights[1], flights[2]",
            ),
            (
                "a first start by a group that misses a commit",
                "group:g",
                seen(THERE),
                {"commits": {"g": at(15, 6)}},
                "flights[2]",
            ),
        ],
    )
    def test_what_nobody_named_is_refused_by_name(
        self, why: str, text: str, session: Observation, sources: dict[str, Any], unnamed: str
    ) -> None:
        plan = planned(text, session, **sources)

        [problem] = plan.problems
        assert problem.kind is ProblemKind.NO_START
        assert f"names no start for {unnamed}. " in problem.message, why

    @pytest.mark.parametrize(
        ("why", "text", "session", "start"),
        [
            ("nothing was read yet: from the first offset there is", "committed", seen(THERE), at(10, 0, 0)),
            ("there is nothing to shift from", "shift:-5", seen(THERE), at(10, 0, 0)),
            ("the first start from where a person says", "committed | latest", seen(THERE), at(100, 100, 100)),
            ("a new partition is not for the fallback: law 3", "committed | latest", NOW, at(40, 60, 0)),
            (
                "a first start at some offsets, the rest is new",
                'offsets:{"flights":{"0":12}}',
                seen(THERE),
                at(12, 0, 0),
            ),
        ],
    )
    def test_first_starts_and_new_partitions(self, why: str, text: str, session: Observation, start: Position) -> None:
        plan = planned(text, session)

        assert (plan.start, plan.problems) == (start, ()), why

    def test_a_topic_that_is_new_to_the_pipeline_begins_where_it_begins(self) -> None:
        more = LiveTopic("cancelled", "id-2", (LivePartition(5, 9),))
        there = LiveTopics("cluster-1", (*THERE.topics, more))

        plan = planned("shift:-5", running(there, at(40, 60)))

        assert plan.start == at(35, 55, 0).updated(at(5, topic="cancelled"))
        assert plan.problems == ()

    def test_stores_that_contradict_each_other_matter_where_the_start_is_left_to_them(self) -> None:
        session = untracked(THERE, at(40, 60, 5), store="zookeeper")
        session = Observation(
            **{**vars(session), "kept": (*session.kept, untracked(THERE, at(40, 50, 5), store="hbase").kept[0])}
        )

        def kinds(text: str) -> list[ProblemKind]:
            return [each.kind for each in planned(text, session).problems]

        assert kinds("committed") == kinds("shift:-5") == [ProblemKind.STORES_CONFLICT]
        assert kinds('offsets:{"flights":{"0":39}}') == [ProblemKind.STORES_CONFLICT], "the other keeps its position"
        assert kinds('offsets:{"flights":{"1":50}}') == [], "the way out that the problem names"
        assert kinds("earliest") == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("committed", "committed"),
        ("as-of:2026-11-01T00:00Z|earliest", "as-of:2026-11-01T00:00Z|earliest"),
        (["committed", "earliest"], "committed | earliest"),
        ([{"committed": None}, {"shift": -1000}], "committed | shift:-1000"),
        ([{"offsets": {"flights": {0: 123}}}, "latest"], 'offsets:{"flights":{"0":123}} | latest'),
        ([{"group": "a:b"}], "group:a:b"),
        (["as-of:2026-11-01T00:00Z | group:g", "latest"], "as-of:2026-11-01T00:00:00Z | group:g | latest"),
    ],
)
def test_a_start_in_yaml(value: Any, text: str) -> None:
    assert start_text(value) == text


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ([], "Start []"),
        (7, "Start 7"),
        ({"committed": None}, "Start {'committed': None}"),
        ([["committed"]], "start contains ['committed']"),
        ([{"shift": 1, "committed": None}], "start contains {"),
        ([{"group": "a|b"}], "start contains 'group:a|b'"),
        ([{"group": " lead"}], "start contains 'group' with ' lead'"),
        ([{"file": "/offsets.csv "}], "start contains 'file' with '/offsets.csv '"),
        ([{"shift": "ten"}], "'shift:' is followed by 'ten'"),
        (["earliest", "newest"], "Start selector 'newest'"),
        ("newest", "Start selector 'newest'"),
    ],
)
def test_a_start_in_yaml_that_is_wrong_is_quoted(value: Any, quoted: str) -> None:
    with pytest.raises(SelectorError) as caught:
        start_text(value)
    assert quoted in str(caught.value)


# Laws.

offsets = st.integers(0, 30)
positions = st.lists(st.none() | offsets, max_size=4).map(lambda given: at(*given))
names = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="|"), min_size=1, max_size=12)
moments = st.integers(0, LAST_TIME_MS)
selectors: st.SearchStrategy[StartSelector] = st.one_of(
    st.sampled_from([Committed(), Earliest(), Latest()]),
    st.integers(-(10**18), 10**18).map(Shift),
    positions.filter(bool).map(Offsets),
    moments.map(AsOf),
    moments.map(AtTimestamp),
    moments.map(Before),
    names.map(FromSnapshot),
    names.map(FromGroup),
    st.builds(FromFile, names.map(lambda name: f"/{name}"), st.just("") | names.filter(lambda name: "#" not in name)),
)


@given(st.lists(selectors, min_size=1, max_size=4))
def test_a_start_comes_back_from_its_text(parts: list[StartSelector]) -> None:
    start = Start(tuple(parts))
    implied = (Committed(),) if isinstance(parts[-1], Offsets | FromFile) else ()

    assert parse_start(str(start)) == Start((*parts, *implied))
    assert parse_start(str(parse_start(str(start)))) == parse_start(str(start))
    assert start_text([str(part) for part in parts]) == str(parse_start(str(start)))


answers = st.lists(
    st.one_of(
        st.sampled_from([Committed(), Earliest(), Latest(), Shift(-3), Shift(3), AsOf(5), AtTimestamp(5)]),
        st.sampled_from([FromGroup("a"), FromGroup("b"), FromSnapshot("s-1"), Before(NOON - 5)]),
    ),
    min_size=1,
    max_size=4,
)


@st.composite
def asked(draw: st.DrawFn) -> tuple[Observation, FakeSources]:
    there = draw(
        st.lists(st.tuples(offsets, offsets).map(lambda pair: (min(pair), max(pair))), min_size=1, max_size=4).map(
            lambda ranges: live(*ranges)
        )
    )
    position = draw(positions)
    session = running(there, position) if position else seen(there)
    return session, FakeSources(
        position=position,
        times={5: draw(st.lists(st.none() | offsets, min_size=7, max_size=7).map(tuple))},
        commits={"a": draw(positions), "b": draw(positions)},
        past=draw(st.just(()) | positions.filter(bool).map(lambda then: ((4, PastPosition(then, "")),))),
        snapshots=(taken(running(there, draw(positions))),),
    )


@given(asked(), answers)
def test_each_partition_gets_what_the_first_part_says_that_answers_for_it(
    session: tuple[Observation, FakeSources], parts: list[StartSelector]
) -> None:
    there, sources = session
    found = Start(tuple(parts)).choose(there, sources)

    for partition in there.live.partitions:
        single = (part.choose(there, sources).get(partition) for part in parts)
        assert found.get(partition) == next((each for each in single if each is not None), None)


@given(asked(), answers, st.lists(st.tuples(st.just(0), offsets), min_size=1, max_size=3))
def test_more_partitions_change_no_other_s_choice(
    session: tuple[Observation, FakeSources], parts: list[StartSelector], more: list[tuple[int, int]]
) -> None:
    there, sources = session
    [topic] = there.live.topics
    grown = Observation(**{**vars(there), "live": live(*((each.begin, each.end) for each in topic.partitions), *more)})
    before, after = (Start(tuple(parts)).choose(each, sources) for each in (there, grown))

    for partition in there.live.partitions:
        assert after.get(partition) == before.get(partition)


@given(asked(), st.sampled_from([Committed(), Shift(-3), Shift(3), AsOf(5), FromSnapshot("s-1"), AtTimestamp(5)]))
def test_a_selector_of_the_past_reads_new_partitions_from_0(
    session: tuple[Observation, FakeSources], part: StartSelector
) -> None:
    """Law 3, also where a fallback would otherwise apply."""
    there, sources = session
    [topic] = there.live.topics
    count = max(len(topic.partitions), 4)
    ranges = [(each.begin, each.end) for each in topic.partitions] + [(0, 30)] * (count + 1 - len(topic.partitions))
    grown = Observation(**{**vars(there), "live": live(*ranges)})

    answer = part.choose(grown, sources)
    if isinstance(part, AtTimestamp) and not sources.position:
        return  # at a first start nothing is new

    new = TopicPartition(TOPIC, count)
    assert (answer[new].offset if answer else 0) == 0
    assert Start((part, Latest())).choose(grown, sources)[new].offset == (0 if answer else 30)


@pytest.mark.parametrize(
    ("why", "position", "missing"),
    [
        ("nothing named: all are new", at(), ()),
        ("named from 0 up", at(1, 1), ()),
        ("a hole", at(1, None, 1), (1,)),
        ("only the last is named", at(None, None, 1), (0, 1)),
    ],
)
def test_a_hole_is_not_a_new_partition(why: str, position: Position, missing: tuple[int, ...]) -> None:
    expected = [TopicPartition(TOPIC, number) for number in missing]
    assert list(missing_partitions(position, TOPIC)) == expected, why
    assert first_missing(position) == expected[:1], why
