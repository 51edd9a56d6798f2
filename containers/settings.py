"""``.env``: the settings of docker-compose.yml, written once, with generated passwords and keys."""

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
"""Generated settings. They have no default, because everybody would know it."""


def write(example: Path = EXAMPLE, env: Path = ENV) -> str:
    """Write ``.env`` from the example with generated secrets, readable by this user only; return the admin's password.

    :param example: file to start from.
    :param env: file to write.
    :raises Problem: the file already exists, and Postgres and Airflow may use its secrets.
    """
    text = example.read_text(encoding="utf-8")
    made = {name: make() for name, make in MADE_UP.items()}
    for name, value in made.items():
        text = changed(text, name, value)
    try:
        handle = os.open(env, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise Problem(
            f"{env.name} exists already",
            expected="no such file, because new secrets would lock you out",
            do=f"read the password in it ({PASSWORD}), or change it there and run docker compose up -d",
        ) from error
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        opened.write(text)
    return made[PASSWORD]


def read(env: Path = ENV) -> dict[str, str]:
    """Return the settings.

    :raises Problem: ``.env`` does not exist, or a secret in it is empty.
    """
    if not env.exists():
        raise Problem(
            f"{env.name} does not exist", expected="the file with the settings", do="run: make compose-password"
        )
    found = parse(env.read_text(encoding="utf-8"))
    empty = [name for name in MADE_UP if not found.get(name)]
    if empty:
        raise Problem(
            f"{env.name} has no {', '.join(empty)}",
            expected="a value for each secret",
            do=f"remove {env.name} and run: make compose-password",
        )
    return found


def parse(text: str) -> dict[str, str]:
    """Return the settings in the text of a ``.env`` file."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def changed(text: str, name: str, value: str) -> str:
    """Return the text of a ``.env`` file with one setting changed."""
    return re.sub(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)


def port(settings: Mapping[str, str], name: str) -> int:
    """Return the port in a setting.

    :raises Problem: the value is not a port number.
    """
    text = settings.get(name, "")
    if not (text.isdigit() and 0 < int(text) < 65536):
        raise Problem(f".env has {name}={text}", expected="a port from 1 to 65535", do=f"correct {name} in .env")
    return int(text)
