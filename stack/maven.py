"""Jars that Maven downloads or builds from one small pom each, kept until their sources change."""

import hashlib
import shutil
import subprocess
import time
from pathlib import Path

from stack import needs
from stack.places import JARS, POMS, ROOT, log_of, shown
from stack.problem import Problem
from stack.process import last_lines
from stack.report import Ticker, say
from stack.sparks import SPARKS

_CONNECTOR = POMS / "spark-connector.xml"
_POMS = {
    "kafka": POMS / "kafka.xml",
    "hbase": POMS / "hbase.xml",
    "hdfs": POMS / "hdfs.xml",
    "yarn": POMS / "yarn.xml",
    "postgres": POMS / "postgres.xml",
    "spark": _CONNECTOR,
    **{spark.jars: _CONNECTOR for spark in SPARKS.values()},
    "tables": POMS / "tables.xml",
    "tables-4.1": POMS / "tables-4.1.xml",
    "dstream": ROOT / "jobs" / "dstream" / "pom.xml",
}
_PROPERTIES = {spark.jars: (f"-Dspark={spark.connector}", f"-Dscala={spark.scala}") for spark in SPARKS.values()}
NAMES = tuple(_POMS)
_TRIES, _PAUSE_S = 3, 10
"""A reachable repository does not answer every time."""
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"


def jars(name: str = "spark") -> list[Path]:
    """Return the jars of a server or program.

    - ``kafka``, ``hbase``, ``hdfs``, ``yarn``: the server;
    - ``spark``: what Spark's Kafka connector needs in addition to pyspark from pip;
    - ``spark-3.5`` to ``spark-4.3``: the same for the versions of ``stack.sparks``;
    - ``tables``, ``tables-4.1``: the table formats that exist for ``spark`` and ``spark-4.1``;
    - ``dstream``: Spark 3.5 and the dependencies of the job, whose own jar is ``stack.dstream.JAR``;
    - ``postgres``: one jar, which contains an archive of PostgreSQL's programs.
    """
    return sorted((JARS / name).glob("*.jar"))


def fetch(name: str) -> Path:
    """Return the directory with the jars of ``name``, after downloading them if they are missing or outdated."""
    target = JARS / name
    if not is_current(name):
        draft = JARS / f"{name}.partial"
        shutil.rmtree(draft, ignore_errors=True)
        _copy(name, _POMS[name], draft)
        (draft / _STAMP).write_text(_digest(name), encoding="ascii")
        shutil.rmtree(target, ignore_errors=True)
        draft.replace(target)
    return target


def is_current(name: str) -> bool:
    """Return whether the jars exist and were made from the current pom and program."""
    done = JARS / name / _STAMP
    return done.exists() and done.read_text(encoding="ascii") == _digest(name)


_STAMP = "pom.sha256"


def _digest(name: str) -> str:
    pom = _POMS[name]
    files = [pom, *sorted((pom.parent / "src").rglob("*.java"))]
    inputs = [*(file.read_bytes() for file in files), *(each.encode() for each in _PROPERTIES.get(name, ()))]
    return hashlib.sha256(b"\0".join(inputs)).hexdigest()


def _copy(name: str, pom: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    log = log_of(f"jars-{name}")
    log.parent.mkdir(parents=True, exist_ok=True)
    into = [f"-DoutputDirectory={folder}", f"-Dout={folder / 'build'}"]
    argv = [needs.maven(), "-q", "-B", "-f", str(pom), "package", _COPY, *into, *_PROPERTIES.get(name, ())]
    with Ticker(name, lambda: f"Maven fetches jars: {len(list(folder.glob('*.jar')))} there") as ticker:
        for tries_left in reversed(range(_TRIES)):
            with log.open("wb") as out:
                ended = subprocess.run(
                    argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, check=False
                )
            if ended.returncode == 0:
                break
            if not tries_left:
                raise Problem(
                    f"Maven failed {_TRIES} times, the last time with code {ended.returncode}",
                    expected=f"the jars of {shown(pom)}",
                    do=f"read {shown(log)}, and check that Maven reaches Maven Central or your mirror of it",
                    detail=last_lines(log),
                )
            say(name, f"Maven failed with code {ended.returncode}; retrying in {_PAUSE_S} s")
            time.sleep(_PAUSE_S)
        say(name, f"{len(list(folder.glob('*.jar')))} jars fetched in {ticker.seconds:.0f} s")
