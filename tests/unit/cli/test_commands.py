"""The commands as Airflow's parser gets them, and invalid calls."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.cli.cli_config import ActionCommand, GroupCommand

from airflow_provider_offsets.__main__ import main
from airflow_provider_offsets.cli.commands import offsets_commands
from airflow_provider_offsets.control.owners import claim_resources
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.live import LivePartition, LiveTopic, LiveTopics
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.replay.model import Interval, ReplayPlan, cut_shards
from airflow_provider_offsets.core.replay.shard import (
    ClaimShard,
    LaunchShard,
    RecordShard,
    ShardRead,
    StartShard,
    digest_of_ranges,
)
from airflow_provider_offsets.core.snapshot import Observation, Snapshot
from airflow_provider_offsets.errors import InputRefused, StoreInUse
from airflow_provider_offsets.factories.pipelines import load_pipelines
from airflow_provider_offsets.stores import open_store
from airflow_provider_offsets.stores.sql.store import SqlStore
from tests.unit.core.observations import HOLDER

SECRET = "hunter-two"


def parser() -> argparse.ArgumentParser:
    """Return a parser with our commands alone, built as Airflow builds it."""
    made = argparse.ArgumentParser(prog="airflow", exit_on_error=False)
    [group] = offsets_commands()
    assert isinstance(group, GroupCommand)
    _add(made.add_subparsers(required=True), group)
    return made


def _add(parsers: Any, command: ActionCommand | GroupCommand) -> None:
    one = parsers.add_parser(command.name, help=command.help, description=command.description)
    if isinstance(command, GroupCommand):
        below = one.add_subparsers(required=True)
        for each in command.subcommands:
            _add(below, each)
        return
    for argument in command.args:
        argument.add_to_parser(one)
    one.set_defaults(func=command.func)


def run(*words: str) -> int:
    """Run a command line; return its exit code."""
    args = parser().parse_args(["offsets", *words])
    try:
        args.func(args)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    made = f"sqlite:///{tmp_path}/offsets.db"
    store = open_store(made)
    store.create()
    store.close()
    monkeypatch.setenv("AIRFLOW_CONN_SPARK_DEFAULT", json.dumps({"conn_type": "spark"}))
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps({"conn_type": "offsets", "extra": {"url": made}}))
    return made


def stored(url: str, group: str) -> Position | None:
    store = open_store(url)
    try:
        return store.position(Stream(group, ("t",)))
    finally:
        store.close()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("copy", "--from", "store", "--to", "store"), "No group was named"),
        (("copy", "--from", "store", "--to", "store", "-g", "g"), "No topics were named"),
        (("export", "--from", "store", "-t", "t"), "No group was named"),
        (("export", "--from", "spark_default", "-g", "g", "-t", "t"), "Connection 'spark_default' has type 'spark'"),
        (("export", "--from", "nowhere", "-g", "g", "-t", "t"), "Connection 'nowhere' does not exist"),
        (("export", "--from", "kafka:nowhere", "-g", "g", "-t", "t"), "Connection 'nowhere' does not exist"),
        (("export", "--from", "kafka:store", "-g", "g", "-t", "t"), "Connection 'store' has type 'offsets'"),
        (("export", "--from", "redis://h:1/0", "-g", "g", "-t", "t"), "The store URL begins with 'redis'"),
        (
            ("export", "--from", f"postgresql://u:{SECRET}@h/d", "-g", "g", "-t", "t"),
            "The URL of a postgresql store contains a password",
        ),
        (
            ("export", "--from", f"postgresql://h/d?sslPassword={SECRET}", "-g", "g", "-t", "t"),
            "The URL of a postgresql store contains a password",
        ),
        (("export", "--from", "store", "-g", "g", "-t", "t"), "Group 'g' has nothing stored"),
        (("import", "/no/such/file", "--to", "store"), "/no/such/file cannot be read: "),
        (("compare", "--pipeline", "p", "--file", "/no/pipelines.yaml"), "/no/pipelines.yaml does not exist"),
        (
            ("copy", "--from", "store", "--to", "store", "-g", " g", "-t", "t"),
            "--group ' g' has a space (U+0020) at its start",
        ),
        (
            ("copy", "--from", "store", "--to", "store", "-g", "g\u200b", "-t", "t"),
            "a zero width space (U+200B) at its end",
        ),
        (
            ("copy", "--from", "store", "--to", "store", "-g", "g", "--to-group", "g\u00a0", "-t", "t"),
            "--to-group 'g\\xa0' has a no-break space",
        ),
        (
            ("copy", "--from", "checkpoint:", "--to", "store", "-g", "g", "-t", "t", "--apply"),
            "'checkpoint:' names no folder",
        ),
        (
            ("copy", "--from", "checkpoint:~/c", "--to", "store", "-g", "g", "-t", "t", "--apply"),
            "'checkpoint:~/c' begins with '~'",
        ),
        (
            ("copy", "--from", "checkpoint:$CK/c", "--to", "store", "-g", "g", "-t", "t"),
            "'checkpoint:$CK/c' has a variable",
        ),
        (
            ("copy", "--from", "checkpoint:file:c", "--to", "store", "-g", "g", "-t", "t"),
            "'checkpoint:file:c' is no whole path",
        ),
        (
            ("copy", "--from", "checkpoint:/c ", "--to", "store", "-g", "g", "-t", "t"),
            "has a space (U+0020) at its end",
        ),
        (
            ("copy", "--from", "store", "--to", "store", "-g", "g", "-t", "t", "--to-group", ""),
            "--to-group is empty",
        ),
        (
            ("copy", "--from", "store", "--to", "store", "-p", "", "-g", "g", "-t", "t", "--apply"),
            "--pipeline is empty",
        ),
        (
            ("copy", "--from", "store", "--to", "store", "-g", "g", "-t", "t", "--kafka-conn-id", ""),
            "--kafka-conn-id is empty",
        ),
        (("copy", "--from", "store", "--to", "store", "-g", "g", "-t", "t", "-f", ""), "--file is empty"),
        (("import", "", "--to", "store", "-g", "g"), "Input is empty"),
        (("import", "a\0b", "--to", "store", "-g", "g"), "cannot be read: embedded null byte"),
        (("export", "--from", "hbase://[::1", "-g", "g", "-t", "t"), "An HBase store URL"),
        (
            ("copy", "--from", "store", "--to", "store", "-g", "g", "-t", "t,t"),
            "'t' is named twice",
        ),
        (
            ("copy", "--from", "store", "--to", "store", "-g", "g", "-t", "t, u"),
            "Topics ['t', ' u']",
        ),
        (
            (
                "copy",
                "--from",
                "store",
                "--to",
                "store",
                "-g",
                "g",
                "-t",
                "t",
                "--accept-skipped",
                "t=1",
                "--accept-skipped",
                "t=2",
            ),
            "--accept-skipped has the value 't=1' and another one",
        ),
        (
            ("copy", "--from", "store", "--to", "store", "-g", "g", "-t", "t", "--accept-skipped", "t=\u0663"),
            "--accept-skipped has the value",
        ),
        (
            ("copy", "--from", "store", "--to", "store", "-g", "g", "-t", "t", "--accept-skipped", "t"),
            "--accept-skipped has the value 't'",
        ),
    ],
)
def test_a_wrong_call_ends_with_2_and_a_sentence(
    words: tuple[str, ...], says: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2

    printed = capsys.readouterr()
    assert says in printed.err
    assert ". Expected " in printed.err
    assert SECRET not in printed.err + printed.out


def test_the_module_runs_the_same_commands_without_airflow_s_own(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", "--from", "store", "-g", "g", "-t", "t"])

    assert ended.value.code == 2
    assert "Group 'g' has nothing stored" in capsys.readouterr().err


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "two.csv").write_text("a,t,0,5\nb,t,0,6\n")
    return str(tmp_path / "two.csv")


def test_several_groups_are_all_looked_at_before_the_first_is_written(
    url: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(url)
    assert isinstance(store, SqlStore)
    store.write(Stream("b", ("t",)), Position({TopicPartition("t", 0): 1}), expected=None)
    store.close()

    assert run("import", file, "--to", "store", "--apply") == 1
    assert stored(url, "a") is None
    printed = capsys.readouterr()
    assert "5 offsets of 't' would be skipped" in printed.out
    assert "Written: nothing." in printed.out

    assert run("import", file, "--to", "store", "--apply", "--accept-skipped", "t=5") == 0
    assert stored(url, "a") == Position({TopicPartition("t", 0): 5})
    assert stored(url, "b") == Position({TopicPartition("t", 0): 6})


def test_what_was_written_before_a_store_refused_is_said(
    url: str, file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _refuse_second_write(monkeypatch, StoreInUse(seen="a member in the group", expected="none", do="stop the job"))

    assert run("import", file, "--to", "store", "--apply", "-o", "json") == 1

    printed = capsys.readouterr()
    assert [each["written"] for each in json.loads(printed.out)] == [True, False]
    assert "StoreInUse: A member in the group" in printed.err


def test_an_interrupt_ends_with_130_and_says_what_was_written(
    url: str, file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _refuse_second_write(monkeypatch, KeyboardInterrupt())

    assert run("import", file, "--to", "store", "--apply") == 130

    printed = capsys.readouterr()
    assert "Written: a." in printed.out
    assert "interrupted" in printed.err
    assert stored(url, "b") is None


class TestOwned:
    """What a pipeline owns is written only under its name: only its lease keeps its job from starting meanwhile."""

    @pytest.fixture
    def words(self, url: str, tmp_path: Path) -> tuple[str, ...]:
        """Return the file options; pipeline ``p`` has run, and ``store`` is its control store."""
        job = f"{{application: a.py, checkpoint: {tmp_path}/checkpoint}}"
        file, one = tmp_path / "pipelines.yaml", tmp_path / "one.csv"
        file.write_text(f"pipelines: {{p: {{topics: [t], group_id: g, store_conn_id: store, job: {job}}}}}")
        one.write_text("g,t,0,5\n")
        pipeline = load_pipelines(file)["p"]
        store = open_store(url)
        claim_resources(store, "p", pipeline.resources)
        store.close()
        return ("import", str(one), "--file", str(file))

    @pytest.mark.parametrize(
        "target",
        [
            "store",
            "{url}",
            "checkpoint:{folder}/checkpoint",
            "checkpoint:file://{folder}//checkpoint/",
            "checkpoint:file:///{folder}/checkpoint",
            "checkpoint:checkpoint",
            "checkpoint:link/checkpoint",
        ],
    )
    def test_it_is_refused_with_the_name_of_its_owner(
        self,
        target: str,
        words: tuple[str, ...],
        url: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "link").symlink_to(tmp_path)
        to = target.format(url=url, folder=tmp_path)

        assert run(*words, "--to", to) == 0, "a dry run writes nothing"
        assert run(*words, "--to", to, "--apply") == 1

        assert "belongs to pipeline 'p'" in capsys.readouterr().err
        assert stored(url, "g") is None
        assert not (tmp_path / "checkpoint").exists()

    def test_what_nobody_owns_is_written(self, words: tuple[str, ...], url: str, tmp_path: Path) -> None:
        (tmp_path / "one.csv").write_text("another,t,0,5\n")

        assert run(*words, "--to", "store", "--apply") == 0
        assert run(*words, "--to", f"checkpoint:{tmp_path}/another", "--apply") == 0

        assert stored(url, "another") == Position({TopicPartition("t", 0): 5})

    def test_it_is_written_where_the_control_store_was_never_made(
        self, words: tuple[str, ...], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fresh = {"conn_type": "offsets", "extra": {"url": f"sqlite:///{tmp_path}/fresh.db"}}
        monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps(fresh))

        assert run(*words, "--to", f"checkpoint:{tmp_path}/checkpoint", "--apply") == 0

    @pytest.mark.parametrize("conn_id", ["nobody-made-this", "down"])
    def test_stores_that_the_command_does_not_write_need_not_be_reachable(
        self, conn_id: str, words: tuple[str, ...], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        down = {"conn_type": "offsets", "extra": {"url": f"sqlite:///{tmp_path}/missing/offsets.db"}}
        monkeypatch.setenv("AIRFLOW_CONN_DOWN", json.dumps(down))
        job = f"{{application: a.py, log_dir: {tmp_path}/logs}}"
        (tmp_path / "pipelines.yaml").write_text(
            f"pipelines: {{p: {{topics: [t], group_id: g, store_conn_id: {conn_id}, tracked: false, job: {job},"
            f" stop: {{marker: {tmp_path}/stop}}, offsets_in: [nobody-made-this]}}}}"
        )

        assert run(*words, "--to", "store", "--apply") == 0
        assert stored(url, "g") == Position({TopicPartition("t", 0): 5})

    def test_a_checkpoint_whose_owner_is_unknown_is_not_written(
        self,
        words: tuple[str, ...],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.delenv("AIRFLOW_CONN_STORE")

        assert run(*words, "--to", f"checkpoint:{tmp_path}/checkpoint", "--apply") == 2

        assert "Connection 'store' does not exist" in capsys.readouterr().err
        assert not (tmp_path / "checkpoint").exists()


def test_a_swap_that_was_cut_off_between_its_renames_is_finished_by_the_same_command(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for offset in (5, 3):
        (tmp_path / "one.csv").write_text(f"g,t,0,{offset}\n")
        words = ("import", str(tmp_path / "one.csv"), "--to", f"checkpoint:{tmp_path}/checkpoint")
        assert run(*words, "--apply") == 0
    [before] = tmp_path.glob("checkpoint-before-*")
    (tmp_path / "checkpoint").rename(str(before).replace("-before-", "-seeded-"))

    assert run(*words) == 1
    assert "was interrupted" in capsys.readouterr().err
    assert run(*words, "--apply") == 0
    assert run(*words) == 0
    assert "was interrupted" not in capsys.readouterr().err


def _refuse_second_write(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    write: Callable[..., None] = SqlStore.write

    def refusing(self: SqlStore, stream: Stream, *arguments: Any, **more: Any) -> None:
        if stream.group_id == "b":
            raise error
        write(self, stream, *arguments, **more)

    monkeypatch.setattr(SqlStore, "write", refusing)


@pytest.fixture
def pipelines(url: str, tmp_path: Path) -> Callable[[str], str]:
    """Return a function that writes a pipelines.yaml with this ``keep``; its pipeline has three snapshots."""
    store = open_store(url)
    for number in range(3):
        seen = Observation("orders", LiveTopics("cluster", (LiveTopic("t", "id", (LivePartition(0, 9),)),)))
        at = f"2026-01-0{number + 1}T00:00:00+00:00"
        label = "good" if number == 1 else ""
        taken = Snapshot(f"op-{number}#snapshot", f"op-{number}", "snapshot", "", at, seen, label)
        Control(store, "orders").keep_snapshot(taken.sealed())
    store.close()

    def write(keep: str) -> str:
        file = tmp_path / "pipelines.yaml"
        job = f"{{application: a.py, checkpoint: {tmp_path}/checkpoint}}"
        file.write_text(
            f"pipelines:\n  orders:\n    topics: [t]\n    store_conn_id: store\n    keep: {keep}\n    job: {job}\n"
        )
        return str(file)

    return write


def test_snapshots_are_listed_the_oldest_first(
    pipelines: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = pipelines("{}")

    assert run("snapshots", "list", "-p", "orders", "-f", file, "-o", "json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(each["id"], each["label"]) for each in shown] == [
        ("op-0#snapshot", ""),
        ("op-1#snapshot", "good"),
        ("op-2#snapshot", ""),
    ]
    assert run("snapshots", "list", "-p", "orders", "-f", file) == 0
    assert "op-1#snapshot" in capsys.readouterr().out


def test_a_prune_is_a_dry_run_unless_it_is_applied(
    pipelines: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = pipelines("{snapshots: 1}")
    words = ("snapshots", "prune", "-p", "orders", "-f", file)

    assert run(*words) == 0
    printed = capsys.readouterr().out
    assert "snapshot op-0#snapshot: would be removed" in printed
    assert "op-1#snapshot" not in printed, "it has a label"
    assert "this is a dry run" in printed
    assert run(*words, "-o", "json", "--apply") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["removed"]["snapshots"] == shown["found"]["snapshots"] == ["op-0#snapshot"]
    assert run(*words, "--apply") == 0
    assert "Nothing to prune" in capsys.readouterr().out
    assert run(*words, "--apply", "--snapshot", "good") == 0
    assert "snapshot op-1#snapshot: removed" in capsys.readouterr().out
    assert run(*words, "--snapshot", "good") == 1
    assert "SnapshotNotFound" in capsys.readouterr().err


def test_how_far_replays_are(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two runs: in the first, one of two shards is finished; the second had nothing to read."""
    (tmp_path / "pipelines.yaml").write_text(
        "pipelines: {p: {topics: [t], store_conn_id: store, job: {application: a.py, checkpoint: c}},"
        " idle: {topics: [u], store_conn_id: store, job: {application: a.py, checkpoint: d}}}"
    )
    store = open_store(url)
    begin, end = Position({TopicPartition("t", 0): 5}), Position({TopicPartition("t", 0): 25})
    shards = cut_shards(begin, end, records_per_shard=10, max_shards=9)
    control = ReplayControl(store, "p")
    for number, (to, cut) in enumerate([(end, shards), (begin, ())]):
        operation, interval = f"backfill__p/{number}", Interval(86_400_000 * number, 86_400_000 * (number + 1))
        run_id = f"{operation}#version#1"
        plan = ReplayPlan("p", operation, run_id, 1, "key", interval, begin, to, cut, "a.py", "version")
        control.record_plan(operation, plan)
    ranges = digest_of_ranges(shards[0].ranges)
    for event in (
        LaunchShard("tag", ranges, "version", ""),
        ClaimShard("tag", HOLDER),
        StartShard("tag", HOLDER, "run"),
        RecordShard("tag", HOLDER, "run", ShardRead(10)),
    ):
        control.change_shard("backfill__p/0#version#1", 0, event)
    store.close()
    words = ("backfill", "--file", str(tmp_path / "pipelines.yaml"), "--pipeline")

    assert run(*words, "p") == 0
    printed = capsys.readouterr().out
    assert "1970-01-01T00:00:00Z to 1970-01-02T00:00:00Z  backfill__p/0" in printed
    assert "1 of 2" in printed
    assert "incomplete" in printed
    assert "Total: 1 of 2 intervals, 1 of 2 shards, 10 of 20 records" in printed
    assert run(*words, "p", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["total"]["records_read"] == 10
    assert run(*words, "idle") == 0
    assert "No replay was planned." in capsys.readouterr().out


@pytest.mark.parametrize("apply", [(), ("--apply",)])
def test_a_dry_run_says_what_an_apply_would_say(
    apply: tuple[str, ...],
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Offset 999 of 50, into a consumer group: only the store of groups knows the end of the log."""

    def refuse(self: SqlStore, stream: Stream, position: Position, *, expected: Position | None) -> None:
        raise InputRefused(seen="t[0] -> 999", expected="0 to 50, what Kafka holds of it now", do="plan again")

    monkeypatch.setattr(SqlStore, "check_write", refuse, raising=False)
    monkeypatch.setattr(SqlStore, "write", refuse)
    (tmp_path / "o.csv").write_text("t,0,999\n")

    assert run("import", str(tmp_path / "o.csv"), "--to", "store", "-g", "g", *apply) == 2

    printed = capsys.readouterr()
    assert "t[0] -> 999. Expected 0 to 50" in printed.err
    assert ("Written: nothing" if apply else "this is a dry run") in printed.out
    assert stored(url, "g") is None
