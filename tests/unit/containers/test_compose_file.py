"""The guarantees of docker-compose.yml, read from the file itself; `make compose-test` shows that it runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from containers.checks import PORTS
from containers.compose import unwell
from containers.enter import HEALTH, ROLES
from containers.settings import MADE_UP, parse
from containers.trial import BLOWS, IMAGES, SERVICES

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docker-compose.yml").read_text()
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SERVERS: dict[str, dict[str, Any]] = FILE["services"]
ONCE = {"init", "feed"}
"""Services that exit by themselves."""
DOCKERFILE = (ROOT / "Dockerfile").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()


def stages() -> dict[str, str]:
    """Return the text of each stage of the Dockerfile, by its name."""
    parts = re.split(r"^FROM \S+ AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def mib(limit: str) -> int:
    assert limit.endswith("m")
    return int(limit[:-1])


@pytest.mark.parametrize("name", SERVERS)
def test_ports_are_opened_on_the_loopback_interface_only(name: str) -> None:
    for port in SERVERS[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+:-\d+\}:\d+", port), port


@pytest.mark.parametrize("name", SERVERS)
def test_nothing_runs_as_root(name: str) -> None:
    target = SERVERS[name]["image"].removeprefix("offsets-")
    users = re.findall(r"^USER (\S+)$", stages()[target], re.MULTILINE)

    assert users[-1] == "offsets"
    assert "user" not in SERVERS[name]
    assert not SERVERS[name].get("privileged")


def test_all_of_it_fits_8_gib() -> None:
    limits = {name: mib(each["mem_limit"]) for name, each in SERVERS.items()}
    init = limits.pop("init")

    assert sum(limits.values()) <= 8 * 1024
    assert init <= limits["scheduler"], "it has ended before the scheduler begins"


@pytest.mark.parametrize("name", sorted(set(SERVERS) - ONCE))
def test_each_server_is_known_to_its_entry_point_and_has_a_health_check_and_a_name(name: str) -> None:
    server = SERVERS[name]

    assert name in ROLES
    assert server["healthcheck"]["test"] == ["CMD", "python3", "-m", "containers.enter", "healthy", name]
    assert name in HEALTH
    assert server["hostname"] == name, "a driver is known by its host: the name must stay over restarts"
    assert server["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVERS)
def test_who_depends_on_another_waits_until_that_can_be_used(name: str) -> None:
    wanted = {
        other: "service_completed_successfully" if other in ONCE else "service_healthy"
        for other in SERVERS[name].get("depends_on", {})
    }

    assert {other: each["condition"] for other, each in SERVERS[name].get("depends_on", {}).items()} == wanted


def test_every_image_is_built_once_from_this_repository() -> None:
    built = [each["build"]["target"] for each in SERVERS.values() if "build" in each]

    assert sorted(built) == sorted({each["image"].removeprefix("offsets-") for each in SERVERS.values()})
    assert sorted(built) == sorted(IMAGES)
    bases = set(re.findall(r"^FROM (\S+) AS", DOCKERFILE, re.MULTILINE)) - set(stages())
    assert bases == {"debian:bookworm-slim"}


def test_the_feed_comes_only_when_it_is_asked_for() -> None:
    assert [name for name, each in SERVERS.items() if each.get("profiles")] == ["feed"]


def test_every_setting_is_used_and_every_one_that_is_used_is_there() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", TEXT))

    assert set(parse(EXAMPLE)) == used


@pytest.mark.parametrize("name", parse(EXAMPLE))
def test_every_setting_is_explained_in_the_lines_above_it(name: str) -> None:
    lines = EXAMPLE.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"{name}="))

    assert re.fullmatch(r"# [^-].{10,}", lines[at - 1])


@pytest.mark.parametrize("name", parse(EXAMPLE))
def test_a_default_is_the_one_of_the_file_and_a_secret_has_none(name: str) -> None:
    value = parse(EXAMPLE)[name]
    defaults = set(re.findall(rf"\$\{{{name}:-([^}}]+)\}}", TEXT))
    demanded = re.findall(rf"\$\{{{name}:\?([^}}]+)\}}", TEXT)

    assert (name in MADE_UP) == (value == "") == bool(demanded)
    assert defaults == ({value} if value else set())
    assert all("make compose-password" in each for each in demanded), "one line that says how to set it"


def test_every_port_is_looked_at_before() -> None:
    assert {name for name in parse(EXAMPLE) if name.endswith("_PORT")} == set(PORTS)


def test_the_store_is_one_that_a_driver_on_another_host_reaches() -> None:
    assert parse(EXAMPLE)["OFFSETS_STORE_URL"].startswith("hbase://")


def test_no_volume_is_a_folder_of_the_machine_but_what_a_person_edits() -> None:
    mounts = [mount for each in SERVERS.values() for mount in each.get("volumes", [])]

    assert {mount.partition(":")[0] for mount in mounts} == {*FILE["volumes"], "./dags", "./jobs"}
    assert all(mount.endswith(":ro") for mount in mounts if mount.startswith("."))


def test_the_test_of_it_brings_up_all_and_kills_each_server_once() -> None:
    assert {*SERVICES, "feed"} == set(SERVERS)
    assert sorted(name for blow in BLOWS for name in blow.services) == sorted(set(SERVERS) - ONCE)


def test_the_build_sees_nothing_but_what_is_named() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    named = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }

    assert next(line for line in lines if not line.startswith("#")) == "*"
    assert {source.partition("/")[0] for source in copied} == named


def test_no_build_leaves_a_secret_in_an_image() -> None:
    assert not re.search(r"PASSWORD|SECRET|TOKEN|http[s]?://", DOCKERFILE)
    assert "args" not in yaml.safe_dump({name: each.get("build") for name, each in SERVERS.items()})


@pytest.mark.parametrize(
    ("health", "trouble"),
    [
        ({"kafka": "healthy", "init": "ended"}, []),
        ({"kafka": "starting", "init": "ended"}, ["kafka starting"]),
        ({"kafka": "healthy", "init": "ended with 1"}, ["init ended with 1"]),
        ({"init": "ended"}, ["kafka missing"]),
    ],
)
def test_what_is_not_well_is_named(health: dict[str, str], trouble: list[str]) -> None:
    assert unwell(health, ["kafka", "init"]) == trouble
