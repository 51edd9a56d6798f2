"""``airflow offsets …`` as a person runs it, and Kafka's own tool, which writes and reads the same files.

A start of ``airflow`` takes seconds, so few commands run as processes; the others are called as functions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import happybase
import pytest
from airflow.cli.cli_config import ActionCommand, GroupCommand
from confluent_kafka import ConsumerGroupTopicPartitions, Producer
from confluent_kafka import TopicPartition as Asked
from confluent_kafka.admin import AdminClient, NewTopic
from kazoo.client import KazooClient

import stack
from airflow_provider_offsets.cli import acts
from airflow_provider_offsets.cli.commands import offsets_commands
from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.kafka.calls import open_clients
from airflow_provider_offsets.kafka.reader import KafkaReader
from airflow_provider_offsets.stores import open_positions, open_store
from tests.integration.kafka_tool import kafka_consumer_groups
from tests.integration.postgres_server import new_database, running_postgres
from tests.integration.recorded_job import record_one_batch

DEADLINE_S = 300
RECORDS = 4
"""Records in each partition: the greatest offset that a group of these tests may have."""


def endpoint(server: str, key: str) -> str:
    """Return an endpoint of the local stack. Without it the test fails in CI and is skipped elsewhere."""
    found = stack.endpoints().get(server)
    if found is None:
        words = f"{server} is not up: python3 -m stack up {server}"
        pytest.fail(words, pytrace=False) if os.environ.get("CI") else pytest.skip(words)
    return str(found[key])


@pytest.fixture(scope="module")
def servers() -> str:
    return endpoint("kafka", "bootstrap_servers")


@pytest.fixture
def make_topic(servers: str) -> Iterator[Callable[[int], str]]:
    """Yield a function that creates a topic with some records in each partition. It is deleted with its groups."""
    admin, made = AdminClient({"bootstrap.servers": servers}), []

    def make(partitions: int) -> str:
        name = f"cli-{uuid.uuid4().hex[:10]}"
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result(DEADLINE_S)
        made.append(name)
        producer = Producer({"bootstrap.servers": servers, "linger.ms": 20})
        for partition in range(partitions):
            for _ in range(RECORDS):
                producer.produce(name, b"x", partition=partition)
            producer.poll(0)
        assert producer.flush(DEADLINE_S) == 0
        return name

    yield make
    for future in admin.delete_topics(made).values() if made else ():
        future.result(DEADLINE_S)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: str) -> Path:
    """Return a folder that is Airflow's home, with connections to Kafka and to a SQLite store."""
    url = f"sqlite:///{tmp_path}/offsets.db"
    store = open_store(url)
    store.create()
    store.close()
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    kafka = {"conn_type": "kafka", "extra": {"bootstrap.servers": servers}}
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps(kafka))
    monkeypatch.setenv("AIRFLOW_CONN_OFFSETS_DEFAULT", json.dumps({"conn_type": "offsets", "extra": {"url": url}}))
    return tmp_path


@pytest.fixture
def hbase_table() -> Iterator[str]:
    """Yield the URL of a store in HBase, and drop its tables afterwards."""
    thrift, name = endpoint("hbase", "thrift"), f"cli_{uuid.uuid4().hex[:10]}"
    url = f"hbase://{thrift}/{name}"
    store = open_store(url)
    store.create()
    store.close()
    yield url
    host, _, port = thrift.partition(":")
    connection = happybase.Connection(host, int(port))
    for table in connection.tables():
        if table.decode().startswith(name):
            connection.delete_table(table, disable=True)
    connection.close()


@pytest.fixture
def postgres() -> Iterator[str]:
    """Yield the URL of a store in a PostgreSQL that stops with the test."""
    with running_postgres() as server:
        url = new_database(server)
        store = open_store(url)
        store.create()
        store.close()
        yield url


