"""Odd checkpoint folders: the cases of part C, others of the same kinds, and folders that a seed makes.

The topic ``orders`` has two partitions with the offsets ``[0, 10)``. Each folder has an expected first batch, which is
what Spark 4.2.0 does: ``tests/e2e/test_checkpoint_verdicts.py`` starts it there.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.log import read_state
from airflow_provider_offsets.checkpoint.start import require_start
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.errors import CheckpointError

TOPIC = "orders"
PARTITIONS = (0, 1)
END = 10
METADATA = '{"id":"6b7ad74c-8bd2-4e0d-9a4f-8f2a4f1f8a11"}'
COMMIT = 'v1\n{"nextBatchWatermarkMs":0}'
CONF = '"conf":{"spark.sql.shuffle.partitions":"2"}'
BATCH = f'{{"batchWatermarkMs":0,"batchTimestampMs":1790000000000,{CONF}}}'
NAMED_BATCH = '{"batchWatermarkMs":0,"batchTimestampMs":1,"conf":{},"sourceMetadataInfo":{}}'

Files = dict[str, str]


@dataclass(frozen=True)
class FirstBatch:
    """First batch of a query that starts on a folder."""

    batch_id: int
    records: int | None
    """Number of records that it reads; None if Spark does not say it."""


REFUSED = None
"""Spark does not start, or dies before its first batch is complete."""


def ends(first: int, second: int) -> str:
    """Return offsets of both partitions as Spark writes them."""
    return json.dumps({TOPIC: {"0": first, "1": second}}, separators=(",", ":"))


def entry(batch_id: int, *, version: str = "v1", batch: str = BATCH) -> str:
    """Return the ``offsets/<batch_id>`` of a query that reads one record of each partition in each batch."""
    return f"{version}\n{batch}\n{ends(batch_id + 1, batch_id + 1)}"


def named(batch_id: int, name: str = "0") -> str:
    """Return an entry of version 2."""
    return f"v2\n{NAMED_BATCH}\n{name}:{ends(batch_id + 1, batch_id + 1)}"


def log(planned: Iterator[int] | range | list[int], committed: range | list[int], **more: str | None) -> Files:
    """Return a checkpoint with these entries and commits. Further files replace them; None removes one."""
    files: dict[str, str | None] = {"metadata": METADATA, "sources/0/0": f"\0v1\n{ends(0, 0)}"}
    files |= {f"offsets/{each}": entry(each) for each in planned}
    files |= {f"commits/{each}": COMMIT for each in committed}
    return {path: text for path, text in (files | more).items() if text is not None}


@dataclass(frozen=True)
class OddFolder:
    """One folder, and what Spark 4.2.0 does on it."""

    case: str
    """Row of the list of failing inputs, and what is odd."""
    files: Mapping[str, str]
    first: FirstBatch | None = REFUSED
    asynchronous: bool = False
    """Whether the query tracks its progress asynchronously."""
    since: tuple[int, int] = (3, 5)
    """The first version of Spark that does this."""
    name: str = ""
    """Name of the query's source."""
    options: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    """Name of the folder below the one of the test, if the name is what is odd."""
    spelled: str = "{}"
    """Location of the folder in the program, with its path at the place of ``{}``."""


def write(home: Path, odd: OddFolder, files: Mapping[str, str] | None = None) -> str:
    """Write an odd folder into a new folder, and return its location.

    :param home: a folder for the checkpoint.
    :param odd: the odd folder.
    :param files: files to write instead of those of the odd folder.
    """
    folder = home / odd.folder
    folder.mkdir(parents=True)
    for path, text in (odd.files if files is None else files).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text.encode("utf-8", "surrogateescape"))
    return odd.spelled.format(folder)


def verdict(location: str, *, asynchronous: bool = False) -> FirstBatch | None:
    """Return the first batch that this package expects, or None if the plan of a resume is refused.

    :param location: the checkpoint.
    :param asynchronous: whether the query tracks its progress asynchronously.
    """
    checkpoint = open_checkpoint(location)
    try:
        state = read_state(checkpoint)
        require_start(checkpoint, may_have_gaps=asynchronous)
    except CheckpointError:
        return REFUSED
    if state is None:
        return FirstBatch(0, len(PARTITIONS) * END)
    if state.planned_batch_id is None:
        every = Position.from_plain({TOPIC: {str(each): END for each in PARTITIONS}})
        return FirstBatch(state.committed_batch_id + 1, _between(state.committed, every))
    assert state.planned is not None
    return FirstBatch(state.planned_batch_id, _between(state.committed, state.planned))


