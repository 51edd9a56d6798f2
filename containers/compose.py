"""One project of Docker Compose, 1.29 or v2: its commands, its containers, and whether they are healthy."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from containers.settings import parse
from stack.places import ROOT, log_of, shown
from stack.problem import Problem
from stack.process import last_lines
from stack.report import Ticker

FILE = ROOT / "docker-compose.yml"
KEEP_OUT = ("COMPOSE_FILE", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME")


def program() -> list[str]:
    """Give the command of Compose: v2 where it is, otherwise 1.29.

    :raises Problem: neither is there, or nobody answers it.
    """
    if shutil.which("docker") is None:
        raise Problem("no docker on PATH", do="install it (Debian: apt install docker.io docker-compose)")
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode != 0:
        raise Problem("dockerd does not answer", do="start it (systemctl start docker), or join the group docker")
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose") is None:
        raise Problem("no Docker Compose", do="install it (Debian: apt install docker-compose)")
    return ["docker-compose"]


class Project:
    """The containers of docker-compose.yml under one name, with settings of their own.

    :param env: the file with its settings. What the environment says of the same names does not count.
    """

    def __init__(self, name: str, env: Path) -> None:
        self.name = name
        self._argv = [*program(), "-p", name, "--env-file", str(env), "-f", str(FILE)]
        named = {*parse(env.read_text(encoding="utf-8")), *KEEP_OUT}
        self._env = {key: value for key, value in os.environ.items() if key not in named}

    def run(self, *arguments: str, log: str, doing: str) -> float:
        """Run a command with its output in a log, saying every ten seconds that it is at work; give its seconds.

        :raises Problem: it failed; with the last lines of its log.
        """
        file = log_of(log)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as out, Ticker("compose", lambda: doing) as ticker:
            ended = subprocess.run(
                [*self._argv, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self._env,
                check=False,
            )
            if ended.returncode != 0:
                raise Problem(
                    f"docker compose {arguments[0]} ended with {ended.returncode}",
                    do=f"read {shown(file)}",
                    detail=last_lines(file),
                )
            return ticker.seconds

    def container(self, service: str) -> str:
        """Give the id of a service's container, whether it runs or not.

        :raises Problem: there is none.
        """
        asked = ["docker", "ps", "-aq", "--no-trunc", *self._filters(service)]
        found = docker(*asked[1:]).split()
        if len(found) != 1:
            raise Problem(f"{len(found)} containers of {service}", expected="one", do="docker compose ps shows them")
        return found[0]

    def health(self) -> dict[str, str]:
        """Give the health of each container by service: healthy, starting, unhealthy, or its status if it has none."""
        ids = docker("ps", "-aq", *self._filters()).split()
        if not ids:
            return {}
        return {
            each["Config"]["Labels"]["com.docker.compose.service"]: _health(each["State"])
            for each in json.loads(docker("inspect", *ids))
        }

    def exec(self, service: str, *argv: str) -> str:
        """Run a program in a service's container, and give what it prints.

        :raises Problem: it failed.
        """
        return docker("exec", self.container(service), *argv)

    def kill_and_start(self, service: str) -> None:
        """End all processes of a container by SIGKILL, and start it again."""
        found = self.container(service)
        docker("kill", "--signal", "KILL", found)
        docker("start", found)

    def _filters(self, service: str = "") -> list[str]:
        labels = {"project": self.name, "oneoff": "False", **({"service": service} if service else {})}
        return [
            part for key, value in labels.items() for part in ("--filter", f"label=com.docker.compose.{key}={value}")
        ]


def docker(*arguments: str) -> str:
    """Run a command of Docker's own, and give what it prints.

    :raises Problem: it failed.
    """
    ended = subprocess.run(
        ["docker", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        raise Problem(
            f"docker {arguments[0]} ended with {ended.returncode}", do="read this", detail=ended.stderr.strip()
        )
    return ended.stdout


def is_up() -> bool:
    """Say whether containers of this checkout run: then they have its ports."""
    return bool(docker("ps", "-q", "--filter", f"label=com.docker.compose.project.working_dir={ROOT}").strip())


def images() -> set[str]:
    """Give the names of all images with their tags, and the ids of those that a build of ours has left without one."""
    stages = docker("images", "-q", "--filter", "dangling=true", "--filter", "label=project=airflow-provider-offsets")
    named = docker("images", "--filter", "dangling=false", "--format", "{{.Repository}}:{{.Tag}}")
    return {*named.split(), *stages.split()}


def unwell(health: Mapping[str, str], services: Sequence[str]) -> list[str]:
    """Give what is not as it should be: each service healthy, and ``init`` ended well."""
    wanted = {service: "ended" if service == "init" else "healthy" for service in services}
    return [f"{name} {health.get(name, 'missing')}" for name, state in wanted.items() if health.get(name) != state]


def _health(state: Mapping[str, object]) -> str:
    health = state.get("Health")
    if state["Status"] == "exited":
        return "ended" if state["ExitCode"] == 0 else f"ended with {state['ExitCode']}"
    if isinstance(health, Mapping) and state["Status"] == "running":
        return str(health["Status"])
    return str(state["Status"])
