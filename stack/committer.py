"""Build the jar of the package's output committer. The jar is committed, because pip cannot compile Java."""

import hashlib
import subprocess
import tempfile
import zipfile
from pathlib import Path

from stack import needs
from stack.places import ROOT, VENV

FOLDER = ROOT / "airflow_provider_offsets" / "committer"
SOURCE = FOLDER / "PrivateScratchCommitter.java"
JAR = FOLDER / "committer.jar"
RELEASE = "8"
"""Java of the oldest Spark that may run the class."""
MANIFEST = "META-INF/MANIFEST.MF"


def build(jar: Path = JAR) -> None:
    """Compile the source against PySpark's Hadoop, and write the jar. Equal classes result in an equal jar."""
    [jars] = VENV.glob("lib/python*/site-packages/pyspark/jars")
    with tempfile.TemporaryDirectory() as folder:
        javac = Path(needs.java()).with_name("javac")
        classpath = ":".join(
            str(each) for name in ("hadoop-client-api", "slf4j-api") for each in jars.glob(f"{name}-*")
        )
        subprocess.run(
            [javac, "--release", RELEASE, "-nowarn", "-Xlint:-options", "-cp", classpath, "-d", folder, SOURCE],
            check=True,
        )
        with zipfile.ZipFile(jar, "w", zipfile.ZIP_DEFLATED) as archive:
            _add(archive, MANIFEST, manifest().encode())
            for each in sorted(Path(folder).rglob("*.class")):
                _add(archive, str(each.relative_to(folder)), each.read_bytes())


def manifest() -> str:
    """Return the manifest of the jar, which names the source by its digest."""
    return f"Manifest-Version: 1.0\nSource-SHA256: {hashlib.sha256(SOURCE.read_bytes()).hexdigest()}\n\n"


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name), content, compress_type=zipfile.ZIP_DEFLATED)
