"""The fakes of the platform: a file system for checkpoints, the log of Kafka's records, a sink, a process table."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from airflow_provider_offsets.core.sink.key import BatchKey
from airflow_provider_offsets.core.sink.ledger import Written
from tests.simulation.scheduler import Host, Side, Simulation


class Record(NamedTuple):
    """One record of Kafka, with an identity that no other record has."""

    topic: str
    topic_id: str
    partition: int
    offset: int
    era: int
    """Increases with each truncation of the log, after which the same offset may hold another record."""


class Write(NamedTuple):
    """One record that reached a sink."""

    record: Record
    batch_id: int
    query_id: str
    epoch: int
    run: str
    """Run id of a replay; empty for the live job."""
    step: int


class JvmGone(Exception):
    """What Py4J raises once the Java process has exited."""


@dataclass
class FileSystem:
    """Files of all hosts, by folder. Create-if-absent and moving a folder are atomic."""

    sim: Simulation
    in_the_way: Callable[[str], Exception] = FileExistsError
    """Error of a move to an existing location."""
    folders: dict[str, dict[str, tuple[str, int]]] = field(default_factory=dict)
    has_jvm: Callable[[], bool] = lambda: True
    """Whether the calling process still has the Java process through which it reaches files."""

    def open(self, location: str) -> Folder:
        """Return the checkpoint folder at ``location``."""
        return Folder(self, location)

    def remove(self, path: str) -> None:
        """Remove one file, as Spark does when it purges its logs."""
        folder, _, name = path.rpartition("/")
        self.folders.get(folder, {}).pop(name, None)

    def remove_tree(self, root: str) -> None:
        """Remove everything below ``root``, as a person with ``rm -r`` does."""
        for name in [each for each in self.folders if each == root or each.startswith(f"{root}/")]:
            del self.folders[name]

    def furthest_planned(self, topic: str, partition: int) -> int:
        """Return the greatest offset of a partition that any offset log names; 0 if none does."""
        logs = [files for name, files in self.folders.items() if name.endswith("/offsets")]
        lines = [text.splitlines()[-1] for files in logs for text, _ in files.values()]
        named = [json.loads(line).get(topic, {}).get(str(partition), 0) for line in lines if line.startswith("{")]
        return max(named, default=0)

    def checkpoints(self, base: str) -> list[str]:
        """Return the checkpoints that begin with ``base``, sorted."""
        found = {each.split("/offsets")[0].split("/commits")[0].split("/sources")[0] for each in self.folders}
        return sorted(each for each in found if each.startswith(base))


@dataclass
class Folder:
    """One checkpoint folder, as ``stores/checkpoint_files.CheckpointFolder`` has it."""

    files: FileSystem
    location: str
    moves: bool = True

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        return self._effect(f"names {folder}", lambda: self._names(folder))

    def text(self, path: str) -> str | None:
        """Return a file's text, or None."""
        return self._effect(f"text {path}", lambda: self.peek(path))

    def create(self, path: str, text: str) -> bool:
        """Write a file if it is not there; return whether it was written."""
        return self._effect(f"create {path}", lambda: self._create(path, text))

    def exists(self) -> bool:
        """Return whether anything is at the location."""
        return bool(self._effect("exists", self._exists))

    def written_ms(self, path: str) -> int | None:
        """Return when a file was written, by the clock of the host that wrote it, or None if it does not exist."""
        return self._effect(f"written {path}", lambda: self._written_ms(path))

    def move_to(self, location: str) -> None:
        """Move the folder to a location where nothing exists.

        :raises FileExistsError: something is there.
        """
        self._effect(f"move to {location}", lambda: self._move(location.rstrip("/")))

    def purge(self, folder: str, before: int) -> None:
        """Remove the entries of a log with smaller ids."""
        doomed = [each for each in self._names(folder) if each.isdecimal() and int(each) < before]
        if doomed:
            where = f"{self._root}/{folder}"
            self._effect(f"purge {folder}", lambda: [self.files.remove(f"{where}/{each}") for each in doomed])

    def remove(self) -> None:
        """Remove the folder with everything in it."""
        self._effect("remove", lambda: self.files.remove_tree(self._root))

    def peek(self, path: str) -> str | None:
        """Return a file's text without an effect point."""
        found = self._find(path)
        return None if found is None else found[0]

    @property
    def _root(self) -> str:
        return self.location.rstrip("/")

    def _effect(self, what: str, act: Callable[[], Any]) -> Any:
        if not self.files.has_jvm():
            raise JvmGone("Answer from Java side is empty")
        return self.files.sim.effect("checkpoint", f"{what} in {self.location.rpartition('/')[2]}", act)

    def _find(self, path: str) -> tuple[str, int] | None:
        folder, _, name = f"{self._root}/{path}".rpartition("/")
        return self.files.folders.get(folder, {}).get(name)

    def _written_ms(self, path: str) -> int | None:
        found = self._find(path)
        return None if found is None else found[1]

    def _names(self, folder: str) -> list[str]:
        root = f"{self._root}/{folder}".rstrip("/")
        below = {each[len(root) + 1 :].split("/")[0] for each in self.files.folders if each.startswith(f"{root}/")}
        return sorted({*self.files.folders.get(root, {}), *below})

    def _exists(self) -> bool:
        return any(each == self._root or each.startswith(f"{self._root}/") for each in self.files.folders)

    def _create(self, path: str, text: str) -> bool:
        folder, _, name = f"{self._root}/{path}".rpartition("/")
        there = self.files.folders.setdefault(folder, {})
        if name in there:
            return False
        there[name] = (text, self.files.sim.now_ms())
        return True

    def _move(self, target: str) -> None:
        if any(each == target or each.startswith(f"{target}/") for each in self.files.folders):
            raise self.files.in_the_way(target)
        mine = [each for each in self.files.folders if each == self._root or each.startswith(f"{self._root}/")]
        for each in mine:
            self.files.folders[target + each[len(self._root) :]] = self.files.folders.pop(each)


