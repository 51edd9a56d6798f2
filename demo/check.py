"""The independent check, which uses only the topic, the job's evidence, and what the plans announced.

The check shares no code with the package that it judges, and opens none of its stores. It reads every record of the
topic with a plain consumer, and compares every line of evidence with the topic. For each repeated read of a record,
there must be an announced replay of that epoch or an earlier one. So a replay that did not happen cannot hide a
duplicate.
"""

import itertools
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from tabulate import tabulate

from demo.airflow_api import Airflow

Place = tuple[str, int]
"""Topic and partition."""
Readings = Mapping[Place, Mapping[int, Sequence[int]]]
"""For each offset the epochs that read the record according to the evidence, ascending, with one entry per read."""


class CheckImpossible(Exception):
    """The check could not read what it needs, so nothing is proven."""


@dataclass(frozen=True)
class Announcement:
    """A replay of ``[start, start + count)`` that a plan announced, for the job of ``epoch``."""

    place: Place
    start: int
    count: int
    epoch: int

    def covers(self, offset: int) -> bool:
        """Return whether the replay includes the offset."""
        return self.start <= offset < self.start + self.count


@dataclass(frozen=True)
class CutOff:
    """The range ``[start, end)`` of a batch that ``epoch`` started and never finished, as named by the audit.

    That epoch may have read each offset of the range, and a later epoch has read it again.
    """

    place: Place
    start: int
    end: int
    epoch: int

    def excuses(self, offset: int, epochs: Sequence[int]) -> bool:
        """Return whether this batch explains one additional read of the offset."""
        return self.start <= offset < self.end and self.epoch in epochs and epochs[-1] > self.epoch


