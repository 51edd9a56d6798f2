"""Paths in the checkout. The stack writes only below ``.stack`` and ``.venv``."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".stack"
LOGS = STATE / "logs"
JARS = STATE / "jars"
VENV = ROOT / ".venv"
POMS = Path(__file__).resolve().parent / "poms"


def log_of(name: str) -> Path:
    """Return the log file of a server or a step."""
    return LOGS / f"{name}.log"


def shown(path: Path) -> str:
    """Return a path relative to the checkout's root, if it is below the root."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
