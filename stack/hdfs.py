"""HDFS: one name node and one data node with WebHDFS. Only the tests of checkpoints need it."""

import http.client
import json
import shutil
import subprocess
import urllib.request
from xml.sax.saxutils import escape

from stack import maven, needs, server, state
from stack.places import STATE, log_of, shown
from stack.ports import HOST, free
from stack.problem import Problem
from stack.process import last_lines

NAME = "hdfs"
MEMORY = 0.5
HOME = STATE / NAME
CONF = HOME / "conf"
NAMES = HOME / "names"
_NAME_NODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
_DATA_NODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"


def prepare() -> None:
    """Prepare Java and the jars."""
    needs.java()
    maven.fetch(NAME)


def answers(entry: state.Entry) -> str:
    """Ask the name node whether it accepts writes; return an error message, or an empty string."""
    url = f"http://{entry['webhdfs']}/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState"
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            [found] = json.load(reply)["beans"] or [{}]
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"no answer at {entry['webhdfs']} ({getattr(error, 'reason', error)})"
    if found.get("FSState") != "Operational":
        return "it is in safe mode"
    return "" if found.get("NumLiveDataNodes") else "no data node yet"


def start() -> None:
    """Start both nodes, and wait until they accept writes."""
    rpc = free(8020)
    web = free(9870, besides=[rpc])
    _configure(rpc=rpc, web=web)
    java = [
        needs.java(),
        "--add-opens=java.base/java.lang=ALL-UNNAMED",
        "-Xmx256m",
        "-cp",
        f"{CONF}:{maven.fetch(NAME)}/*",
    ]
    if not (NAMES / "current").exists():
        _format([*java, _NAME_NODE, "-format", "-nonInteractive"])
    entry: state.Entry = {"hdfs": f"{HOST}:{rpc}", "webhdfs": f"{HOST}:{web}"}
    server.launch(NAME, [*java, _NAME_NODE], entry, cwd=HOME)
    server.launch(NAME, [*java, _DATA_NODE], entry, name="hdfs-data", cwd=HOME)
    server.wait(NAME, entry, lambda: answers(entry), limit=server.LIMIT)


def _configure(*, rpc: int, web: int) -> None:
    settings = {
        "fs.defaultFS": f"hdfs://{HOST}:{rpc}",
        "hadoop.tmp.dir": HOME / "tmp",
        "dfs.replication": 1,
        "dfs.namenode.name.dir": NAMES.as_uri(),
        "dfs.datanode.data.dir": (HOME / "data").as_uri(),
        "dfs.namenode.http-address": f"{HOST}:{web}",
        "dfs.namenode.safemode.extension": 0,
        "dfs.datanode.address": f"{HOST}:0",
        "dfs.datanode.http.address": f"{HOST}:0",
        "dfs.datanode.ipc.address": f"{HOST}:0",
        "dfs.datanode.hostname": HOST,
    }
    rows = (
        f"  <property><name>{name}</name><value>{escape(str(value))}</value></property>"
        for name, value in settings.items()
    )
    text = "\n".join(['<?xml version="1.0"?>', "<configuration>", *rows, "</configuration>", ""])
    for page in ("hdfs", "datanode"):
        # Both nodes require the directory of their web pages, which the jars do not contain.
        (CONF / "webapps" / page).mkdir(parents=True, exist_ok=True)
    for name in ("core-site.xml", "hdfs-site.xml"):
        (CONF / name).write_text(text, encoding="utf-8")


def _format(argv: list[str]) -> None:
    shutil.rmtree(NAMES, ignore_errors=True)
    shutil.rmtree(HOME / "data", ignore_errors=True)
    log = log_of("hdfs-format")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        ended = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, check=False)
    if ended.returncode != 0:
        raise Problem(
            f"formatting the name node ended with code {ended.returncode}",
            expected="code 0",
            do=f"read {shown(log)}",
            detail=last_lines(log),
        )