@dataclass
class Finding:
    """The result for the records of one partition, or of all partitions together."""

    records: int = 0
    read_once: int = 0
    read_again: int = 0
    announced: int = 0
    """Offsets of announced replays, counted once per announcement."""
    lost: int = 0
    duplicated: int = 0
    unexplained: int = 0
    """Evidence of offsets that the topic does not have, and announced replays that did not happen."""
    cut_off: int = 0
    """Records read again because a batch was interrupted, as named by the audit."""
    replayed: Counter[int] = field(default_factory=Counter)
    """Announced replays that happened, by the epoch that announced them."""

    def __add__(self, other: "Finding") -> "Finding":
        return Finding(**{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Maintenance:
    """One run of the DAG, as recorded by Airflow and by the job's output."""

    name: str
    epoch: int
    announced: tuple[Announcement, ...]
    stopped_at: str
    """When the stop was verified."""
    last_before_ms: int | None
    """When the last batch before the stop was written; None for a first start."""
    first_after_ms: int | None

    @property
    def downtime_s(self) -> float:
        """Seconds from the end of the last batch before the stop to the end of the first batch after it."""
        if self.last_before_ms is None or self.first_after_ms is None:
            raise CheckImpossible(f"{self.name}: no batch before the stop, or none after it")
        return (self.first_after_ms - self.last_before_ms) / 1000


def judge(
    there: Mapping[Place, Set[int]],
    read: Readings,
    announced: Iterable[Announcement],
    cut_off: Iterable[CutOff] = (),
) -> dict[Place, Finding]:
    """Return the findings by partition.

    :param there: offsets that the topic has.
    :param read: the job's evidence.
    :param announced: replays that the plans announced.
    :param cut_off: interrupted batches that the audit names.
    """
    announced, cut_off = tuple(announced), tuple(cut_off)
    places = sorted({*there, *read, *(each.place for each in announced)})
    return {
        place: _judge_partition(
            there.get(place, frozenset()),
            read.get(place, {}),
            [each for each in announced if each.place == place],
            [each for each in cut_off if each.place == place],
        )
        for place in places
    }


def _judge_partition(
    there: Set[int],
    read: Mapping[int, Sequence[int]],
    announced: Sequence[Announcement],
    cut_off: Sequence[CutOff],
) -> Finding:
    found = Finding(records=len(there), announced=sum(each.count for each in announced))
    promised = (range(each.start, each.start + each.count) for each in announced)
    for offset in {*there, *read, *itertools.chain.from_iterable(promised)}:
        epochs = sorted(read.get(offset, ()))
        owed = sorted(each.epoch for each in announced if each.covers(offset))
        if offset not in there:
            found.unexplained += len(epochs) + len(owed)
            continue
        kept = _kept(epochs[1:], owed)
        found.lost += not epochs
        found.read_once += len(epochs) == 1
        found.read_again += len(epochs) > 1
        beyond = max(0, len(epochs) - 1) - len(kept)
        excused = min(beyond, sum(each.excuses(offset, epochs) for each in cut_off))
        found.cut_off += excused
        found.duplicated += beyond - excused
        found.unexplained += len(owed) - len(kept)
        found.replayed.update(kept)
    return found


def _kept(again: Sequence[int], owed: Sequence[int]) -> list[int]:
    """Return the epochs of the announcements that happened: a repeated read counts for its own or an earlier epoch."""
    kept: list[int] = []
    for epoch in again:
        if len(kept) < len(owed) and epoch >= owed[len(kept)]:
            kept.append(owed[len(kept)])
    return kept


def total(findings: Iterable[Finding]) -> Finding:
    """Return the sum of all findings."""
    return sum(findings, Finding())


def verdict(found: Finding, downtime_s: float, sink: str) -> str:
    """Return the last line of the demo's output.

    :param downtime_s: of the first maintenance.
    :param sink: what the sink proves, as the command line says it.
    """
    return (
        f"verdict: lost={found.lost} duplicated={found.duplicated} unexplained={found.unexplained}"
        f" replayed={found.replayed.total()} records={found.records} downtime_s={downtime_s:.1f} sink={sink}"
    )


def problems(
    found: Mapping[Place, Finding], alerts: Mapping[Place, Set[int]], there: Mapping[Place, Set[int]]
) -> list[str]:
    """Return the problems of the job, one line each; empty if no record was lost or duplicated.

    :param found: the findings.
    :param alerts: offsets with a row in the alerts table.
    :param there: offsets that the topic has.
    """
    said = []
    whole = total(found.values())
    for name in ("lost", "duplicated", "unexplained"):
        if count := getattr(whole, name):
            said.append(f"{count:,} {name}")
    if not whole.replayed:
        said.append("no announced replay happened, so nothing shows that replays are told from duplicates")
    wrong = sum(len(alerts.get(place, frozenset()) ^ there.get(place, frozenset())) for place in {*alerts, *there})
    if wrong:
        said.append(f"{wrong:,} records without a row in the alerts table, or rows without a record")
    return said


def read_topic(bootstrap_servers: str, topic: str, *, limit_s: float = 600) -> dict[Place, set[int]]:
    """Return every offset of the topic, by partition.

    :param limit_s: seconds after which the read fails.
    :raises CheckImpossible: the topic could not be read to its end.
    """
    with _reading(bootstrap_servers, topic) as (consumer, bounds):
        found: dict[Place, set[int]] = {(topic, partition): set() for partition in bounds}
        for message in _read_until(consumer, topic, bounds, deadline=time.monotonic() + limit_s):
            found[topic, message.partition()].add(message.offset())
    return found


def read_values(bootstrap_servers: str, topic: str, *, limit_s: float = 600) -> Iterator[tuple[int, int, bytes]]:
    """Yield partition, offset and value of every record of the topic.

    :param limit_s: seconds after which the read fails.
    :raises CheckImpossible: the topic could not be read to its end.
    """
    with _reading(bootstrap_servers, topic) as (consumer, bounds):
        for message in _read_until(consumer, topic, bounds, deadline=time.monotonic() + limit_s):
            yield message.partition(), message.offset(), message.value()


@contextmanager
def _reading(bootstrap_servers: str, topic: str) -> Iterator[tuple[Consumer, dict[int, tuple[int, int]]]]:
    """Yield a consumer at the beginning of each partition, and the first and end offset of each partition.

    The consumer joins no group and commits nothing.
    """
    with closing(
        Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "demo-check",  # librdkafka requires a group id; assign() does not join the group
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
            }
        )
    ) as consumer:
        partitions = sorted(consumer.list_topics(topic, timeout=120).topics[topic].partitions)
        bounds = {each: consumer.get_watermark_offsets(TopicPartition(topic, each), timeout=120) for each in partitions}
        consumer.assign([TopicPartition(topic, each, begin) for each, (begin, _) in bounds.items()])
        yield consumer, bounds


def _read_until(
    consumer: Consumer, topic: str, bounds: Mapping[int, tuple[int, int]], *, deadline: float
) -> Iterator[Message]:
    open_ends = {partition: end for partition, (begin, end) in bounds.items() if end > begin}
    while open_ends:
        if time.monotonic() > deadline:
            raise CheckImpossible(f"partitions {sorted(open_ends)} of {topic} could not be read to their ends")
        for message in consumer.consume(10_000, timeout=1.0):
            if (error := message.error()) is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise CheckImpossible(f"reading {topic}: {error}")
                continue
            yield message
            partition, offset = message.partition(), message.offset()
            if offset + 1 >= open_ends.get(partition, offset + 2):
                del open_ends[partition]


