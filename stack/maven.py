"""The servers' jars, fetched by Maven from one small pom each and kept until the pom changes."""

import hashlib
import shutil
import subprocess
from pathlib import Path

from stack import needs
from stack.places import JARS, POMS, log_of, shown
from stack.problem import Problem
from stack.process import last_lines
from stack.report import Ticker, say

_POMS = {"kafka": "kafka", "hbase": "hbase", "spark": "spark-connector"}
NAMES = tuple(_POMS)
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"


def jars(name: str = "spark") -> list[Path]:
    """The jars of ``kafka``, ``hbase`` or ``spark`` (what Spark's Kafka connector needs beside a pip pyspark)."""
    return sorted((JARS / name).glob("*.jar"))


def fetch(name: str) -> Path:
    """Give the folder with the jars of ``name``, after fetching them if they are not there for this very pom."""
    pom = POMS / f"{_POMS[name]}.xml"
    target, stamp = JARS / name, hashlib.sha256(pom.read_bytes()).hexdigest()
    done = target / "pom.sha256"
    if not (done.exists() and done.read_text(encoding="ascii") == stamp):
        draft = JARS / f"{name}.partial"
        shutil.rmtree(draft, ignore_errors=True)
        _copy(name, pom, draft)
        (draft / done.name).write_text(stamp, encoding="ascii")
        shutil.rmtree(target, ignore_errors=True)
        draft.replace(target)
    return target


def _copy(name: str, pom: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    log = log_of(f"jars-{name}")
    log.parent.mkdir(parents=True, exist_ok=True)
    argv = [needs.maven(), "-q", "-B", "-f", str(pom), _COPY, f"-DoutputDirectory={folder}", "-DincludeScope=runtime"]
    with Ticker(name, lambda: f"Maven fetches jars: {len(list(folder.glob('*.jar')))} there") as ticker:
        with log.open("wb") as out:
            ended = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, check=False)
        if ended.returncode != 0:
            raise Problem(
                f"mvn ended with {ended.returncode}",
                expected=f"the jars of {shown(pom)}",
                do=f"read {shown(log)}; is Maven Central, or the mirror in your settings.xml, within reach?",
                detail=last_lines(log),
            )
        say(name, f"{len(list(folder.glob('*.jar')))} jars fetched in {ticker.seconds:.0f} s")
