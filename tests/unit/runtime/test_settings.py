"""How a driver gets its secrets: from a file that only its user can read, and that is read once."""

from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.epoch import Claim
from airflow_provider_offsets.core.pipeline import Subscription
from airflow_provider_offsets.errors import InputRefused, ModeUnsupported
from airflow_provider_offsets.runtime.settings import FILE_KEY, Secrets, Settings, read_settings
from tests.unit.core.observations import IDENTITY, at

SECRETS = Secrets("postgresql://me:hunter2@db/offsets", {"kafka.sasl.jaas.config": 'password="hunter3";'})


@pytest.fixture
def settings() -> Settings:
    stream = Stream("alerts", ("flights",))
    claim = Claim(3, "op", "op@1", "/checkpoint", at(5, 7), IDENTITY, stream, scratch="abc.3")
    return Settings("alerts", Subscription.ASSIGN, claim, SECRETS)


class ClassicSession:
    """The part of a classic session that is read here."""

    def __init__(self, conf: dict[str, str]) -> None:
        self.sparkContext = SimpleNamespace(getConf=lambda: conf)


def connect_session() -> Any:
    """Return a session of the class that ``pyspark.sql.connect`` makes; it has no ``sparkContext``."""
    return type("SparkSession", (), {"__module__": "pyspark.sql.connect.session"})()


def test_the_driver_reads_what_the_submit_wrote(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "logs" / "1.settings.json"
    settings.write(file)

    assert read_settings(ClassicSession(settings.conf(file))) == settings


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_its_user_can_read_the_file(umask: int, settings: Settings, tmp_path: Path) -> None:
    import os

    before = os.umask(umask)
    try:
        settings.write(tmp_path / "settings.json")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "settings.json").stat().st_mode) == 0o600


def test_it_is_gone_once_it_was_read(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    settings.write(file)
    session = ClassicSession(settings.conf(file))
    read_settings(session)

    assert not file.exists()
    with pytest.raises(InputRefused, match=r"does not exist.*removes after reading it.*one submit starts one driver"):
        read_settings(session)


def test_a_file_that_somebody_put_there_is_not_written_to(settings: Settings, tmp_path: Path) -> None:
    """Otherwise another user's open file, or a link to one, would get the secrets."""
    (tmp_path / "settings.json").symlink_to(tmp_path / "theirs")

    with pytest.raises(FileExistsError):
        settings.write(tmp_path / "settings.json")

    assert not (tmp_path / "theirs").exists()


def test_the_conf_leads_to_the_file_and_shows_nothing_secret(settings: Settings, tmp_path: Path) -> None:
    """Spark shows the conf to everybody who can open its Environment page."""
    conf = settings.conf(tmp_path / "settings.json")

    assert conf == {
        FILE_KEY: str(tmp_path / "settings.json"),
        "spark.offsets.pipeline": "alerts",
        "spark.offsets.epoch": "3",
        "spark.offsets.operation": "op",
        "spark.hadoop.offsets.scratch.owner": "abc.3",
        "spark.sql.sources.outputCommitterClass": "offsets.PrivateScratchCommitter",
        "spark.sql.parquet.output.committer.class": "offsets.PrivateScratchCommitter",
    }
    assert "hunter" not in str(conf)


def test_they_can_be_printed_by_mistake(settings: Settings) -> None:
    for shown in (repr(SECRETS), str(SECRETS), f"{SECRETS}", repr(settings), str(settings)):
        assert "hunter" not in shown


def test_a_driver_that_was_started_by_hand_is_refused_by_name() -> None:
    with pytest.raises(
        InputRefused, match=r"spark\.offsets\.settings\.file is not in.*started by hand could run twice"
    ):
        read_settings(ClassicSession({}))


def test_spark_connect_is_refused_with_the_reason() -> None:
    with pytest.raises(ModeUnsupported, match=r"is a Spark Connect session.*spark-submit"):
        read_settings(connect_session())
