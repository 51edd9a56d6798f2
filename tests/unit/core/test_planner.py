"""The plan, as a table: one state per row, the reason for it, and the expected plan."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from airflow_provider_offsets.core.epoch import Cut, Ended, EndedHow, RecordedMove
from airflow_provider_offsets.core.live import LivePartition, LiveTopic, LiveTopics, TopicIdentity, TopicSettings
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition
from airflow_provider_offsets.core.problem import ProblemKind
from airflow_provider_offsets.core.restart.model import (
    Preconditions,
    RestartForm,
    RestartPlan,
    RestartPolicy,
    StartReason,
)
from airflow_provider_offsets.core.restart.planner import plan_restart, with_new_partitions, with_runway
from airflow_provider_offsets.core.runway import Runway
from airflow_provider_offsets.core.snapshot import UNSTARTED, Observation
from airflow_provider_offsets.errors import StateChanged
from tests.unit.core.observations import TOPIC, at, checkpoint, epoch, live, processed, running, seen, untracked

RESUME, REPOSITION, FRESH, WRITE = RestartForm
ENDED = Ended(EndedHow.STOPPED, 1)
FIRST, STORED, NEW, CHOSEN, RETENTION = (
    StartReason.FIRST_START,
    StartReason.STORED,
    StartReason.NEW_PARTITION,
    StartReason.CHOSEN,
    StartReason.RETENTION,
)
LOSS, SKIP, PAST_END = ProblemKind.LOSS, ProblemKind.SKIP, ProblemKind.OFFSET_PAST_END
EPOCH_BACK = ProblemKind.LEADER_EPOCH_BACK
CUT = Cut(5, "query-1", 1, "", (OffsetRange(TOPIC, 0, 40, 50), OffsetRange(TOPIC, 1, 60, 70)))
FIRST_OF_TWO = {TopicPartition(TOPIC, 0): 5}


@dataclass(frozen=True)
class Case:
    """One state, and its plan."""

    why: str
    seen: Observation
    start: Position
    form: RestartForm
    wanted: Position | None = None
    """None: the selector ``committed``."""
    reasons: tuple[StartReason, ...] | None = None
    replay: int = 0
    skipped: int = 0
    lost: int = 0
    unreplayable: int = 0
    problems: tuple[ProblemKind, ...] = ()
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    known_leader_epochs: dict[TopicPartition, int] = field(default_factory=dict)
    gone: Position = field(default_factory=Position)
    replay_at_most: int = 0
    last_batch_id: int | None = None

    @property
    def plan(self) -> RestartPlan:
        wanted = self.seen.stored or Position() if self.wanted is None else self.wanted
        return plan_restart(wanted, self.seen, self.policy, known_leader_epochs=self.known_leader_epochs)


TWO = live((0, 100), (0, 100))
_FIRST = epoch(at(40, 60))
ADOPTED = replace(_FIRST, claim=replace(_FIRST.claim, last_planned_batch_id=7))
"""The first launch of a job whose checkpoint had batch 7. A sink may have that batch under its id."""
HEAD_DELETED = live((30, 100), (0, 100))
TWO_TOPICS = LiveTopics(
    "cluster-1", (*TWO.topics, LiveTopic("cancelled", "id-2", (LivePartition(5, 9), LivePartition(0, 2))))
)

CASES = [
    # The three cases of the slide deck.
    Case(
        "first start: from the first offset there is, nothing stored and nothing to lose",
        seen(TWO),
        at(0, 0),
        FRESH,
        reasons=(FIRST, FIRST),
        last_batch_id=UNSTARTED,
    ),
    Case(
        "no change in partitions: continue at its position",
        running(TWO, at(40, 60)),
        at(40, 60),
        RESUME,
        reasons=(STORED, STORED),
        last_batch_id=4,
    ),
    Case(
        "more partitions: the new ones are read from 0, whatever was written before anybody looked",
        running(live((0, 100), (0, 100), (0, 7), (0, 0)), at(40, 60)),
        at(40, 60, 0, 0),
        RESUME,
        reasons=(STORED, STORED, NEW, NEW),
    ),
    # First starts.
    Case(
        "first start on a topic whose head is gone: what nobody was to read is not lost",
        seen(HEAD_DELETED),
        at(30, 0),
        FRESH,
        reasons=(FIRST, FIRST),
    ),
    Case(
        "first start at chosen offsets: nothing is skipped where nothing was stored",
        seen(TWO),
        at(10, 20),
        FRESH,
        wanted=at(10, 20),
        reasons=(CHOSEN, CHOSEN),
    ),
    Case(
        "first start at offsets that retention has deleted: what was wanted and is gone is counted and refused",
        seen(HEAD_DELETED),
        at(30, 20),
        FRESH,
        wanted=at(10, 20),
        reasons=(RETENTION, CHOSEN),
        unreplayable=20,
        problems=(LOSS,),
    ),
    Case(
        "Cloudera rows alone, without batch ids or checkpoint: continue from them, with a new checkpoint",
        seen(TWO, processed=processed(at(40, 60), batch_id=None, epoch=None)),
        at(40, 60),
        FRESH,
        reasons=(STORED, STORED),
        last_batch_id=UNSTARTED,
    ),
    Case(
        "a job that was never managed: its position is in its checkpoint",
        seen(TWO, checkpoint=checkpoint(at(40, 60))),
        at(40, 60),
        RESUME,
    ),
    Case(
        "the pipeline reads one topic more: that one is a first start, and what retention deleted of it is no loss",
        running(TWO_TOPICS, at(40, 60)),
        at(40, 60).updated(at(5, 0, topic="cancelled")),
        REPOSITION,
        reasons=(FIRST, FIRST, STORED, STORED),
    ),
    # Starts other than the position.
    Case(
        "reposition back: replay is allowed, and counted",
        running(TWO, at(40, 60)),
        at(10, 60),
        REPOSITION,
        wanted=at(10, 60),
        reasons=(CHOSEN, STORED),
        replay=30,
    ),
    Case(
        "reposition forward: skipping is refused",
        running(TWO, at(40, 60)),
        at(50, 63),
        REPOSITION,
        wanted=at(50, 63),
        skipped=13,
        problems=(SKIP,),
    ),
    Case(
        "skipping one more than is accepted is refused",
        running(TWO, at(40, 60)),
        at(50, 63),
        REPOSITION,
        wanted=at(50, 63),
        skipped=13,
        policy=RestartPolicy(accept_skipped={TOPIC: 12}),
        problems=(SKIP,),
    ),
    Case(
        "skipping as many as are accepted goes through",
        running(TWO, at(40, 60)),
        at(50, 63),
        REPOSITION,
        wanted=at(50, 63),
        skipped=13,
        policy=RestartPolicy(accept_skipped={TOPIC: 13}),
    ),
    Case(
        "skipping fewer than are accepted goes through: the count is the greatest",
        running(TWO, at(40, 60)),
        at(50, 63),
        REPOSITION,
        wanted=at(50, 63),
        skipped=13,
        policy=RestartPolicy(accept_skipped={TOPIC: 1000}),
    ),
    Case(
        "replay in one partition does not pay for a skip in another",
        running(TWO, at(40, 60)),
        at(30, 70),
        REPOSITION,
        wanted=at(30, 70),
        replay=10,
        skipped=10,
        problems=(SKIP,),
    ),
    Case(
        "accepting a loss does not accept a skip",
        running(TWO, at(40, 60)),
        at(41, 60),
        REPOSITION,
        wanted=at(41, 60),
        skipped=1,
        policy=RestartPolicy(accept_lost={TOPIC: 1}),
        problems=(SKIP,),
    ),
    # Retention.
    Case(
        "retention ate what was not read yet: loss is counted and refused",
        running(HEAD_DELETED, at(20, 60)),
        at(30, 60),
        REPOSITION,
        lost=10,
        reasons=(RETENTION, STORED),
        problems=(LOSS,),
    ),
    Case(
        "loss that is accepted by name and exact count goes through, and is still counted",
        running(HEAD_DELETED, at(20, 60)),
        at(30, 60),
        REPOSITION,
        lost=10,
        policy=RestartPolicy(accept_lost={TOPIC: 10}),
    ),
    Case(
        "loss that is accepted of another topic is refused",
        running(HEAD_DELETED, at(20, 60)),
        at(30, 60),
        REPOSITION,
        lost=10,
        policy=RestartPolicy(accept_lost={"other": 10}),
        problems=(LOSS,),
    ),
    Case(
        "one more lost than was accepted, as when retention went on since, is refused",
        running(HEAD_DELETED, at(20, 60)),
        at(30, 60),
        REPOSITION,
        lost=10,
        policy=RestartPolicy(accept_lost={TOPIC: 9}),
        problems=(LOSS,),
    ),
    Case(
        "retention has deleted everything before its position: nothing is lost",
        running(HEAD_DELETED, at(30, 60)),
        at(30, 60),
        RESUME,
    ),
    Case(
        "a choice beyond what retention ate: part is lost and part is skipped",
        running(HEAD_DELETED, at(20, 60)),
        at(45, 60),
        REPOSITION,
        wanted=at(45, 60),
        lost=10,
        skipped=15,
        problems=(LOSS, SKIP),
    ),
    Case(
        "a rewind further than retention left: what is there is replayed, the rest is counted and refused",
        running(HEAD_DELETED, at(40, 60)),
        at(30, 60),
        REPOSITION,
        wanted=at(10, 60),
        reasons=(RETENTION, STORED),
        replay=10,
        unreplayable=20,
        problems=(LOSS,),
    ),
    Case(
        "a new partition whose head retention ate: its records were never read, so they are lost",
        running(live((0, 100), (0, 100), (3, 9)), at(40, 60)),
        at(40, 60, 3),
        REPOSITION,
        reasons=(STORED, STORED, RETENTION),
        lost=3,
        problems=(LOSS,),
    ),
    Case(
        "'earliest' on a new partition whose head retention ate is loss as well",
        running(live((0, 100), (0, 100), (3, 9)), at(0, 0), epoch=epoch(at(0, 0))),
        at(0, 0, 3),
        REPOSITION,
        wanted=at(0, 0, 3),
        lost=3,
        problems=(LOSS,),
    ),
    # Contradictions.
    Case(
        "the stored offset lies past the end: the log was truncated, or it is of another topic",
        running(TWO, at(101, 60)),
        at(101, 60),
        RESUME,
        problems=(PAST_END,),
    ),
    Case(
        "the stored offset lies past the end, and a start before it is chosen: that is the way out",
        running(TWO, at(101, 60)),
        at(90, 60),
        REPOSITION,
        wanted=at(90, 60),
        replay=11,
    ),
    Case(
        "the stored offset lies past the end, and the selector does not name the partition: it starts at 0",
        running(TWO, at(60, 101)),
        at(60, 0),
        REPOSITION,
        wanted=at(60),
        reasons=(STORED, NEW),
        replay=101,
    ),
    Case(
        "the chosen offset lies past the end",
        running(TWO, at(40, 60)),
        at(40, 101),
        REPOSITION,
        wanted=at(40, 101),
        skipped=41,
        policy=RestartPolicy(accept_skipped={TOPIC: 41}),
        problems=(PAST_END,),
    ),
    Case(
        "the topic was deleted and recreated: offsets of the old one mean nothing",
        running(live((0, 100), (0, 100), topic_id="id-9"), at(40, 60)),
        at(40, 60),
        RESUME,
        problems=(ProblemKind.TOPIC_RECREATED,),
    ),
    Case(
        "the connection leads to another cluster: said once, and not as a recreated topic besides",
        running(live((0, 100), (0, 100), cluster_id="cluster-9", topic_id="id-9"), at(40, 60)),
        at(40, 60),
        RESUME,
        problems=(ProblemKind.WRONG_CLUSTER,),
    ),
    Case(
        "a partition is missing from the stored position and one after it is not: a hole, not a new partition",
        running(live((0, 100), (0, 100), (0, 100)), at(40, None, 60), epoch=epoch(Position())),
        at(40, 0, 60),
        RESUME,
        problems=(ProblemKind.PARTITION_MISSING,),
    ),
    Case(
        "partitions are stored that the topic does not have",
        running(live((0, 100)), at(40, 60)),
        at(40),
        REPOSITION,
        gone=Position({TopicPartition(TOPIC, 1): 60}),
        problems=(ProblemKind.PARTITIONS_GONE,),
    ),
    # Truncated logs, as far as they are detectable.
    Case(
        "the leader epoch went back: the log was brought back from before, and other records may stand there now",
        running(live((0, 100), (0, 100), leader_epoch=4), at(40, 60)),
        at(40, 60),
        RESUME,
        known_leader_epochs=FIRST_OF_TWO,
        problems=(EPOCH_BACK,),
    ),
    Case(
        "the leader epoch went back, and somebody starts further back: what may have been replaced is read again",
        running(live((0, 100), (0, 100), leader_epoch=4), at(40, 60)),
        at(10, 60),
        REPOSITION,
        wanted=at(10, 60),
        known_leader_epochs=FIRST_OF_TWO,
        replay=30,
    ),
    Case(
        "the leader epoch is the one that is known: nothing is claimed, and nothing is called in order",
        running(live((0, 100), (0, 100), leader_epoch=5), at(40, 60)),
        at(40, 60),
        RESUME,
        known_leader_epochs=FIRST_OF_TWO,
    ),
    Case(
        "leaders were elected since: an epoch that grew says nothing",
        running(live((0, 100), (0, 100), leader_epoch=9), at(40, 60)),
        at(40, 60),
        RESUME,
        known_leader_epochs=FIRST_OF_TWO,
    ),
    Case(
        "the cluster does not tell its leader epochs: unknown, so not claimed",
        running(TWO, at(40, 60)),
        at(40, 60),
        RESUME,
        known_leader_epochs=FIRST_OF_TWO,
    ),
    Case(
        "a topic that was recreated begins its leader epochs again: said once",
        running(live((0, 100), (0, 100), topic_id="id-9", leader_epoch=0), at(40, 60)),
        at(40, 60),
        RESUME,
        known_leader_epochs=FIRST_OF_TWO,
        problems=(ProblemKind.TOPIC_RECREATED,),
    ),
    Case(
        "another cluster has leader epochs of its own: said once",
        running(live((0, 100), (0, 100), cluster_id="cluster-9", leader_epoch=0), at(40, 60)),
        at(40, 60),
        RESUME,
        known_leader_epochs=FIRST_OF_TWO,
        problems=(ProblemKind.WRONG_CLUSTER,),
    ),
    # Offsets without records.
    Case(
        "empty partitions that stand at their only place: nothing to read, nothing to tell",
        running(live((0, 0), (7, 7)), at(0, 7)),
        at(0, 7),
        RESUME,
        reasons=(STORED, STORED),
    ),
    Case(
        "a partition that retention has emptied behind the stored offset: what was unread is lost",
        running(live((0, 100), (70, 70)), at(40, 60)),
        at(40, 70),
        REPOSITION,
        lost=10,
        reasons=(STORED, RETENTION),
        problems=(LOSS,),
    ),
    Case(
        "a time before the first record: the first offset that is left, and what is read again is counted",
        running(live((30, 100), (0, 100)), at(40, 60)),
        at(30, 0),
        REPOSITION,
        wanted=at(30, 0),
        replay=10 + 60,
    ),
    Case(
        "a time after the last record: the ends, which leaves out what was not read, and is refused",
        running(TWO, at(40, 60)),
        at(100, 100),
        REPOSITION,
        wanted=at(100, 100),
        skipped=60 + 40,
        problems=(SKIP,),
    ),
    Case(
        "a partition was added before the stop and another one during it: the first goes on, the second begins at 0",
        running(live((0, 100), (0, 100), (0, 7), (0, 3)), at(40, 60), epoch=epoch(at(0, 0, 0))),
        at(40, 60, 0, 0),
        RESUME,
        reasons=(STORED, STORED, STORED, NEW),
    ),
    Case(
        "a topic was dropped from the pipeline: nothing is wrong, but its checkpoint still reads it",
        running(TWO, at(40, 60).updated(at(7, topic="dropped"))),
        at(40, 60),
        REPOSITION,
    ),
    Case(
        "the checkpoint is ahead of the history: rows are missing",
        running(TWO, at(40, 60), processed=processed(at(40, 50), batch_id=3)),
        at(40, 50),
        REPOSITION,
        problems=(ProblemKind.STORES_DISAGREE,),
    ),
    Case(
        "the checkpoint is ahead, and a person who saw the output there names its offsets: a way out",
        running(TWO, at(40, 60), processed=processed(at(40, 50), batch_id=3)),
        at(40, 60),
        RESUME,
        wanted=at(40, 60),
        skipped=10,
        policy=RestartPolicy(accept_skipped={"flights": 10}),
    ),
    Case(
        "the checkpoint is ahead, and what it committed is to be read again: the other way out",
        running(TWO, at(40, 60), processed=processed(at(40, 50), batch_id=3)),
        at(39, 49),
        REPOSITION,
        wanted=at(39, 49),
        replay=2,
    ),
    Case(
        "several problems are shown together",
        running(live((30, 100), (0, 50), topic_id="id-9"), at(20, 60)),
        at(30, 60),
        REPOSITION,
        lost=10,
        problems=(ProblemKind.TOPIC_RECREATED, PAST_END, LOSS),
    ),
    # What the checkpoint says.
    Case(
        "a stateful query that continues at its position keeps its state",
        running(TWO, at(40, 60), checkpoint=checkpoint(at(40, 60), stateful=True)),
        at(40, 60),
        RESUME,
    ),
    Case(
        "a stateful query cannot be moved without its state",
        running(TWO, at(40, 60), checkpoint=checkpoint(at(40, 60), stateful=True)),
        at(30, 60),
        REPOSITION,
        wanted=at(30, 60),
        replay=10,
        problems=(ProblemKind.STATEFUL_REPOSITION,),
    ),
    Case(
        "a closed checkpoint: nothing goes on from it, so a seeded one is written",
        running(TWO, at(40, 60), checkpoint=checkpoint(at(40, 60), planned_batch_id=5, closed_by="operation-0")),
        at(40, 60),
        REPOSITION,
        last_batch_id=4,
    ),
    Case(
        "the checkpoint is gone and the history has batch ids: seeded, so that they go on",
        running(TWO, at(40, 60), checkpoint=None),
        at(40, 60),
        REPOSITION,
        last_batch_id=4,
    ),
    Case(
        "the checkpoint of an adopted job is gone before its first recorded batch: the launch knows its batch ids",
        seen(TWO, epoch=ADOPTED, ended=ENDED),
        at(40, 60),
        REPOSITION,
        wanted=at(40, 60),
        last_batch_id=6,
    ),
    Case(
        "the same where only batch 0 was planned: it may be in the sink, so the job does not begin with its id",
        seen(TWO, epoch=replace(ADOPTED, claim=replace(ADOPTED.claim, last_planned_batch_id=0)), ended=ENDED),
        at(40, 60),
        REPOSITION,
        wanted=at(40, 60),
        last_batch_id=UNSTARTED,
    ),
    Case(
        "batch 0 was started and its checkpoint is gone: the job does not begin with its id either",
        seen(TWO, epoch=_FIRST, ended=ENDED, cut=replace(CUT, batch_id=0)),
        at(40, 60),
        REPOSITION,
        wanted=at(40, 60),
        replay_at_most=20,
        last_batch_id=UNSTARTED,
    ),
    Case(
        "no batch was ever planned: the job begins with batch 0",
        seen(TWO, epoch=_FIRST, ended=ENDED),
        at(40, 60),
        RestartForm.FRESH,
        wanted=at(40, 60),
        last_batch_id=UNSTARTED,
    ),
    Case(
        "a planned batch that the history has: Spark runs it and the runtime skips it, so it is no replay",
        running(
            TWO,
            at(40, 60),
            checkpoint=checkpoint(at(20, 30), batch_id=3, planned_batch_id=4, planned=at(40, 60)),
        ),
        at(40, 60),
        RESUME,
        last_batch_id=4,
    ),
    Case(
        "a planned batch that never began: run by the new epoch, and nothing is replayed",
        running(TWO, at(40, 60), checkpoint=checkpoint(at(40, 60), planned_batch_id=5, planned=at(50, 70))),
        at(40, 60),
        RESUME,
        last_batch_id=4,
    ),
    Case(
        "a planned batch that was cut off: run again, and its output may be there in part",
        running(
            TWO,
            at(40, 60),
            checkpoint=checkpoint(at(40, 60), planned_batch_id=5, planned=at(50, 70)),
            cut=CUT,
        ),
        at(40, 60),
        RESUME,
        replay_at_most=20,
        last_batch_id=4,
    ),
    Case(
        "a batch that was cut off, and a start elsewhere: the seeded checkpoint passes over its id",
        running(
            TWO,
            at(40, 60),
            checkpoint=checkpoint(at(40, 60), planned_batch_id=5, planned=at(50, 70)),
            cut=CUT,
        ),
        at(30, 60),
        REPOSITION,
        wanted=at(30, 60),
        replay=10,
        replay_at_most=20,
        last_batch_id=4,
    ),
    Case(
        "an epoch that was rewound and stopped before its first batch stands where it was rewound to",
        running(
            TWO,
            at(40, 60),
            epoch=epoch(at(10, 20), number=2, checkpoint="/checkpoints/seeded"),
            checkpoint=checkpoint(at(10, 20)),
        ),
        at(10, 20),
        RESUME,
    ),
    Case(
        "an epoch whose first batches named fewer partitions stands at its start in the others",
        running(TWO, at(40), epoch=epoch(at(0, 20)), checkpoint=checkpoint(at(40, 20))),
        at(40, 20),
        RESUME,
    ),
    # Untracked jobs: their own store has their position.
    Case(
        "untracked: its checkpoint stands where it starts, whatever a history says",
        untracked(TWO, at(40, 60), checkpoint=checkpoint(at(40, 60)), processed=processed(at(10, 10))),
        at(40, 60),
        RESUME,
        last_batch_id=4,
    ),
    Case(
        "untracked, stopped: the batch that Spark has planned is run again, at most",
        untracked(
            TWO, at(40, 60), checkpoint=checkpoint(at(40, 60), planned_batch_id=5, planned=at(50, 70)), ended=ENDED
        ),
        at(40, 60),
        RESUME,
        replay_at_most=20,
        last_batch_id=4,
    ),
    Case(
        "untracked, running: nobody can say how far its batch goes, so all that it could read counts",
        untracked(TWO, at(40, 60), checkpoint=checkpoint(at(40, 60)), epoch=epoch(at(0, 0))),
        at(40, 60),
        RESUME,
        replay_at_most=100,
    ),
    Case(
        "untracked, never ran: a checkpoint is seeded, so its own startingOffsets decide nothing",
        untracked(HEAD_DELETED, None),
        at(30, 0),
        FRESH,
        last_batch_id=UNSTARTED,
    ),
    Case(
        "untracked, kept elsewhere: the first start is written too",
        untracked(TWO, None, store="zookeeper_old"),
        at(0, 0),
        WRITE,
    ),
    Case(
        "untracked, kept elsewhere: a new partition is written at 0; at most all that came since is read again",
        untracked(TWO, at(40), store="zookeeper_old"),
        at(40, 0),
        WRITE,
        reasons=(STORED, NEW),
        replay_at_most=60 + 100,
    ),
    Case(
        "untracked: it was moved and not started since, so it stands where it stood",
        untracked(TWO, at(10, 30), moved=RecordedMove("earlier", "f", at(40, 60), at(40, 60), at(10, 30)), ended=ENDED),
        at(10, 30),
        RESUME,
        wanted=at(10, 30),
        replay=60,
    ),
    Case(
        "untracked: it has run before, and its store says nothing: this is no first start",
        untracked(TWO, None, store="hbase_old", epoch=epoch(at(0, 0)), ended=ENDED),
        at(0, 0),
        WRITE,
        replay_at_most=200,
        problems=(ProblemKind.POSITION_GONE,),
    ),
    Case(
        "untracked: nothing stored where the store deletes by itself, so nobody can tell whether it ran before",
        untracked(TWO, None, store="kafka_default", expires="a week after its last member left"),
        at(0, 0),
        WRITE,
        problems=(ProblemKind.POSITION_GONE,),
    ),
    Case(
        "untracked: a person who names the start has looked",
        untracked(TWO, None, store="kafka_default", expires="a week after its last member left"),
        at(0, 0),
        WRITE,
        wanted=at(0, 0),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_plan(case: Case) -> None:
    plan = case.plan

    assert tuple(problem.kind for problem in plan.problems) == case.problems
    assert (plan.start, plan.form) == (case.start, case.form), plan.form_reason
    assert (plan.replay, plan.skipped, plan.lost) == (case.replay, case.skipped, case.lost)
    assert plan.unreplayable == case.unreplayable
    assert plan.replay_at_most == case.replay_at_most
    assert plan.gone == case.gone
    assert plan.truncation == ("seen" if set(case.problems) & {PAST_END, EPOCH_BACK} else "unknown")
    if case.reasons is not None:
        assert tuple(row.reason for row in plan.rows) == case.reasons
    if case.last_batch_id is not None:
        assert plan.last_batch_id == case.last_batch_id


@pytest.mark.parametrize(
    ("why", "seen_now", "wanted", "named", "words"),
    [
        (
            "a new store and a new checkpoint: only the named offsets show that the job has run",
            seen(TWO),
            at(40, 60),
            at(40, 60),
            "the start names offsets",
        ),
        ("a partition that begins later is named at its beginning", seen(HEAD_DELETED), at(30, 0), at(30, 0), ""),
        ("a new job reads everything", seen(TWO), at(0, 0), at(0, 0), ""),
        ("a new job reads what is new, by a fallback", seen(TWO), at(100, 100), Position(), ""),
        (
            "the pipeline has started once, and planned no batch",
            seen(TWO, epoch=_FIRST, ended=ENDED),
            at(0, 0),
            Position(),
            "the pipeline has run before",
        ),
        (
            "rows without batch ids are the only record",
            seen(TWO, processed=processed(at(40, 60), batch_id=None, epoch=None)),
            at(40, 60),
            Position(),
            "the pipeline has run before",
        ),
        ("batch ids continue", running(TWO, at(40, 60)), at(10, 20), at(10, 20), ""),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_a_plan_warns_if_batch_ids_begin_again(
    why: str, seen_now: Observation, wanted: Position, named: Position, words: str
) -> None:
    """A Delta table with a constant application id drops all records of such a start (case A19)."""
    notes = plan_restart(wanted, seen_now, RestartPolicy(accept_skipped={TOPIC: 1_000}), named=[*named]).notes

    warned = [note for note in notes if "batch ids begin again at 0" in note]
    assert len(warned) == bool(words)
    assert all(words in note and "txnAppId" in note and "stream.write_options" in note for note in warned)


@pytest.mark.parametrize(
    ("why", "settings", "read_committed", "bounds", "notes"),
    [
        ("a plain topic: its offsets are its records", TopicSettings(), False, (), []),
        ("compacted: offsets without a record", TopicSettings("compact"), False, (TOPIC,), ["compacted"]),
        ("compacted and deleted: the same", TopicSettings("compact,delete"), False, (TOPIC,), ["compacted"]),
        (
            "read_committed: markers and aborted records have offsets, and the end is the last stable one",
            TopicSettings(),
            True,
            (TOPIC,),
            ["ends are last stable offsets"],
        ),
        ("both", TopicSettings("compact"), True, (TOPIC,), ["compacted", "ends are last stable offsets"]),
        ("settings that this user may not see: unknown, so not claimed", None, False, (), ["DESCRIBE_CONFIGS"]),
    ],
)
def test_what_the_settings_of_a_topic_mean(
    why: str, settings: TopicSettings | None, read_committed: bool, bounds: tuple[str, ...], notes: list[str]
) -> None:
    """The starts are the same: what is counted in offsets is an upper bound of records."""
    bare = plan_restart(at(10, 60), running(TWO, at(40, 60)))

    plan = with_runway(bare, Runway(0, 0, ()), {TOPIC: settings}, read_committed=read_committed)

    assert (plan.start, plan.replay, plan.problems) == (bare.start, 30, ())
    assert plan.upper_bounds == bounds
    assert len(plan.notes) == len(notes)
    assert all(word in note for word, note in zip(notes, plan.notes, strict=True))


def test_every_kind_of_problem_is_in_the_table() -> None:
    # core/restart/comparison.py and core/restart/choice.py find two before a plan exists, operations/planning.py four
    # once it does; and test_runway.py has a table of its own.
    found_elsewhere = {ProblemKind.STORES_CONFLICT, ProblemKind.NO_START}
    found_elsewhere |= {ProblemKind.CHECKPOINT_STAYS, ProblemKind.GROUP_CHANGED, ProblemKind.HISTORY_EXPIRES}
    found_elsewhere |= {ProblemKind.TOPIC_UNLISTED, ProblemKind.NO_RESUME}
    # operations/test_late_writes.py has one that needs records of the pipeline.
    elsewhere = {*found_elsewhere, ProblemKind.WINDOW_TOO_LONG, ProblemKind.LATE_WRITE}
    # operations/test_backfilling.py has one that only a backfill can have.
    elsewhere.add(ProblemKind.SHARED_SCRATCH)
    assert {kind for case in CASES for kind in case.problems} == set(ProblemKind) - elsewhere


def test_the_way_out_of_a_loss_is_in_its_message() -> None:
    [problem] = plan_restart(at(20, 60), running(HEAD_DELETED, at(20, 60))).problems

    assert str(problem) == (
        "loss: 10 offsets of 'flights' would be lost (flights[0] 10), and 0 are accepted."
        " To accept them, set accept_lost=flights:10"
    )


def test_only_what_does_not_simply_go_on_is_announced() -> None:
    plan = plan_restart(at(10, 60), running(TWO, at(40, 60)))

    assert [(each.partition, each.start, each.replay) for each in plan.announced] == [(0, 10, 30)]


def test_the_fingerprint_leaves_out_what_moves_on_by_itself() -> None:
    before = plan_restart(at(40, 60), running(TWO, at(40, 60)))
    after = plan_restart(at(40, 60), running(live((0, 900), (0, 901)), at(40, 60)))

    assert after.fingerprint == before.fingerprint


@pytest.mark.parametrize(
    "other",
    [
        plan_restart(at(40, 59), running(TWO, at(40, 60))),
        plan_restart(at(40, 60), running(TWO, at(40, 60), epoch=epoch(at(0, 0), number=2))),
        plan_restart(at(40, 60), running(live((0, 100), (0, 100), topic_id="id-2"), at(40, 60))),
        plan_restart(at(40, 60), running(TWO, at(40, 60), checkpoint=checkpoint(at(40, 60), batch_id=5))),
    ],
    ids=["another start", "a newer epoch", "another topic", "one batch more"],
)
def test_the_fingerprint_changes_with_the_preconditions(other: RestartPlan) -> None:
    assert other.fingerprint != plan_restart(at(40, 60), running(TWO, at(40, 60))).fingerprint


def test_preconditions_name_both_values_of_what_changed() -> None:
    then = Preconditions.of(running(TWO, at(40, 60)))
    now = Preconditions.of(running(TWO, at(40, 60), epoch=epoch(at(40, 60), number=2)))

    assert then.changes(then) == ()
    assert "epoch was 1 and is 2" in then.changes(now)
    assert then.identity == TopicIdentity("cluster-1", {TOPIC: "id-1"})


def test_reconcile_adds_what_appeared_since_at_0() -> None:
    assert with_new_partitions(at(40, 60), live((30, 100), (0, 100), (0, 8))) == at(40, 60, 0)


def test_reconcile_refuses_a_new_partition_whose_head_is_gone() -> None:
    with pytest.raises(StateChanged, match=r"flights\[2\] begins at 3"):
        with_new_partitions(at(40, 60), live((0, 100), (0, 100), (3, 8)))


def test_a_truncated_log_is_refused_with_a_start_that_works() -> None:
    """The refusal quotes the ends of all partitions that were cut off, so that one more plan is enough."""
    cut = running(live((0, 17), (0, 30)), at(23, 60))

    refused = [each for each in plan_restart(at(23, 60), cut).problems if each.kind is PAST_END]

    assert len(refused) == 2
    assert all("""start from 'offsets:{"flights":{"0":17,"1":30}} | committed'""" in each.message for each in refused)
    assert plan_restart(at(17, 30), cut).problems == ()