@dataclass
class Sink:
    """Everything that was written, in order.

    :param is_file_sink: whether a batch is written atomically and a batch that exists is skipped, as Spark's file sink
        does by its ``_spark_metadata``.
    """

    sim: Simulation
    is_file_sink: bool = False
    writes: list[Write] = field(default_factory=list)
    counts: Counter[Record] = field(default_factory=Counter)
    batches: set[int] = field(default_factory=set)
    furthest: dict[tuple[str, int], int] = field(default_factory=dict)
    """The end of what was written, by partition."""
    on_write: Callable[[Write], None] | None = None
    ledger: list[Written] = field(default_factory=list)
    """What the metadata of the sink says, one entry per whole write of a tracked program."""

    def has(self, topic: str, partition: int, offset: int) -> bool:
        """Return whether the newest record at an offset, or an earlier one there, was written."""
        return (topic, partition, offset) in self.places

    places: set[tuple[str, int, int]] = field(default_factory=set)

    def write(
        self,
        records: list[Record],
        batch_id: int,
        query_id: str,
        epoch: int,
        run: str = "",
        chunk: int = 4,
        key: BatchKey | None = None,
    ) -> None:
        """Write records in chunks: the writer may die between two of them. The key is written with the last chunk."""
        if self.is_file_sink and not run:
            self.sim.effect("sink", f"commit batch {batch_id}", lambda: self._whole(records, batch_id, query_id, epoch))
            return
        for at in range(0, max(len(records), 1), chunk):
            part = records[at : at + chunk]
            named = key if at + chunk >= len(records) else None
            self.sim.effect(
                "sink",
                f"batch {batch_id} records {at}..",
                lambda part=part, named=named: self._add(part, batch_id, query_id, epoch, run, named),
            )

    def _whole(self, records: list[Record], batch_id: int, query_id: str, epoch: int) -> None:
        if batch_id not in self.batches:
            self.batches.add(batch_id)
            self._add(records, batch_id, query_id, epoch, "")
            self.ledger.append(Written("", batch_id, f"log {batch_id}", len(records), at_ms=self.sim.now_ms()))

    def _add(
        self, records: list[Record], batch_id: int, query_id: str, epoch: int, run: str, key: BatchKey | None = None
    ) -> None:
        if key is not None:
            place = f"step {self.sim.step}"
            named = (key.query_id, key.batch_id, place, len(records), key.pipeline, key.digest, self.sim.now_ms())
            self.ledger.append(Written(*named))
        for record in records:
            write = Write(record, batch_id, query_id, epoch, run, self.sim.step)
            self.writes.append(write)
            self.counts[record] += 1
            self.places.add((record.topic, record.partition, record.offset))
            key = record.topic, record.partition
            self.furthest[key] = max(self.furthest.get(key, 0), record.offset + 1)
            if self.on_write is not None:
                self.on_write(write)


