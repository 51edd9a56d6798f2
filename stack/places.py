"""Where things stand in the checkout. Everything that the stack writes is below ``.stack`` and ``.venv``."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".stack"
LOGS = STATE / "logs"
JARS = STATE / "jars"
VENV = ROOT / ".venv"
POMS = Path(__file__).resolve().parent / "poms"


def log_of(name: str) -> Path:
    """The log file of a server or a step."""
    return LOGS / f"{name}.log"


def shown(path: Path) -> str:
    """A path as a person at the checkout's root would type it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
