"""Airflow: ``airflow standalone`` with this checkout's DAGs and with connections to the other servers."""

import http.client
import json
import os
import shlex
import urllib.request
from collections.abc import Mapping

from stack import maven, needs, server, state, venv
from stack.places import ROOT, STATE, VENV
from stack.ports import HOST, free
from stack.problem import Problem
from stack.report import say

NAME = "airflow"
MEMORY = 2.5
HOME = STATE / NAME
STORES = ("sqlite", "hbase")
_CONNECTION = "AIRFLOW_CONN_"
_PARTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


def prepare() -> None:
    """Prepare the virtual environment, and what its spark-submit needs."""
    venv.ready()
    needs.java()
    maven.fetch("spark")


def answers(entry: state.Entry) -> str:
    """Return which parts of Airflow are not healthy, or an empty string."""
    try:
        with urllib.request.urlopen(f"{entry['url']}/api/v2/monitor/health", timeout=30) as reply:
            health = json.load(reply)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"no answer at {entry['url']} ({getattr(error, 'reason', error)})"
    ill = [part for part in _PARTS if (health.get(part) or {}).get("status") != "healthy"]
    return f"not healthy yet: {', '.join(ill)}" if ill else ""


def fits(entry: state.Entry, *, store: str) -> bool:
    """Return whether the running Airflow has the connections that are needed now."""
    has = {name: value for name, value in entry["env"].items() if name.startswith(_CONNECTION)}
    return has == _connections(store=store)


def start(*, store: str) -> None:
    """Start Airflow and wait until all of its parts are healthy."""
    api = free(8080)
    worker_logs = free(8793, besides=[api])
    trigger_logs = free(8794, besides=[api, worker_logs])
    url = f"http://{HOST}:{api}"
    settings = _settings(url=url, api=api, worker_logs=worker_logs, trigger_logs=trigger_logs)
    env = settings | _connections(store=store) | {"KAFKA_BOOTSTRAP_SERVERS": _bootstrap(state.endpoints())}
    HOME.mkdir(parents=True, exist_ok=True)
    _write_env(env)
    entry: state.Entry = {"url": url, "home": str(HOME), "store": store, "env": env}
    argv = [str(VENV / "bin" / "airflow"), "standalone"]
    server.launch(NAME, argv, entry, env=_inherited() | env, cwd=ROOT)
    server.wait(NAME, entry, lambda: answers(entry), limit=server.LIMIT)
    say(NAME, f"its command line: . {(HOME / 'env').relative_to(ROOT)} && airflow dags list")


def _settings(*, url: str, api: int, worker_logs: int, trigger_logs: int) -> dict[str, str]:
    """Return what differs from Airflow's defaults: one possibly busy machine with two cores, and short intervals."""
    options = {
        "core.dags_folder": ROOT / "dags",
        "core.load_examples": False,
        "core.parallelism": 8,
        "core.execution_api_server_url": f"{url}/execution/",
        "core.simple_auth_manager_all_admins": True,  # bound to the loopback interface only
        "api.host": HOST,
        "api.port": api,
        "api.base_url": url,
        "api.workers": 1,
        "dag_processor.refresh_interval": 5,
        "dag_processor.parsing_processes": 1,
        # On a busy machine, SQLite, a DAG file, a heartbeat or a task's answer may take longer than Airflow's
        # defaults.
        "database.sql_alchemy_conn": f"sqlite:///{HOME / 'airflow.db'}?timeout=60",
        "core.dagbag_import_timeout": 300,
        "dag_processor.dag_file_processor_timeout": 300,
        "dag_processor.stale_dag_threshold": 600,
        "dag_processor.health_check_threshold": 120,
        "scheduler.scheduler_health_check_threshold": 120,
        "triggerer.triggerer_health_check_threshold": 120,
        "triggerer.runner_health_check_threshold": 120,
        "workers.execution_api_timeout": 60,
        "scheduler.scheduler_heartbeat_sec": 1,
        "scheduler.scheduler_idle_sleep_time": 0.2,
        "logging.worker_log_server_port": worker_logs,
        "logging.trigger_log_server_port": trigger_logs,
        "usage_data_collection.enabled": False,
    }
    named = {f"AIRFLOW__{key.replace('.', '__').upper()}": str(value) for key, value in options.items()}
    path = os.pathsep.join([str(VENV / "bin"), os.environ.get("PATH", os.defpath)])
    return {"AIRFLOW_HOME": str(HOME), "PATH": path} | named


def _connections(*, store: str) -> dict[str, str]:
    """Return the connections as environment variables, without those that the caller's environment sets."""
    up = state.endpoints()
    ours = {
        "KAFKA_DEFAULT": {"conn_type": "kafka", "extra": {"bootstrap.servers": _bootstrap(up)}},
        "SPARK_DEFAULT": {"conn_type": "spark", "host": "local[2]"},
        "OFFSETS_DEFAULT": _offsets_connection(_store_url(store, up)),
        "DELAY_ALERTS_OUTPUT": {"conn_type": "sqlite", "host": str(STATE / "demo" / "output.db")},
    }
    named = {f"{_CONNECTION}{name}": json.dumps(value) for name, value in ours.items()}
    return {name: value for name, value in named.items() if name not in os.environ}


def _bootstrap(up: Mapping[str, state.Entry]) -> str:
    return str(up["kafka"]["bootstrap_servers"]) if "kafka" in up else f"{HOST}:9092"


def _offsets_connection(url: str) -> dict[str, object]:
    """Return a connection of type ``offsets`` for a store URL."""
    return {"conn_type": "offsets", "extra": {"url": url}}


def _store_url(store: str, up: Mapping[str, state.Entry]) -> str:
    if store == "sqlite":
        return f"sqlite:///{STATE / 'offsets.db'}"
    if "hbase" not in up:
        raise Problem(
            "--store hbase was given, and HBase is not up",
            expected="a running HBase",
            do="run: python3 -m stack up hbase airflow --store hbase",
        )
    return f"hbase://{up['hbase']['thrift']}/stream_offsets"


def _inherited() -> dict[str, str]:
    """Return the caller's environment without variables that select another Airflow."""
    return {
        name: value for name, value in os.environ.items() if name not in {"AIRFLOW_HOME", "PYTHONHOME", "VIRTUAL_ENV"}
    }


def _write_env(env: Mapping[str, str]) -> None:
    """Write the settings to a file that a shell can source for the ``airflow`` command."""
    search = f'export PATH={shlex.quote(str(VENV / "bin"))}:"$PATH"'
    lines = [f"export {name}={shlex.quote(value)}" for name, value in env.items() if name != "PATH"]
    (HOME / "env").write_text("\n".join([*lines, search, ""]), encoding="utf-8")
