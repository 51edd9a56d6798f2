"""What is left of an application on YARN. Unknown does not mean stopped, and only what bears the tag is killed.

The answers are those of Hadoop 3.4.1, shortened; ``tests/e2e/test_yarn.py`` asks a real cluster.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from airflow_provider_offsets.backends.yarn import kill_on_yarn, left_on_yarn
from airflow_provider_offsets.core.epoch import YarnApplication

TAG = "offsets-4711"
APPLICATION = "application_1700000000000_0007"
CONTAINER = "container_1700000000000_0007_01_000002"
NODE = {"id": "node-1:40000", "state": "RUNNING", "lastHealthUpdate": 2000}


def application(state: str, *, tags: str = TAG, number: int = 7) -> dict[str, Any]:
    found = {"id": f"application_1700000000000_{number:04d}", "state": state, "applicationTags": tags}
    return {**found, "startedTime": 1000}


@dataclass
class Cluster:
    """A ResourceManager and its NodeManagers, behind one address."""

    applications: list[dict[str, Any]] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=lambda: [NODE])
    containers: list[dict[str, str]] = field(default_factory=list)
    says: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """Other answers, by the end of the path."""
    killed: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def known(self) -> YarnApplication:
        return YarnApplication(self.url, TAG)

    def answer(self, path: str) -> tuple[int, bytes]:
        for end, answer in self.says.items():
            if path.endswith(end):
                return answer
        # For an empty list Hadoop returns an empty object, and older releases null.
        found: dict[str, Any] = {
            "/ws/v1/cluster/apps": {"apps": {"app": self.applications} if self.applications else {}},
            "/ws/v1/cluster/nodes": {
                "nodes": {"node": [{"nodeHTTPAddress": self.url.partition("//")[2], **node} for node in self.nodes]}
            },
            "/ws/v1/node/containers": {"containers": {"container": self.containers} if self.containers else None},
        }
        return 200, json.dumps(found[path]).encode()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(*made.answer(self.path.partition("?")[0]))

        def do_PUT(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert body == {"state": "KILLED"}
            status, text = made.says.get("/state", (202, b'{"state": "KILLING"}'))
            if status == 202:
                made.killed.append(self.path.split("/")[-2])
            self.reply(status, text)

        def reply(self, status: int, text: bytes) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *words: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=lambda: server.serve_forever(0.01), daemon=True).start()
        yield made
        server.shutdown()


def test_one_that_was_never_submitted_has_left_nothing(cluster: Cluster) -> None:
    assert left_on_yarn(cluster.known) == ""
    cluster.says = {"/apps": (200, b'{"apps": null}')}
    assert left_on_yarn(cluster.known) == ""


@pytest.mark.parametrize("state", ["NEW", "SUBMITTED", "ACCEPTED", "RUNNING"])
def test_one_that_goes_on_is_left(state: str, cluster: Cluster) -> None:
    cluster.applications = [application(state)]

    assert left_on_yarn(cluster.known) == f"{APPLICATION} is {state} on YARN"


@pytest.mark.parametrize("state", ["FINISHED", "FAILED", "KILLED"])
@pytest.mark.parametrize(
    ("why", "containers", "left"),
    [
        ("nothing runs", [], ""),
        ("over before its containers", [(CONTAINER, "RUNNING")], f"{CONTAINER} is RUNNING on node-1:40000"),
        ("being killed", [(CONTAINER, "KILLING")], f"{CONTAINER} is KILLING on node-1:40000"),
        ("not started yet", [(CONTAINER, "LOCALIZING")], f"{CONTAINER} is LOCALIZING on node-1:40000"),
        ("its process is gone, the node still knows it", [(CONTAINER, "DONE")], ""),
        ("another's", [(CONTAINER.replace("_0007_", "_0008_"), "RUNNING")], ""),
        (
            "after a restart of the ResourceManager",
            [("container_e17_1700000000000_0007_01_000002", "RUNNING")],
            "container_e17_1700000000000_0007_01_000002 is RUNNING on node-1:40000",
        ),
    ],
)
def test_its_containers_count_until_they_are_gone(
    why: str, containers: list[tuple[str, str]], left: str, state: str, cluster: Cluster
) -> None:
    cluster.applications = [application(state)]
    cluster.containers = [{"id": name, "state": each} for name, each in containers]

    assert left_on_yarn(cluster.known) == left


@pytest.mark.parametrize(
    ("why", "state", "seen_at", "is_left"),
    [
        ("lost with it: nobody can ask", "LOST", 2000, True),
        ("gone before it began", "LOST", 999, False),
        ("it ended its containers before it left", "DECOMMISSIONED", 2000, False),
        ("it ended its containers before it left", "SHUTDOWN", 2000, False),
        ("it leaves slowly, and is asked", "DECOMMISSIONING", 2000, True),
        ("it takes no new ones, and is asked", "UNHEALTHY", 2000, True),
    ],
)
def test_a_node_that_does_not_run_as_it_should(
    why: str, state: str, seen_at: int, is_left: bool, cluster: Cluster
) -> None:
    cluster.applications = [application("KILLED")]
    cluster.containers = [{"id": CONTAINER, "state": "RUNNING"}]
    cluster.nodes = [{**NODE, "state": state, "lastHealthUpdate": seen_at}]

    assert bool(left_on_yarn(cluster.known)) is is_left


@pytest.mark.parametrize(
    ("why", "path", "answer"),
    [
        ("the ResourceManager fails", "/apps", (500, b"")),
        ("it wants a login", "/apps", (401, b"")),
        ("a page of somebody else", "/apps", (200, b"<html>")),
        ("JSON of somebody else", "/apps", (200, b"[]")),
        ("JSON without applications", "/apps", (200, b"{}")),
        ("an application without a state", "/apps", (200, b'{"apps":{"app":[{"applicationTags":"offsets-4711"}]}}')),
        ("the nodes are not told", "/nodes", (403, b"")),
        ("a node fails", "/containers", (500, b"")),
        ("a node is somebody else", "/containers", (200, b"<html>")),
    ],
)
def test_what_does_not_answer_is_unknown_and_never_gone(
    why: str, path: str, answer: tuple[int, bytes], cluster: Cluster
) -> None:
    cluster.applications = [application("KILLED")]
    cluster.says = {path: answer}

    assert left_on_yarn(cluster.known).startswith(f"unknown: YARN at {cluster.url} gave no answer (")


def test_nobody_there_is_unknown() -> None:
    nobody = YarnApplication("http://127.0.0.1:9", TAG)

    assert left_on_yarn(nobody).startswith("unknown: YARN at http://127.0.0.1:9 gave no answer (ConnectError")
    assert kill_on_yarn(nobody).startswith("YARN at http://127.0.0.1:9 gave no answer (ConnectError")


def test_only_what_bears_the_very_tag_is_killed_and_only_while_it_goes_on(cluster: Cluster) -> None:
    cluster.applications = [
        application("RUNNING", tags=f"etl,{TAG}"),
        application("RUNNING", tags=f"{TAG}1", number=8),
        application("KILLED", number=9),
    ]

    assert kill_on_yarn(cluster.known) == ""
    assert cluster.killed == [APPLICATION]


def test_a_kill_that_is_refused_is_said(cluster: Cluster) -> None:
    cluster.applications = [application("RUNNING")]
    cluster.says = {"/state": (403, b"")}

    assert "403" in kill_on_yarn(cluster.known)
    assert cluster.killed == []