def _between(start: Position, end: Position) -> int:
    return sum(offset - start.get(partition, 0) for partition, offset in end.items())


NEXT = FirstBatch(4, 12)
"""After four committed batches."""
AGAIN = FirstBatch(3, 2)
"""The fourth batch is run again."""
FOUR = range(4)


def _of_commits() -> Iterator[OddFolder]:
    texts = {
        "of version 2": 'v2\n{"nextBatchWatermarkMs":0,"stateUniqueIds":{}}',
        "without metadata": "v1",
        "with CRLF": COMMIT.replace("\n", "\r\n"),
        "with a list": "v1\n[]",
        "with more after it": f"{COMMIT} x\nx",
        "with blanks around its version": COMMIT.replace("v1", " v1 "),
        "with a fraction": 'v1\n{"nextBatchWatermarkMs":7.5}',
    }
    for what, text in texts.items():
        since = (4, 2) if "version 2" in what else (3, 5)
        yield OddFolder(f"C5: a commit {what}", log(FOUR, FOUR, **{"commits/3": text}), NEXT, since=since)
    texts = {
        "that is cut off": "v1\n{",
        "that is empty": "",
        "of version 4": "v4\n{}",
        "of version 3 without its sinks": 'v3\n{"nextBatchWatermarkMs":0}',
        "of version 0": "v0\n{}",
        "without a version": '{"nextBatchWatermarkMs":0}',
        "with a byte order mark": f"\ufeff{COMMIT}",
        "that is null": "v1\nnull",
        "with a text for a number": 'v1\n{"nextBatchWatermarkMs":"7"}',
        "with a key twice": 'v1\n{"nextBatchWatermarkMs":0,"nextBatchWatermarkMs":1}',
        "with NaN": 'v1\n{"nextBatchWatermarkMs":NaN}',
        "with an empty line": 'v1\n\n{"nextBatchWatermarkMs":0}',
    }
    for what, text in texts.items():
        yield OddFolder(f"C5: a commit {what}", log(FOUR, FOUR, **{"commits/3": text}))


def _of_entries() -> Iterator[OddFolder]:
    texts = {
        "with CRLF": entry(3).replace("\n", "\r\n"),
        "with CR": entry(3).replace("\n", "\r"),
        "with an end of line": f"{entry(3)}\n",
        "with the metadata {}": entry(3, batch="{}"),
        "with the metadata []": entry(3, batch="[]"),
        "with metadata of null": entry(3, batch=BATCH.replace("1790000000000", "null")),
        "of v01": entry(3, version="v01"),
        "with more after its offsets": f"{entry(3)} x",
    }
    for what, text in texts.items():
        yield OddFolder(f"C7: the newest entry {what}", log(FOUR, FOUR, **{"offsets/3": text}), NEXT)
    texts = {
        "that is empty": "",
        "that is cut off after its version": "v1\n",
        "that is cut off in its metadata": f"v1\n{BATCH[:-9]}",
        "that is cut off before its offsets": f"v1\n{BATCH}\n",
        "that is cut off in its offsets": entry(3)[:-4],
        "with a byte order mark": f"\ufeff{entry(3)}",
        "with a blank after its version": entry(3, version="v1 "),
        "of version 3": entry(3, version="v3"),
        "of version 0": entry(3, version="v0"),
        "with metadata null": entry(3, batch="null"),
        "without metadata": entry(3, batch=""),
        "with a text for a time": entry(3, batch='{"batchTimestampMs":"5"}'),
        "with confs that are a list": entry(3, batch='{"conf":[]}'),
        "with an empty line at its end": f"{entry(3)}\n\n",
        "with two sources": f"{entry(3)}\n{ends(4, 4)}",
        "with a text for an offset": entry(3).replace(":4", ':"4"'),
        "with bytes that are no UTF-8": f"{entry(3)}\udcff",
    }
    for what, text in texts.items():
        yield OddFolder(f"C7: the newest entry {what}", log(FOUR, FOUR, **{"offsets/3": text}))
    for what in ("that is empty", "with metadata null", "with two sources"):
        first = NEXT if "null" in what else REFUSED
        yield OddFolder(f"C7: the entry before {what}", log(FOUR, FOUR, **{"offsets/2": texts[what]}), first)
    yield OddFolder("C7: the entry before, cut off", log(FOUR, FOUR, **{"offsets/2": entry(2)[:-4]}), NEXT)
    yield OddFolder("C7: the entry before, cut off, in flight", log(FOUR, range(3), **{"offsets/2": entry(2)[:-4]}))
    yield OddFolder("C7: an older entry that is empty", log(FOUR, FOUR, **{"offsets/1": ""}), NEXT)
    crlf = {"offsets/3": entry(3).replace("\n", "\r\n")}
    yield OddFolder("C7: a batch in flight with CRLF", log(FOUR, range(3), **crlf), AGAIN)