@pytest.fixture
def zookeeper() -> Iterator[str]:
    """Yield the URL of a chroot in ZooKeeper, and remove it afterwards."""
    servers, name = endpoint("hbase", "zookeeper"), f"cli_{uuid.uuid4().hex[:10]}"
    client = KazooClient(servers)
    client.start(DEADLINE_S)
    client.create(f"/{name}")
    yield f"zookeeper://{servers}/{name}"
    client.delete(f"/{name}", recursive=True)
    client.stop()
    client.close()


def airflow(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run Airflow's own command."""
    command = [str(Path(sys.executable).with_name("airflow")), "offsets", *words]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def options() -> dict[str, Any]:
    """Return the options of all commands, as the parser leaves them if none is given."""
    [group] = offsets_commands()
    assert isinstance(group, GroupCommand)
    commands = [each for each in group.subcommands if isinstance(each, ActionCommand)]
    found = {}
    for arg in (arg for command in commands for arg in command.args):
        name = arg.kwargs.get("dest") or arg.flags[-1].lstrip("-").replace("-", "_")
        found[name] = arg.kwargs.get("default", False if arg.kwargs.get("action") == "store_true" else None)
    return found


def call(act: Callable[[Namespace], None], capsys: pytest.CaptureFixture[str], **given: Any) -> tuple[int, str, str]:
    """Call a command with these arguments; return its exit code and its output."""
    args = Namespace(**{**options(), "output": "json", **given})
    capsys.readouterr()
    code = 0
    try:
        act(args)
    except SystemExit as ended:
        code = int(ended.code or 0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def commit(servers: str, group: str, position: Position) -> None:
    request = ConsumerGroupTopicPartitions(group, [Asked(*key, offset) for key, offset in position.items()])
    # Bound to a name: a client that is garbage-collected during its call never answers.
    admin = AdminClient({"bootstrap.servers": servers})
    answer = admin.alter_consumer_group_offsets([request])[group].result(DEADLINE_S)
    assert [each for each in answer.topic_partitions if each.error is not None] == []


def committed(servers: str, group: str, topic: str) -> str:
    """Return the committed offsets as CSV from Kafka's own tool."""
    words = ("--reset-offsets", "--to-current", "--dry-run", "--export", "--group", group, "--topic", topic)
    return kafka_consumer_groups(servers, *words)


def numbered(topic: str, *offsets: int) -> Position:
    return Position({TopicPartition(topic, number): offset for number, offset in enumerate(offsets)})


def rows_of(printed: str) -> set[str]:
    return {line.replace('"', "") for line in printed.splitlines() if line}


def test_a_copy_is_shown_then_made_and_checked_by_kafka_s_own_tool(
    home: Path, servers: str, make_topic: Callable[[int], str]
) -> None:
    """Each step is a process of its own, as a person would run it."""
    topic = make_topic(3)
    commit(servers, "old", numbered(topic, 3, 0, 1))
    words = ("copy", "--from", "kafka_default", "--to", "offsets_default", "--group", "old", "--topics", topic)

    shown = airflow(*words)
    made = airflow(*words, "--apply", "-o", "json")
    exported = airflow("export", "--from", "offsets_default", "--group", "old", "--topics", topic)
    stdin = airflow("import", "-", "--to", "kafka:kafka_default", "--group", "new", "--apply", stdin=exported.stdout)

    assert (shown.returncode, made.returncode, exported.returncode, stdin.returncode) == (0, 0, 0, 0), shown.stderr
    assert "Nothing was written: this is a dry run." in shown.stdout
    [written] = json.loads(made.stdout)
    assert (written["written"], written["changed"], len(written["rows"])) == (True, 3, 3)
    assert exported.stdout == f"{topic},0,3\n{topic},1,0\n{topic},2,1\n"
    assert rows_of(committed(servers, "new", topic)) == rows_of(exported.stdout)


def test_the_help_and_a_wrong_call(home: Path) -> None:
    help_, wrong = airflow("--help"), airflow("copy", "--from", "nowhere", "--to", "offsets_default", "-g", "g")

    assert help_.returncode == 0
    assert all(name in help_.stdout for name in ("compare", "plan", "audit", "copy", "export", "import"))
    assert wrong.returncode == 2
    assert "Expected --pipeline, or --group and --topics" in wrong.stderr
    assert "Traceback" not in wrong.stderr


PIPELINE = """\
pipelines:
  demo:
    tracked: false
    topics: [{topic}]
    group_id: {group}
    offsets_in: [zookeeper_default, kafka_default]
    job: {{application: job.jar, main_class: Job, log_dir: logs}}
    stop: {{signal_timeout_s: 10}}
"""


def test_stores_that_disagree_are_distinguished_from_stores_that_agree(
    home: Path,
    servers: str,
    zookeeper: str,
    make_topic: Callable[[int], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    topic, group = make_topic(2), f"compare:{uuid.uuid4().hex[:8]}"
    connection = {"conn_type": "offsets", "extra": {"url": zookeeper}}
    monkeypatch.setenv("AIRFLOW_CONN_ZOOKEEPER_DEFAULT", json.dumps(connection))
    (home / "pipelines.yaml").write_text(PIPELINE.format(topic=topic, group=group))
    put(zookeeper, group, numbered(topic, 3, 1))
    commit(servers, group, numbered(topic, 3, 1))

    agreed = call(acts.compare_offsets, capsys, pipeline="demo")
    commit(servers, group, numbered(topic, 4, 1))
    conflict = airflow("compare", "--pipeline", "demo")

    assert agreed[0] == 0, agreed
    found = json.loads(agreed[1])
    assert (found["authoritative"], {row["agreement"] for row in found["rows"]}) == ("zookeeper_default", {"agree"})
    assert found["rows"][0]["offsets"] == {"zookeeper_default": 3, "kafka_default": 3}
    assert conflict.returncode == 1, conflict.stderr
    assert "kafka_default is 1 ahead" in conflict.stdout
    assert "stores contradict each other" in conflict.stderr


def test_snapshots_are_taken_listed_and_pruned(
    home: Path, make_topic: Callable[[int], str], hbase_table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cells are in HBase, where nothing is deleted: a removed snapshot is marked as removed."""
    topic = make_topic(2)
    store = {"conn_type": "offsets", "extra": {"url": hbase_table}}
    monkeypatch.setenv("AIRFLOW_CONN_OFFSETS_DEFAULT", json.dumps(store))
    job = f"{{application: a.py, checkpoint: {home}/checkpoint}}"
    (home / "pipelines.yaml").write_text(
        f"pipelines:\n  demo:\n    topics: [{topic}]\n    keep: {{snapshots: 1}}\n    job: {job}\n"
    )
    of = ("--pipeline", "demo", "-o", "json")

    taken = [json.loads(airflow("snapshots", "take", *of).stdout) for _ in range(2)]
    named = json.loads(airflow("snapshots", "take", *of, "--label", "good", "--reason", "upgrade").stdout)
    again = airflow("snapshots", "take", *of, "--label", "good")
    pruned = json.loads(airflow("snapshots", "prune", *of, "--apply").stdout)
    left = json.loads(airflow("snapshots", "list", *of).stdout)

    assert again.returncode == 2
    assert f"Label 'good' already belongs to snapshot {named['id']!r}" in again.stderr
    assert pruned["removed"]["snapshots"] == [each["id"] for each in taken]
    assert [(each["id"], each["label"], each["reason"]) for each in left] == [(named["id"], "good", "upgrade")]


def put(url: str, group: str, position: Position) -> None:
    store = open_positions(url)
    store.write(Stream(group, position.topics), position, expected=None)
    store.close()


@pytest.mark.parametrize("partitions", [3, 1_000])
def test_through_every_store_and_back(
    partitions: int,
    home: Path,
    servers: str,
    hbase_table: str,
    zookeeper: str,
    make_topic: Callable[[int], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    topic, group = make_topic(partitions), f"round:trip:{uuid.uuid4().hex[:8]}"
    position = numbered(topic, *(number % (RECORDS + 1) for number in range(partitions)))
    put(zookeeper, group, position)
    stops = [zookeeper, hbase_table, "kafka_default", f"checkpoint:{home}/checkpoint", "offsets_default"]

    for source, target in pairwise(stops):
        words = {"source": source, "target": target, "group": group, "topics": topic}
        assert call(acts.copy_offsets, capsys, **words)[0] == 0
        assert open_and_look(target, group, topic) is None, "a dry run writes nothing"
        assert call(acts.copy_offsets, capsys, **words, apply=True)[0] == 0
        assert open_and_look(target, group, topic) == position
        code, printed, _ = call(acts.copy_offsets, capsys, **words, apply=True)
        assert (code, json.loads(printed)[0]["changed"]) == (0, 0), "done again, it changes nothing"

    last = {"source": stops[-1], "target": zookeeper, "group": group, "topics": topic, "to_group": f"{group}:new"}
    assert call(acts.copy_offsets, capsys, **last, apply=True, kafka_conn_id="kafka_default")[0] == 0
    assert open_and_look(zookeeper, f"{group}:new", topic) == position


def open_and_look(name: str, group: str, topic: str) -> Position | None:
    from airflow_provider_offsets.cli.naming import opened

    with opened(name) as store:
        return store.position(Stream(group, (topic,)))


def test_going_forward_is_refused_unless_accepted_by_count(
    home: Path, servers: str, make_topic: Callable[[int], str], capsys: pytest.CaptureFixture[str]
) -> None:
    topic = make_topic(2)
    commit(servers, "ahead", numbered(topic, 4, 4))
    commit(servers, "behind", numbered(topic, 1, 4))
    words: dict[str, Any] = {
        "source": "kafka_default", "target": "kafka_default", "group": "ahead", "to_group": "behind", "topics": topic,
    }  # fmt: skip

    refused = call(acts.copy_offsets, capsys, **words, apply=True)
    after_refusal = open_and_look("kafka_default", "behind", topic)
    accepted = call(acts.copy_offsets, capsys, **words, apply=True, accept_skipped=[f"{topic}=3"])

    assert (refused[0], accepted[0]) == (1, 0)
    assert f"To accept them, add '--accept-skipped {topic}=3'" in refused[2]
    assert json.loads(refused[1])[0]["written"] is False
    assert after_refusal == numbered(topic, 1, 4)
    assert open_and_look("kafka_default", "behind", topic) == numbered(topic, 4, 4)


def test_files_of_kafka_s_own_tool_are_read_and_ours_are_read_by_it(
    home: Path, servers: str, make_topic: Callable[[int], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The form for many groups, with group ids that CSV must quote.

    The first test covers the other form.
    """
    topic = make_topic(2)
    odd, plain = f'a,"b" {uuid.uuid4().hex[:6]}', f"a-group-id-that-is-longer-than-24-{uuid.uuid4().hex[:6]}"
    commit(servers, odd, numbered(topic, 3, 0))
    commit(servers, plain, numbered(topic, 1, 2))
    both: Sequence[str] = ("--group", odd, "--group", plain, "--topic", topic)

    theirs = home / "theirs.csv"
    current = ("--reset-offsets", "--to-current", "--dry-run", "--export")
    theirs.write_text(kafka_consumer_groups(servers, *current, *both))
    code, ours, _ = call(
        acts.export_offsets, capsys, source="kafka_default", groups=[odd, plain], topics=topic, output="csv"
    )
    assert code == 0
    into = call(acts.import_offsets, capsys, input=str(theirs), target="offsets_default", apply=True)
    assert into[0] == 0, into
    assert open_and_look("offsets_default", odd, topic) == numbered(topic, 3, 0)
    assert open_and_look("offsets_default", plain, topic) == numbered(topic, 1, 2)

    (home / "ours.csv").write_text(ours)
    commit(servers, odd, numbered(topic, 0, 0))
    from_file = ("--reset-offsets", "--from-file", str(home / "ours.csv"), "--execute")
    kafka_consumer_groups(servers, *from_file, *both)

    assert open_and_look("kafka_default", odd, topic) == numbered(topic, 3, 0)


def test_json_says_of_which_topics_the_offsets_are(
    home: Path, servers: str, make_topic: Callable[[int], str], capsys: pytest.CaptureFixture[str]
) -> None:
    topic = make_topic(1)
    commit(servers, "j", numbered(topic, 2))
    code, printed, _ = call(
        acts.export_offsets, capsys, source="kafka_default", groups=["j"], topics=topic, kafka_conn_id="kafka_default"
    )
    assert code == 0
    other = printed.replace(json.loads(printed)["groups"][0]["identity"]["cluster_id"], "another-cluster")
    (home / "good.json").write_text(printed)
    (home / "other.json").write_text(other)
    words = {"target": "offsets_default", "apply": True, "kafka_conn_id": "kafka_default"}

    refused = call(acts.import_offsets, capsys, input=str(home / "other.json"), **words)
    taken = call(acts.import_offsets, capsys, input=str(home / "good.json"), **words)

    assert (refused[0], taken[0]) == (1, 0)
    assert "wrong cluster" in refused[2]
    assert open_and_look("offsets_default", "j", topic) == numbered(topic, 2)


TRACKED = """\
pipelines:
  tracked:
    topics: [{topic}]
    job: {{application: job.py, checkpoint: checkpoint}}
"""


def test_a_plan_and_an_audit_change_nothing(
    home: Path, make_topic: Callable[[int], str], servers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = make_topic(2)
    (home / "pipelines.yaml").write_text(TRACKED.format(topic=topic))
    stream = Stream("tracked", (topic,))
    with open_clients({"bootstrap.servers": servers}) as clients:
        identity = KafkaReader(clients).live_topics([topic]).identity
    with closing(open_store(f"sqlite:///{home}/offsets.db")) as store:
        record_one_batch(store, "tracked", stream, identity, numbered(topic, 3, 1), "checkpoint")
        cells = list(store.scan("tracked", ""))

        sound = call(acts.plan_offsets, capsys, pipeline="tracked", start="duration:P1D | earliest")
        refused = call(acts.plan_offsets, capsys, pipeline="tracked", start="latest")
        skip = {"pipeline": "tracked", "start": "latest", "accept_skipped": [f"{topic}=4"]}
        accepted = call(acts.plan_offsets, capsys, **skip)
        audited = airflow("audit", "--pipeline", "tracked", "-o", "json")

        assert list(store.scan("tracked", "")) == cells
        assert len(list(store.newest_first(stream))) == 1
    assert (sound[0], json.loads(sound[1])["start"], json.loads(sound[1])["replay"]) == (
        0,
        numbered(topic, 0, 0).to_plain(),
        4,
    )
    assert (refused[0], [each["kind"] for each in json.loads(refused[1])["problems"]]) == (1, ["skip"])
    assert "1 problem(s)" in refused[2]
    assert (accepted[0], json.loads(accepted[1])["skipped"]) == (0, 1 + 3)
    assert audited.returncode == 0, audited.stderr
    found = json.loads(audited.stdout)
    assert (found["batches"], found["records"], found["lost"], found["unexplained"]) == (1, 4, 0, 0)


RENAMED = """\
pipelines:
  {name}:
    topics: [{topic}]
    group_id: orders
    job: {{application: job.py, checkpoint: {home}/checkpoint}}
"""


@pytest.mark.parametrize("server", ["hbase_table", "postgres"])
def test_a_renamed_pipeline_goes_on_under_its_new_name_alone(
    server: str,
    home: Path,
    servers: str,
    make_topic: Callable[[int], str],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, topic = request.getfixturevalue(server), make_topic(2)
    monkeypatch.setenv("AIRFLOW_CONN_OFFSETS_DEFAULT", json.dumps({"conn_type": "offsets", "extra": {"url": url}}))

    def named(name: str) -> None:
        (home / "pipelines.yaml").write_text(RENAMED.format(name=name, topic=topic, home=home))

    def audited(name: str) -> tuple[Any, ...]:
        code, printed, error = call(acts.audit_offsets, capsys, pipeline=name)
        assert code == 0, error
        found = json.loads(printed)
        return tuple(found[key] for key in ("batches", "records", "lost", "skipped", "replayed", "unexplained"))

    stream = Stream("orders", (topic,))
    with open_clients({"bootstrap.servers": servers}) as clients:
        identity = KafkaReader(clients).live_topics([topic]).identity
    first, second, third = numbered(topic, 1, 1), numbered(topic, 2, 3), numbered(topic, 3, 4)
    with closing(open_store(url)) as store:
        record_one_batch(store, "orders", stream, identity, first, f"{home}/checkpoint")
        record_one_batch(store, "orders", stream, identity, second, f"{home}/checkpoint", number=2, start=first)
        named("orders")
        taken = airflow("snapshots", "take", "--pipeline", "orders", "--label", "good", "-o", "json")
        assert taken.returncode == 0, taken.stderr
        assert audited("orders") == (2, 5, 0, 0, 0, 0)

        named("sales")
        for act, more in ((acts.plan_offsets, {"start": "committed"}), (acts.audit_offsets, {})):
            code, _, error = call(act, capsys, pipeline="sales", **more)
            assert (code, "run 'airflow offsets rename OLD sales'" in error) == (1, True), error
        shown = airflow("rename", "orders", "sales")
        assert (shown.returncode, list(store.scan("sales", ""))) == (0, []), shown.stderr
        done = airflow("rename", "orders", "sales", "--apply")
        assert done.returncode == 0, done.stderr

        named("orders")
        for act, more in ((acts.plan_offsets, {"start": "committed"}), (acts.audit_offsets, {})):
            code, _, error = call(act, capsys, pipeline="orders", **more)
            assert code == 1
            assert "was renamed to 'sales'" in error, error

        named("sales")
        for start in ("committed", "snapshot:good"):
            code, printed, error = call(acts.plan_offsets, capsys, pipeline="sales", start=start)
            assert (code, error) == (0, "")
            assert json.loads(printed)["start"] == second.to_plain()
        record_one_batch(store, "sales", stream, identity, third, f"{home}/checkpoint", number=3, start=second)
        assert audited("sales") == (3, 7, 0, 0, 0, 0)
        again = airflow("rename", "orders", "sales", "--apply")
        assert again.returncode == 0, again.stderr


TWO_TOPICS = """\
pipelines:
  demo:
    tracked: false
    topics: [{topics}]
    group_id: {group}
    offsets_in: [kafka_default]
    job: {{application: job.jar, main_class: Job, log_dir: logs}}
    stop: {{signal_timeout_s: 10}}
"""


def test_a_topic_whose_commits_were_deleted_is_no_first_start(
    home: Path, servers: str, make_topic: Callable[[int], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Kafka's own ``--delete-offsets`` removed one topic's offsets: a snapshot still has the position."""
    kept, deleted, group = make_topic(1), make_topic(1), f"deleted-{uuid.uuid4().hex[:8]}"
    (home / "pipelines.yaml").write_text(TWO_TOPICS.format(topics=f"{kept}, {deleted}", group=group))
    commit(servers, group, numbered(kept, 2).updated(numbered(deleted, 3)))
    taken = airflow("snapshots", "take", "--pipeline", "demo", "--label", "good", "-o", "json")
    assert taken.returncode == 0, taken.stderr
    before = call(acts.plan_offsets, capsys, pipeline="demo", start="committed")

    kafka_consumer_groups(servers, "--delete-offsets", "--group", group, "--topic", deleted)
    code, printed, _ = call(acts.plan_offsets, capsys, pipeline="demo", start="committed")

    assert (before[0], json.loads(before[1])["problems"]) == (0, []), before
    assert code == 1
    [problem] = json.loads(printed)["problems"]
    assert problem["kind"] == "stored position gone"
    assert f"{deleted}[0] was" in problem["message"]
    assert f"at 3 according to snapshot {json.loads(taken.stdout)['id']}" in problem["message"]
