"""YARN: one resource manager and one node manager, for jobs on a cluster. Only their tests need it."""

import http.client
import json
import os
import urllib.request
from xml.sax.saxutils import escape

from stack import maven, needs, server, state
from stack.places import STATE, VENV
from stack.ports import HOST, free

NAME = "yarn"
MEMORY = 3.0
"""Memory (GiB) of both managers and of what the tests run on them."""
HOME = STATE / NAME
CONF = HOME / "conf"
_PACKAGE = "org.apache.hadoop.yarn.server"
_RESOURCE_MANAGER = f"{_PACKAGE}.resourcemanager.ResourceManager"
_NODE_MANAGER = f"{_PACKAGE}.nodemanager.NodeManager"
_CONTAINERS_MB = 3072


def prepare() -> None:
    """Prepare Java and the jars."""
    needs.java()
    maven.fetch(NAME)


def answers(entry: state.Entry) -> str:
    """Ask the resource manager for its nodes; return an error message, or an empty string."""
    try:
        with urllib.request.urlopen(f"{entry['web']}/ws/v1/cluster/metrics", timeout=5) as reply:
            active = json.load(reply)["clusterMetrics"]["activeNodes"]
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        return f"no answer at {entry['web']} ({getattr(error, 'reason', error)})"
    return "" if active else "no node manager yet"


def start() -> None:
    """Start both managers, and wait until containers can run."""
    given: list[int] = []
    for preferred in (8032, 8030, 8031, 8033, 8088):
        given.append(free(preferred, besides=given))
    _configure(*given)
    java = [
        needs.java(),
        "--add-opens=java.base/java.lang=ALL-UNNAMED",
        "-Xmx256m",
        "-cp",
        f"{CONF}:{maven.fetch(NAME)}/*",
    ]
    # Containers inherit these variables from the node manager: see env-whitelist.
    env = {**os.environ, "PYSPARK_PYTHON": str(VENV / "bin" / "python")}
    entry: state.Entry = {"web": f"http://{HOST}:{given[-1]}", "conf": str(CONF)}
    server.launch(NAME, [*java, _RESOURCE_MANAGER], entry, cwd=HOME)
    server.launch(NAME, [*java, _NODE_MANAGER], entry, name="yarn-node", env=env, cwd=HOME)
    server.wait(NAME, entry, lambda: answers(entry), limit=server.LIMIT)


def _configure(client: int, scheduler: int, tracker: int, admin: int, web: int) -> None:
    site = {
        "yarn.resourcemanager.hostname": HOST,
        "yarn.resourcemanager.bind-host": HOST,
        "yarn.resourcemanager.address": f"{HOST}:{client}",
        "yarn.resourcemanager.scheduler.address": f"{HOST}:{scheduler}",
        "yarn.resourcemanager.resource-tracker.address": f"{HOST}:{tracker}",
        "yarn.resourcemanager.admin.address": f"{HOST}:{admin}",
        "yarn.resourcemanager.webapp.address": f"{HOST}:{web}",
        "yarn.nodemanager.hostname": HOST,
        "yarn.nodemanager.address": f"{HOST}:0",
        "yarn.nodemanager.localizer.address": f"{HOST}:0",
        "yarn.nodemanager.collector-service.address": f"{HOST}:0",
        "yarn.nodemanager.webapp.address": f"{HOST}:0",
        "yarn.nodemanager.local-dirs": HOME / "local",
        "yarn.nodemanager.log-dirs": HOME / "containers",
        "yarn.nodemanager.env-whitelist": "JAVA_HOME,PATH,PYSPARK_PYTHON",
        "yarn.nodemanager.resource.memory-mb": _CONTAINERS_MB,
        "yarn.nodemanager.resource.cpu-vcores": 8,
        "yarn.nodemanager.vmem-check-enabled": "false",
        "yarn.resourcemanager.nodemanagers.heartbeat-interval-ms": 200,
        "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": "99.9",
        "yarn.scheduler.minimum-allocation-mb": 128,
        "yarn.scheduler.maximum-allocation-mb": _CONTAINERS_MB,
        # Nothing outlives the servers: applications of an earlier start are not recovered.
        "yarn.resourcemanager.recovery.enabled": "false",
    }
    queues = {
        "yarn.scheduler.capacity.root.queues": "default",
        "yarn.scheduler.capacity.root.default.capacity": 100,
        # Application masters may use all memory, so that several small tests fit on one small node.
        "yarn.scheduler.capacity.maximum-am-resource-percent": "1.0",
    }
    core = {"fs.defaultFS": "file:///", "hadoop.tmp.dir": HOME / "tmp", "hadoop.http.staticuser.user": "stack"}
    CONF.mkdir(parents=True, exist_ok=True)
    for name, settings in (("core-site", core), ("yarn-site", site), ("capacity-scheduler", queues)):
        rows = (
            f"  <property><name>{key}</name><value>{escape(str(value))}</value></property>"
            for key, value in settings.items()
        )
        text = "\n".join(['<?xml version="1.0"?>', "<configuration>", *rows, "</configuration>", ""])
        (CONF / f"{name}.xml").write_text(text, encoding="utf-8")