def _of_metadata() -> Iterator[OddFolder]:
    texts = {
        "that is {}": "{}",
        "that is empty": "",
        "that is cut off": METADATA[:9],
        "that is a list": "[]",
        "that is null": "null",
        "with an id that is null": '{"id":null}',
        "with an empty id": '{"id":""}',
        "with a number": '{"id":5}',
        "with an id twice": METADATA.replace("{", '{"id":"x",'),
        "with a byte order mark": f"\ufeff{METADATA}",
        "with a version": f"v1\n{METADATA}",
    }
    for what, text in texts.items():
        yield OddFolder(f"C7: metadata {what}", log(FOUR, FOUR, metadata=text))
    for what, text in {"with CRLF": f"{METADATA}\r\n", "with more after it": f"{METADATA} x"}.items():
        yield OddFolder(f"C7: metadata {what}", log(FOUR, FOUR, metadata=text), NEXT)
    yield OddFolder("C7: no metadata", log(FOUR, FOUR, metadata=None), since=(4, 2))
    yield OddFolder("C7: metadata alone", {"metadata": METADATA}, FirstBatch(0, 20))


def _of_names() -> Iterator[OddFolder]:
    extra = {
        "offsets/.5.tmp": "x",
        "commits/.5.a.tmp": "x",
        "offsets/.5.crc": "x",
        "_SUCCESS": "",
        "offsets/5.txt": "x",
    }
    yield OddFolder("C7: files of others", log(FOUR, FOUR, **extra, **{"commits/_SUCCESS": ""}), NEXT)
    for name in ("05", "+5", "\u0665"):
        yield OddFolder(f"C7: an entry named {name}", log(FOUR, FOUR, **{f"offsets/{name}": entry(4)}))
    yield OddFolder("C7: a commit named 05", log(FOUR, FOUR, **{"commits/05": COMMIT}))
    for name in ("02", "-5", " 5", "99999999999999999999"):
        yield OddFolder(f"C7: an entry named {name!r}", log(FOUR, FOUR, **{f"offsets/{name}": entry(4)}), NEXT)
    for path in ("offsets/.0.a.tmp", "commits/_SUCCESS", "state/0/0/1.delta"):
        yield OddFolder(f"C7: no batch, and {path}", log([], [], **{path: "x"}), since=(4, 2))
    yield OddFolder(
        "C7: no batch, and checksums of a later one", log([], [], **{"offsets/.5.crc": "x"}), FirstBatch(0, 20)
    )
    for path in ("offsets/.0.crc", "commits/.0.crc"):
        yield OddFolder(f"C7: no batch, and {path}", log([], [], **{path: "x"}))
    for path in ("offsets/.4.crc", "commits/.4.crc"):
        yield OddFolder(f"C1: the newest entry is gone, and not {path}", log(FOUR, FOUR, **{path: "x"}))
    yield OddFolder("C7: a batch in flight, and commits/.3.crc", log(FOUR, range(3), **{"commits/.3.crc": "x"}))
    for path in ("offsets/.3.crc", "commits/.3.crc", ".metadata.crc"):
        yield OddFolder(f"C7: {path} that matches nothing", log(FOUR, FOUR, **{path: "x"}), NEXT)


