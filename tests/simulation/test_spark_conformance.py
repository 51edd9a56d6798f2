"""The fake Spark on odd checkpoints. ``tests/e2e/test_simulated_spark.py`` compares it with the real one."""

from __future__ import annotations

import pytest

from tests.simulation.odd_checkpoints import END, ODD_CHECKPOINTS, TOPIC, OddCheckpoint, Outcome
from tests.simulation.platform import FileSystem, Record
from tests.simulation.scheduler import Simulation
from tests.simulation.spark import Engine, Frame, Kafka, Offsets, QueryDied, _from_json


class TwoPartitions(Kafka):
    """The topic of the table."""

    def ends(self, topics: list[str]) -> Offsets:
        return {(topic, number): END for topic in topics for number in (0, 1)}

    def begins(self, topics: list[str]) -> Offsets:
        return {(topic, number): 0 for topic in topics for number in (0, 1)}

    def records(self, topic: str, partition: int, start: int, end: int) -> list[Record]:
        return [Record(topic, "id", partition, offset, 0) for offset in range(start, end)]


def outcome_of(odd: OddCheckpoint) -> Outcome:
    """Return what the fake does."""
    sim, found = Simulation(), []
    files = FileSystem(sim)
    folder = files.open("sim://odd")
    for path, text in odd.files.items():
        folder.create(path, text)

    def write(frame: Frame, batch_id: int, query_id: str) -> None:
        records: dict[int, list[int]] = {}
        for record in frame.records:
            records.setdefault(record.partition, []).append(record.offset)
        found.append([batch_id, [[number, min(each), max(each) + 1] for number, each in sorted(records.items())]])

    engine = Engine(sim, TwoPartitions(), folder, [TOPIC], write, _from_json(odd.start))
    try:
        while engine.trigger():
            pass
    except QueryDied:
        found.append("died")
    return found


@pytest.mark.parametrize("odd", [pytest.param(each, id=each.what) for each in ODD_CHECKPOINTS])
def test_the_fake_spark_on_an_odd_checkpoint(odd: OddCheckpoint) -> None:
    assert outcome_of(odd) == odd.outcome