class Identity(NamedTuple):
    """A process as the operating system names it."""

    host: str
    boot_id: str
    pid: int
    start_ticks: int
    namespaces: tuple[str, ...]
    machine_id: str


START_TICKS = 7
"""Start time of every process: no process id is used twice here."""


@dataclass
class ProcessTable:
    """The processes of all hosts, and what is launched in them. A zombie disappears here as soon as it ends."""

    sim: Simulation
    programs: Callable[[list[str]], Callable[[], Any]]
    """Returns what a command runs."""
    host: str = "worker-1"
    logs: dict[str, list[str]] = field(default_factory=dict)
    seen_gone: set[int] = field(default_factory=set)
    """Living processes that the operating system reports as dead: in a second container of the same host name."""
    spawned: int = 0
    has_launchers: bool = False
    """Whether a driver is a Python process and the Java process that launched it and leads its session."""
    launched_by: dict[str, str] = field(default_factory=dict)
    """The task that launched each driver, by the driver's name."""
    leaders: dict[int, int] = field(default_factory=dict)
    """Processes that lead no session, with the leader of their session."""

    def identity(self, process: int) -> Identity:
        """Return the identity of a process that lives or lived."""
        host = next(each.host for each in self.sim.actors if each.process == process)
        return Identity(host.name, host.boot_id, process, START_TICKS, _namespaces(host), host.machine_id)

    def spawn(self, command: list[str], log: str) -> Identity:
        """Start a command as an actor of its own, on the host of the calling actor."""
        host = self.sim.current.host.name
        self.spawned += 1

        def start() -> Identity:
            self.logs.setdefault(log, [])
            run = self.programs(command)
            self.launched_by[f"driver-{self.spawned}"] = self.sim.current.name
            actor = self.sim.spawn(f"driver-{self.spawned}", lambda: run(), host=host, is_driver=True)
            if not self.has_launchers:
                return self.identity(actor.process)
            launcher = self.sim.spawn(
                f"launcher-{self.spawned}", lambda: self.sim.wait_for(lambda: actor.is_gone), host=host
            )
            self.leaders[actor.process] = launcher.process
            return self.identity(launcher.process)

        return self.sim.effect("machine", "spawn", start)

    def has_launcher(self) -> bool:
        """Return whether the calling process still has the Java process that launched it, if it had one."""
        leader = self.leaders.get(self.sim.current.process) if self.sim.is_inside else None
        return leader is None or self.sim.is_alive(leader)

    def is_alive(self, process: Identity) -> bool | None:
        """Return whether a process is alive, or None if the calling process cannot see it."""
        return self._look(process, f"is_alive {process.pid}", lambda: self._lives(process))

    def is_session_alive(self, leader: Identity) -> bool | None:
        """Return whether a process, or any other of the session that it leads, lives."""
        return self._look(leader, f"is_session_alive {leader.pid}", lambda: bool(self._session(leader)))

    def signal_session(self, leader: Identity, number: signal.Signals) -> bool:
        """Kill a session by SIGTERM or SIGKILL: Spark's drivers exit on both."""
        return self._signal(leader, number, lambda: self._session(leader))

    def signal_leader(self, leader: Identity, number: signal.Signals) -> bool:
        """Kill the leader of a session, or what the leader has left."""
        return self._signal(leader, number, lambda: self._session(leader)[:1])

    def signal_group(self, process: Identity, number: signal.Signals) -> bool:
        """Kill the process group of a living process: its session."""
        return self._signal(process, number, lambda: self._session(process) if self._lives(process) else [])

    def _look(self, process: Identity, what: str, look: Callable[[], bool]) -> bool | None:
        sees = self._sees(process)
        return self.sim.effect("machine", what, look) if sees else sees

    def _sees(self, process: Identity) -> bool | None:
        """Return whether the caller would see a living process, or None if it cannot know. The test itself sees all."""
        if not self.sim.is_inside:
            return True
        here = self.sim.current.host
        if process.host != here.name:
            return None
        if process.boot_id != here.boot_id:
            return False if process.machine_id and process.machine_id == here.machine_id else None
        own = _namespaces(here)
        if process.namespaces[:1] == own[:1]:
            return True
        return None if not process.namespaces or set(process.namespaces) & set(own) else False

    def _lives(self, process: Identity) -> bool:
        is_it = process.start_ticks == START_TICKS and process.pid not in self.seen_gone
        return is_it and self.sim.is_alive(process.pid)

    def _session(self, leader: Identity) -> list[int]:
        """Return the living processes of a session, its leader first."""
        if leader.start_ticks != START_TICKS or leader.pid in self.seen_gone:
            return []
        members = [leader.pid, *(each for each, led_by in self.leaders.items() if led_by == leader.pid)]
        return [each for each in members if self.sim.is_alive(each)]

    def _signal(self, process: Identity, number: signal.Signals, found: Callable[[], list[int]]) -> bool:
        if not self._sees(process) or not found():
            return False

        def kill() -> bool:
            victims = found()
            for each in victims:
                self.sim.kill_process(each)
            return bool(victims)

        return self.sim.effect("machine", f"{number.name} {process.pid}", kill)