def _of_starts() -> Iterator[OddFolder]:
    initial = f"\0v1\n{ends(1, 2)}"
    yield OddFolder("C7: initial offsets", log([], [], **{"sources/0/0": initial}), FirstBatch(0, 17))
    yield OddFolder(
        "C7: initial offsets of Spark 2.1", log([], [], **{"sources/0/0": f"\0{ends(1, 2)}"}), FirstBatch(0, 17)
    )
    yield OddFolder("C7: initial offsets, a batch in flight", log([0], []), FirstBatch(0, 2))
    part = '\0v1\n{"orders":{"0":1}}'
    yield OddFolder("C7: initial offsets of one partition", log([], [], **{"sources/0/0": part}), FirstBatch(0, 19))
    texts = {
        "that are empty": "",
        "of a zero byte": "\0",
        "with CRLF": initial.replace("\n", "\r\n"),
        "without a zero byte": initial[1:],
        "of version 2": initial.replace("v1", "v2"),
        "that are cut off": initial[:-3],
    }
    for what, text in texts.items():
        yield OddFolder(f"C7: initial offsets {what}", log([], [], **{"sources/0/0": text}))
        yield OddFolder(f"C7: initial offsets {what}, later", log([0], [0], **{"sources/0/0": text}), FirstBatch(1, 18))


def _of_version_2() -> Iterator[OddFolder]:
    newer = {"since": (4, 2)}
    old = {f"offsets/{each}": named(each) for each in FOUR}
    yield OddFolder("C8: version 2", log(FOUR, FOUR, **old), NEXT, **newer)  # type: ignore[arg-type]
    evolution = "spark.sql.streaming.queryEvolution.enableSourceEvolution"
    with_names = f'"conf":{{"{evolution}":"true"}}'
    flights = {f"offsets/{each}": named(each, "flights").replace('"conf":{}', with_names) for each in FOUR}
    sources = {"sources/0/0": None, "sources/flights/0": f"\0v1\n{ends(0, 0)}"}
    options = {
        evolution: "true",
        "spark.sql.streaming.offsetLog.formatVersion": "2",
    }
    yield OddFolder(
        "C8: a named source",
        log(FOUR, FOUR, **flights, **sources),
        NEXT,
        name="flights",
        options=options,
        **newer,  # type: ignore[arg-type]
    )
    lacks = {f"offsets/{each}": named(each).replace('"conf":{}', '"conf":{"spark.sql.x":"y"}') for each in FOUR}
    yield OddFolder("C8: version 2, a batch in flight", log(FOUR, range(3), **lacks), **newer)  # type: ignore[arg-type]
    has = {f"offsets/{each}": named(each).replace('"conf":{}', CONF) for each in FOUR}
    yield OddFolder("C8: version 2 with a setting, a batch in flight", log(FOUR, range(3), **has), AGAIN, **newer)  # type: ignore[arg-type]
    more = entry(3, batch=BATCH.replace('"2"', '"4"'))
    cut = log(FOUR, range(3), **{"offsets/3": more})
    yield OddFolder("C8: a repartition of the state that was cut off", cut, **newer)  # type: ignore[arg-type]
    again = log(FOUR, range(3), **{"offsets/3": entry(3, batch=BATCH.replace('"2"', '"+02"'))})
    yield OddFolder("C8: the same number of partitions, written differently", again, AGAIN, **newer)  # type: ignore[arg-type]
    done = log(FOUR, FOUR, **{"offsets/3": more.replace(ends(4, 4), ends(3, 3))})
    yield OddFolder("C8: a repartition of the state", done, FirstBatch(4, 14), **newer)  # type: ignore[arg-type]
    yield OddFolder("C8: version 2 without a name", log(FOUR, FOUR, **{"offsets/3": "v2\n{}\n17"}), **newer)  # type: ignore[arg-type]


def _of_logs() -> Iterator[OddFolder]:
    yield OddFolder("C1: the newest entry is gone", log(FOUR, range(5)))
    yield OddFolder("C1: the newest two entries are gone", log(range(3), range(5)))
    yield OddFolder("C1: a commit far ahead", log(FOUR, [*FOUR, 9]))
    yield OddFolder("C3: commits without offsets", log([], range(5)))
    yield OddFolder("C3: one commit without offsets", log([], [0]))
    yield OddFolder("C4: a hole before the newest entry", log([2, 4], [1, 2]))
    yield OddFolder("C4: the same, all committed", log([0, 1, 3], [0, 1, 2, 3]))
    yield OddFolder("C4: the same, without its commit", log([0, 1, 3], [0, 1, 3]))
    yield OddFolder("C4: the newest entry alone", log([3], range(4)))
    yield OddFolder("C4: the newest entry alone, in flight", log([3], []))
    yield OddFolder("C4: a hole further down", log([0, 1, 3, 4], range(5)), FirstBatch(5, 10))
    yield OddFolder("C4: a hole in the commits", log(FOUR, [0, 1, 3]), NEXT)
    yield OddFolder("C4: the last two commits are gone", log(FOUR, range(2)), AGAIN)
    yield OddFolder("C4: all commits are gone", log(FOUR, []), AGAIN)
    yield OddFolder("C4: a batch in flight", log(FOUR, range(3)), AGAIN)
    yield OddFolder("C4: nothing odd", log(FOUR, FOUR), NEXT)
    yield OddFolder("C4: nothing there", {}, FirstBatch(0, 20))
    yield OddFolder("C4: asynchronous, in flight", log([0, 2, 5], [0, 2]), FirstBatch(5, 6), asynchronous=True)
    yield OddFolder("C4: asynchronous, committed", log([0, 2, 5], [0, 2, 5]), FirstBatch(6, 8), asynchronous=True)
    yield OddFolder("C4: asynchronous, purged", log([3, 5, 7], [1, 3, 5]), FirstBatch(7, 4), asynchronous=True)


