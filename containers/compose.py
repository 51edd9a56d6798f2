"""A project of Docker Compose 1.29 or v2: its commands, its containers, and their health."""

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
    """Return the command of Docker Compose: v2 if installed, otherwise 1.29.

    :raises Problem: Docker Compose is not installed, or Docker does not respond.
    """
    if shutil.which("docker") is None:
        raise Problem(
            "PATH has no docker",
            expected="Docker with Compose",
            do="install both (Debian: apt install docker.io docker-compose)",
        )
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode != 0:
        raise Problem(
            "dockerd does not respond",
            expected="a running dockerd that this user may use",
            do="start it (systemctl start docker), or join the group docker",
        )
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose") is None:
        raise Problem(
            "docker has no command compose, and PATH has no docker-compose",
            expected="Docker Compose 1.29 or v2",
            do="install it (Debian: apt install docker-compose)",
        )
    return ["docker-compose"]


class Project:
    """The containers of docker-compose.yml under one project name, with settings of their own.

    :param name: name of the project.
    :param env: file with the settings, which override variables of the same name in the environment.
    """

    def __init__(self, name: str, env: Path) -> None:
        self.name = name
        self._argv = [*program(), "-p", name, "--env-file", str(env), "-f", str(FILE)]
        named = {*parse(env.read_text(encoding="utf-8")), *KEEP_OUT}
        self._env = {key: value for key, value in os.environ.items() if key not in named}

    def run(self, *arguments: str, log: str, doing: str) -> float:
        """Run a command with its output in a log, print progress every ten seconds, and return the seconds it took.

        :param arguments: arguments of ``docker compose``.
        :param log: name of the log.
        :param doing: text of the progress lines.
        :raises Problem: the command failed; with the last lines of its log.
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
                    f"docker compose {arguments[0]} ended with code {ended.returncode}",
                    expected="code 0",
                    do=f"read {shown(file)}",
                    detail=last_lines(file),
                )
            return ticker.seconds

    def container(self, service: str) -> str:
        """Return the id of a service's container, whether the container runs or not.

        :raises Problem: the service does not have exactly one container.
        """
        asked = ["docker", "ps", "-aq", "--no-trunc", *self._filters(service)]
        found = docker(*asked[1:]).split()
        if len(found) != 1:
            raise Problem(
                f"{service} has {len(found)} containers", expected="one container", do="list them: docker compose ps"
            )
        return found[0]

    def health(self) -> dict[str, str]:
        """Return the health by service: healthy, starting, unhealthy, or the status without a health check."""
        ids = docker("ps", "-aq", *self._filters()).split()
        if not ids:
            return {}
        return {
            each["Config"]["Labels"]["com.docker.compose.service"]: _health(each["State"])
            for each in json.loads(docker("inspect", *ids))
        }

    def exec(self, service: str, *argv: str) -> str:
        """Run a program in a service's container, and return its output.

        :raises Problem: the program failed.
        """
        return docker("exec", self.container(service), *argv)

    def kill_and_start(self, service: str) -> None:
        """End all processes of a container with SIGKILL, and restart the container."""
        found = self.container(service)
        docker("kill", "--signal", "KILL", found)
        docker("start", found)

    def _filters(self, service: str = "") -> list[str]:
        labels = {"project": self.name, "oneoff": "False", **({"service": service} if service else {})}
        return [
            part for key, value in labels.items() for part in ("--filter", f"label=com.docker.compose.{key}={value}")
        ]


def docker(*arguments: str) -> str:
    """Run a ``docker`` command, and return its output.

    :raises Problem: the command failed.
    """
    ended = subprocess.run(
        ["docker", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        raise Problem(
            f"docker {arguments[0]} ended with code {ended.returncode}",
            expected="code 0",
            do="read its output, below",
            detail=ended.stderr.strip(),
        )
    return ended.stdout


def is_up() -> bool:
    """Return whether containers of this checkout run, which then use its ports."""
    return bool(docker("ps", "-q", "--filter", f"label=com.docker.compose.project.working_dir={ROOT}").strip())


def images() -> set[str]:
    """Return the names of all images with their tags, and the ids of untagged images that our builds left."""
    stages = docker("images", "-q", "--filter", "dangling=true", "--filter", "label=project=airflow-provider-offsets")
    named = docker("images", "--filter", "dangling=false", "--format", "{{.Repository}}:{{.Tag}}")
    return {*named.split(), *stages.split()}


def unwell(health: Mapping[str, str], services: Sequence[str]) -> list[str]:
    """Return the services that are not healthy, including ``init`` unless it ended successfully.

    :param health: health or status by service.
    :param services: services that must be healthy.
    """
    wanted = {service: "ended" if service == "init" else "healthy" for service in services}
    return [f"{name} {health.get(name, 'missing')}" for name, state in wanted.items() if health.get(name) != state]


def _health(state: Mapping[str, object]) -> str:
    health = state.get("Health")
    if state["Status"] == "exited":
        return "ended" if state["ExitCode"] == 0 else f"ended with {state['ExitCode']}"
    if isinstance(health, Mapping) and state["Status"] == "running":
        return str(health["Status"])
    return str(state["Status"])