def _namespaces(host: Host) -> tuple[str, ...]:
    return f"pid:[{host.pid_namespace or host.name}]", f"uts:[{host.name}]", f"net:[{host.name}]"


@dataclass
class Markers:
    """Marker files."""

    sim: Simulation
    there: set[str] = field(default_factory=set)

    def place(self, location: str) -> None:
        """Create a marker."""
        self.sim.effect("file", f"place marker {location}", lambda: self.there.add(location))

    def remove(self, location: str) -> None:
        """Remove a marker."""
        self.sim.effect("file", f"remove marker {location}", lambda: self.there.discard(location))

    def is_there(self, location: str) -> bool:
        """Return whether a marker is there."""
        return bool(self.sim.effect("file", f"look for marker {location}", lambda: location in self.there))


class EffectfulStore:
    """A store whose every call is an effect. Iterators read when their first item is taken.

    :param name: its name in the trace.
    :param is_split: whether a swap is three effects, as on HBase: the facts, the text, the row.
    """

    def __init__(self, sim: Simulation, inner: Any, name: str, *, is_split: bool = False) -> None:
        self._sim, self._inner, self._name, self._is_split = sim, inner, name, is_split
        self.kind = inner.kind

    def close(self) -> None:
        """Do nothing."""

    def append(self, stream: Any, batch: Any) -> Any:
        """Add a row."""
        what = f"append batch {batch.batch_id}"
        return self._sim.effect("store", what, lambda: self._inner.append(stream, batch))

    def swap(
        self,
        pipeline: str,
        name: str,
        expected: str | None,
        value: str,
        *,
        stream: Any = None,
        prepare: Any = None,
        append: Any = None,
    ) -> bool:
        """Set a text with the facts and the row that belong to it."""
        what = f"swap {name}{' prepare' if prepare else ''}{' append' if append else ''}"
        if not self._is_split:

            def act() -> bool:
                return bool(
                    self._inner.swap(pipeline, name, expected, value, stream=stream, prepare=prepare, append=append)
                )

            return self._sim.effect("store", what, act)
        if prepare is not None:
            self._sim.effect("store", f"swap {name}: facts", lambda: self._inner._prepare(stream, prepare))
        done = self._sim.effect("store", what, lambda: self._inner.check_and_put(pipeline, name, expected, value))
        if done and append is not None:
            self.append(stream, append)
        return bool(done)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found
        if name in ("newest_first", "oldest_first", "scan"):

            def iterate(*arguments: Any, **options: Any) -> Iterator[Any]:
                self._sim.point(Side.BEFORE, "store", self._detail(name, arguments))
                yield from found(*arguments, **options)

            setattr(self, name, iterate)
            return iterate

        def call(*arguments: Any, **options: Any) -> Any:
            return self._sim.effect("store", self._detail(name, arguments), lambda: found(*arguments, **options))

        setattr(self, name, call)
        return call

    def _detail(self, name: str, arguments: tuple[Any, ...]) -> str:
        if name in ("get", "check_and_put", "scan"):
            return f"{name} {arguments[1]}"
        return f"{name} {self._name}"