def _of_places() -> Iterator[OddFolder]:
    for folder, spelled in (
        ("a#v2", "file://{}"),
        ("what?", "{}"),
        ("50%", "file:{}"),
        ("a%20b", "file:///{}//"),
        ("a b", "{}/./"),
        ("a:b", "file://{}/x/.."),
    ):
        case = f"C6: {spelled.format('/ck/' + folder)}"
        yield OddFolder(case, log(FOUR, FOUR), NEXT, folder=folder, spelled=spelled)


ODD_FOLDERS = [
    *_of_logs(),
    *_of_commits(),
    *_of_entries(),
    *_of_metadata(),
    *_of_names(),
    *_of_starts(),
    *_of_version_2(),
    *_of_places(),
]


def generated(seed: int) -> OddFolder:
    """Return a folder with one to three random oddities. What Spark does there is not known beforehand."""
    chance = random.Random(seed)
    first = chance.choice([0, 0, 3])
    ids = list(range(first, first + chance.randint(1, 5)))
    files = log(ids, ids[: len(ids) - chance.randint(0, 2)])
    done = [chance.choice(_CHANGES)(files, chance) for _ in range(chance.randint(1, 3))]
    since = (3, 5) if "metadata" in files else (4, 2)  # as for the row without metadata
    return OddFolder(f"seed {seed}: {', '.join(done)}", files, since=since)


def _some(files: Files, chance: random.Random) -> str:
    return chance.choice([each for each in files if not each.startswith("sources")] or ["metadata"])


def _remove(files: Files, chance: random.Random) -> str:
    path = _some(files, chance)
    files.pop(path, None)
    return f"{path} is gone"


def _cut(files: Files, chance: random.Random) -> str:
    path = _some(files, chance)
    files[path] = files.get(path, "")[: chance.randint(0, max(0, len(files.get(path, "")) - 1))]
    return f"{path} is cut off to {len(files[path])}"


def _end_lines(files: Files, chance: random.Random) -> str:
    path, end = _some(files, chance), chance.choice(["\r\n", "\r", "\n\n"])
    files[path] = files.get(path, "").replace("\n", end)
    return f"{path} has lines that end with {end!r}"


def _version(files: Files, chance: random.Random) -> str:
    path, version = _some(files, chance), chance.choice(["v0", "v01", "v3", "v9", "x", "v1 ", "\ufeffv1", "V1"])
    files[path] = files.get(path, "").replace("v1", version, 1)
    return f"{path} is of version {version!r}"


def _extra(files: Files, chance: random.Random) -> str:
    folder = chance.choice(["offsets/", "commits/", ""])
    path = folder + chance.choice([".5.tmp", ".5.crc", "_SUCCESS", "5.txt", "07", "+6", "-3", "8x", ".3.a.tmp"])
    files[path] = chance.choice(["", "x", COMMIT])
    return f"{path} is there"


def _further(files: Files, chance: random.Random) -> str:
    folder, planned = chance.choice(["offsets", "commits"]), [int(each[8:]) for each in files if each[8:].isdecimal()]
    batch_id = chance.randint(0, 9 if folder == "offsets" else max(planned, default=0))
    files[f"{folder}/{batch_id}"] = entry(batch_id) if folder == "offsets" else COMMIT
    return f"{folder}/{batch_id} is there"


_CHANGES = [_remove, _remove, _cut, _end_lines, _version, _extra, _further]
