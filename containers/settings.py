"""``.env``: the settings of docker-compose.yml, written once with passwords and keys that nobody else has."""

import base64
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from stack.places import ROOT
from stack.problem import Problem

ENV = ROOT / ".env"
EXAMPLE = ROOT / ".env.example"
PASSWORD = "AIRFLOW_ADMIN_PASSWORD"  # noqa: S105 - the name of a setting


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode("ascii")


MADE_UP = {
    PASSWORD: lambda: secrets.token_urlsafe(15),
    "POSTGRES_PASSWORD": lambda: secrets.token_urlsafe(24),
    "AIRFLOW_FERNET_KEY": _fernet_key,
    "AIRFLOW_JWT_SECRET": lambda: secrets.token_urlsafe(48),
    "AIRFLOW_SECRET_KEY": lambda: secrets.token_urlsafe(48),
}
"""What has no default, because everybody would know it."""


def write(example: Path = EXAMPLE, env: Path = ENV) -> str:
    """Write ``.env`` from the example with secrets of its own, readable by this user only; give the admin's password.

    :raises Problem: it is there already: Postgres and Airflow may have what is in it.
    """
    text = example.read_text(encoding="utf-8")
    made = {name: make() for name, make in MADE_UP.items()}
    for name, value in made.items():
        text = changed(text, name, value)
    try:
        handle = os.open(env, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise Problem(
            f"{env.name} is there already, and printed its password once",
            do=f"it stands there as {PASSWORD}; to have another, change it there and run docker compose up -d again",
        ) from error
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        opened.write(text)
    return made[PASSWORD]


def read(env: Path = ENV) -> dict[str, str]:
    """Give the settings.

    :raises Problem: there is no ``.env``, or a secret in it is empty.
    """
    if not env.exists():
        raise Problem(f"no {env.name}", do="run: make compose-password")
    found = parse(env.read_text(encoding="utf-8"))
    empty = [name for name in MADE_UP if not found.get(name)]
    if empty:
        raise Problem(f"{env.name} has no {', '.join(empty)}", do=f"remove {env.name} and run: make compose-password")
    return found


def parse(text: str) -> dict[str, str]:
    """Give the pairs of a ``.env`` file."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def changed(text: str, name: str, value: str) -> str:
    """Give the text of a ``.env`` file with another value of one setting."""
    return re.sub(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)


def port(settings: Mapping[str, str], name: str) -> int:
    """Give a port of the settings.

    :raises Problem: it is no number of a port.
    """
    text = settings.get(name, "")
    if not (text.isdigit() and 0 < int(text) < 65536):
        raise Problem(f"{name}={text} in .env", expected="a port from 1 to 65535", do="correct it")
    return int(text)