def read_evidence(output: Path) -> dict[Place, dict[int, list[int]]]:
    """Return the epochs that read each offset, from the job's evidence."""
    query = "SELECT topic, partition, offset, epoch FROM evidence ORDER BY topic, partition, offset, epoch"
    found: dict[Place, dict[int, list[int]]] = {}
    with closing(_open(output)) as database:
        for topic, partition, offset, epoch in database.execute(query):
            found.setdefault((topic, partition), {}).setdefault(offset, []).append(epoch)
    return found


def read_alerts(output: Path) -> dict[Place, set[int]]:
    """Return the keys of the alerts table."""
    found: dict[Place, set[int]] = {}
    with closing(_open(output)) as database:
        for topic, partition, offset in database.execute("SELECT topic, partition, offset FROM alerts"):
            found.setdefault((topic, partition), set()).add(offset)
    return found


def read_maintenances(airflow: Airflow, runs: Mapping[str, str], output: Path) -> list[Maintenance]:
    """Return the maintenances, from Airflow's XComs and the batches in the output.

    :param runs: run ids by display name.
    :param output: the job's SQLite file.
    """
    return [_read_maintenance(airflow, name, run_id, output) for name, run_id in runs.items()]


def _read_maintenance(airflow: Airflow, name: str, run_id: str, output: Path) -> Maintenance:
    plan, submitted, stopped = (airflow.result(run_id, task) for task in ("replan", "submit", "stop"))
    if plan is None or submitted is None or stopped is None:
        raise CheckImpossible(f"run {run_id} has no XCom of replan, submit or stop")
    epoch = int(submitted["epoch"])
    announced = tuple(announcements(plan, epoch))
    with closing(_open(output)) as database:
        (last,) = database.execute("SELECT max(written_at_ms) FROM batches WHERE epoch < ?", [epoch]).fetchone()
        (first,) = database.execute("SELECT min(written_at_ms) FROM batches WHERE epoch = ?", [epoch]).fetchone()
    return Maintenance(name, epoch, announced, _clock(stopped["stopped_since"]), last, first)


def announcements(plan: Mapping[str, Any], epoch: int) -> list[Announcement]:
    """Return what a plan's XCom announces for the job of ``epoch``.

    :raises CheckImpossible: the plan's total differs from the sum over its partitions.
    """
    found = [
        Announcement((each["topic"], each["partition"]), each["start"], each["replay"], epoch)
        for each in plan["announced"]
        if each["replay"]
    ]
    if sum(each.count for each in found) != plan["replay"]:
        raise CheckImpossible(f"the plan of epoch {epoch} announces {plan['replay']} in all, and {found} in detail")
    return found


def table(found: Mapping[Place, Finding], maintenances: Sequence[Maintenance]) -> str:
    """Return two tables for people: the findings by partition, and the maintenances."""
    whole = total(found.values())
    rows = [
        (
            name,
            each.records,
            each.read_once,
            each.read_again,
            each.announced,
            each.lost,
            each.duplicated,
            each.unexplained,
        )
        for name, each in [
            *((f"{topic}-{partition}", each) for (topic, partition), each in found.items()),
            ("all", whole),
        ]
    ]
    headers = ("partition", "records", "read once", "read again", "announced", "lost", "duplicated", "unexplained")
    runs = [
        (
            each.name,
            each.stopped_at,
            _clock_of_ms(each.last_before_ms),
            _clock_of_ms(each.first_after_ms),
            f"{each.downtime_s:.1f}",
            sum(one.count for one in each.announced),
            whole.replayed[each.epoch],
        )
        for each in maintenances
    ]
    run_headers = ("maintenance", "stopped", "last batch", "first batch", "downtime s", "announced", "replayed")
    partitions = tabulate(rows, headers, intfmt=",")
    if not runs:
        return partitions
    return "\n\n".join(
        [
            partitions,
            tabulate(runs, run_headers, intfmt=",", disable_numparse=[4], colalign=("left",) * 4 + ("right",) * 3),
            "Times are UTC. Downtime: from the end of the last batch before the stop to the end of the first batch\n"
            "after it, with the maintenance window in it; the verdict has that of the first maintenance.",
        ]
    )


def _open(output: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{output}?mode=ro", uri=True, timeout=30)


def _clock(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]


def _clock_of_ms(moment_ms: int | None) -> str:
    return "–" if moment_ms is None else _clock(datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat())
