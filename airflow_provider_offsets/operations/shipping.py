"""Pack the parts of this package that a Spark driver needs into one zip for ``--py-files``."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path

import airflow_provider_offsets

PARTS = ("__init__.py", "clock.py", "errors.py", "core", "jobs", "runtime", "stores")


def runtime_zip(folder: Path) -> Path:
    """Return the path of the zip, after writing it to ``folder`` if missing. Equal content has an equal name."""
    content = _content()
    target = folder / f"airflow_provider_offsets-{hashlib.sha256(content).hexdigest()[:12]}.zip"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(f".{os.getpid()}.tmp")
        unfinished.write_bytes(content)
        unfinished.replace(target)
    return target


def _content() -> bytes:
    root = Path(airflow_provider_offsets.__file__).parent
    files = sorted(each for part in PARTS for each in _python_files(root / part))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            # Fixed timestamps, so that equal files result in an equal zip.
            archive.writestr(zipfile.ZipInfo(str(file.relative_to(root.parent))), file.read_bytes())
    return buffer.getvalue()


def _python_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else list(path.rglob("*.py"))
