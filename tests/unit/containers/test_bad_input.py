"""Each invalid input of a person leads to one line that says what is wrong and how to correct it."""

from __future__ import annotations

import base64
import fcntl
import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_offsets.backends import process
from containers import checks, compose, enter, settings
from containers.__main__ import main
from stack.problem import Problem

PORTS_BUT_ONE = "AIRFLOW_PORT=28997\nHBASE_THRIFT_PORT=28998\nSPARK_UI_PORT=28999\n"
WHOLE = {name: "x" for name in settings.MADE_UP}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    env = tmp_path / ".env"
    settings.write(env=env)
    return env


class TestSettings:
    def test_secrets_are_made_up_and_only_this_user_reads_them(self, made: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        password = settings.write(env=other)
        mine, others = settings.read(made), settings.read(other)

        assert stat.S_IMODE(made.stat().st_mode) == 0o600
        assert others[settings.PASSWORD] == password
        assert all(mine[name] != others[name] for name in settings.MADE_UP)
        assert all(re.fullmatch(r"[A-Za-z0-9_=-]{20,}", mine[name]) for name in settings.MADE_UP)
        assert len(base64.urlsafe_b64decode(mine["AIRFLOW_FERNET_KEY"])) == 32

    def test_the_rest_is_that_of_the_example(self, made: Path) -> None:
        example = settings.parse(settings.EXAMPLE.read_text())

        assert {name: value for name, value in settings.read(made).items() if name not in settings.MADE_UP} == {
            name: value for name, value in example.items() if name not in settings.MADE_UP
        }

    def test_one_that_is_there_is_left_alone(self, made: Path) -> None:
        before = made.read_text()

        with pytest.raises(Problem, match=r"exists already\. Expected .*AIRFLOW_ADMIN_PASSWORD"):
            settings.write(env=made)
        assert made.read_text() == before

    def test_none(self, tmp_path: Path) -> None:
        with pytest.raises(Problem, match=r"\.env does not exist\. Expected .*\. Run: make compose-password"):
            settings.read(tmp_path / ".env")

    def test_one_with_an_empty_secret(self, made: Path) -> None:
        made.write_text(settings.changed(made.read_text(), "POSTGRES_PASSWORD", ""))

        with pytest.raises(Problem, match="has no POSTGRES_PASSWORD"):
            settings.read(made)

    @pytest.mark.parametrize("text", ["", "http", "0", "65536", "-1", "8080 "])
    def test_a_port_that_is_none(self, text: str) -> None:
        with pytest.raises(Problem, match=f".env has AIRFLOW_PORT={text}. Expected a port"):
            settings.port({"AIRFLOW_PORT": text}, "AIRFLOW_PORT")


class TestPorts:
    def test_one_that_is_taken(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            number = taken.getsockname()[1]

            with pytest.raises(Problem, match=rf"Port {number} of 127.0.0.1 is in use\. .*Set KAFKA_PORT in .env"):
                checks.require_ports({"KAFKA_PORT": str(number)}, ["KAFKA_PORT"])

        checks.require_ports({"KAFKA_PORT": str(number)}, ["KAFKA_PORT"])

    @pytest.mark.parametrize("is_up", [False, True])
    def test_bad_input_is_reported_before_anything_is_started(
        self, is_up: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Running containers hold their ports themselves, and are brought up to date."""
        ran: list[list[str]] = []
        monkeypatch.setattr(compose, "program", lambda: ["docker-compose"])
        monkeypatch.setattr(compose, "is_up", lambda: is_up)
        monkeypatch.setattr(os, "execvp", lambda program, argv: ran.append(argv) or sys.exit(0))
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            number = taken.getsockname()[1]
            monkeypatch.setattr(settings, "read", lambda: settings.parse(f"{PORTS_BUT_ONE}KAFKA_PORT={number}\n"))

            if is_up:
                with pytest.raises(SystemExit):
                    main(["up"])
            else:
                assert main(["up"]) == 1

        shown = (
            f"compose  Port {number} of 127.0.0.1 is in use. Expected a free port for KAFKA_PORT."
            " Set KAFKA_PORT in .env to another port."
        )
        assert (shown in capsys.readouterr().out) is not is_up
        assert ran == ([["docker-compose", "-f", str(compose.FILE), "up", "-d"]] if is_up else [])

    def test_one_for_two(self) -> None:
        same = {"KAFKA_PORT": "28999", "AIRFLOW_PORT": "28999"}

        with pytest.raises(Problem, match="AIRFLOW_PORT and KAFKA_PORT are both 28999"):
            checks.require_ports(same, same)


class TestMemory:
    def test_a_machine_that_is_too_small(self) -> None:
        with pytest.raises(Problem, match=r"has 4\.0 GiB of memory\. Expected 8 GiB\. Assign more"):
            enter.require_memory(f"MemTotal: {4 * 2**20} kB\n")

    def test_one_of_8_gib_tells_of_less(self) -> None:
        enter.require_memory(f"MemTotal: {int(7.6 * 2**20)} kB\n")

    def test_too_little_is_left(self) -> None:
        with pytest.raises(Problem, match=r"has 1\.0 GiB of memory available\. Expected 6\.0 GiB\."):
            checks.require_available(f"MemAvailable: {2**20} kB\n", 6)


class TestImageAndVolume:
    def test_an_image_without_its_jars(self, tmp_path: Path) -> None:
        with pytest.raises(
            Problem, match=r"has no kafka_2.13-\*.jar\. Expected a complete image\. Run: docker compose build"
        ):
            enter.version_of(tmp_path, "kafka_2.13")

    def test_the_version_is_that_of_the_jar(self, tmp_path: Path) -> None:
        for name in ("hbase-server-2.6.1-hadoop3.jar", "hbase-server-tests-2.jar"):
            (tmp_path / name).touch()

        assert enter.version_of(tmp_path, "hbase-server") == "2.6.1-hadoop3"

    def test_a_volume_of_another_version(self, tmp_path: Path) -> None:
        enter.require_version(tmp_path, "kafka 4.3.0")
        enter.require_version(tmp_path, "kafka 4.3.0")

        with pytest.raises(Problem, match=r"was made by kafka 4.3.0\. Expected kafka 5.0.0\. Build the older version"):
            enter.require_version(tmp_path, "kafka 5.0.0")
        assert (tmp_path / "made-by").read_text() == "kafka 4.3.0\n"

    def test_a_password_that_would_not_be_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("POSTGRES_PASSWORD", "'; DROP ROLE airflow")

        with pytest.raises(Problem, match="POSTGRES_PASSWORD has 20 characters") as problem:
            enter.setting("POSTGRES_PASSWORD", "[A-Za-z0-9_-]{16,}")
        assert "DROP" not in str(problem.value)


def killed(file: Path, *, missing_ok: bool = False) -> None:
    """Raise, as a killed process would end, instead of removing a file that exists."""
    if file.exists():
        raise KeyboardInterrupt


class TestMachineId:
    def test_it_is_chosen_once_for_all_containers_and_restarts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chosen = set()
        for host in ("scheduler", "triggerer", "scheduler"):
            monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
            enter.name_machine(tmp_path)
            chosen.add((tmp_path / "machine-id").read_text())

        [text] = chosen
        assert re.fullmatch("[0-9a-f]{32}\n", text)
        assert [each.name for each in tmp_path.iterdir()] == ["machine-id"]

    def test_it_stays_after_a_start_that_was_killed_while_it_chose(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Both names are one file then."""
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", killed)
            with pytest.raises(KeyboardInterrupt):
                enter.name_machine(tmp_path)
        chosen = (tmp_path / "machine-id").read_text()

        enter.name_machine(tmp_path)

        assert (tmp_path / "machine-id").read_text() == chosen
        assert [each.name for each in tmp_path.iterdir()] == ["machine-id"]

    def test_the_images_file_is_a_link_to_the_volume(self) -> None:
        words = f"ln -sf {enter.AIRFLOW_HOME}/machine-id {process.MACHINE_ID}"
        assert words in (Path(__file__).parents[3] / "Dockerfile").read_text()


class TestHostName:
    HOLDS = "import sys; from pathlib import Path; from containers import enter; enter.hold_name(Path(sys.argv[1]))"

    def test_one_container_has_it_at_a_time(self, tmp_path: Path) -> None:
        """A second container would take the drivers of the first for dead: it does not see their processes."""
        holding = [sys.executable, "-c", f"{self.HOLDS}; print('up', flush=True); sys.stdin.read()", str(tmp_path)]
        name = socket.gethostname()
        with subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()

            with pytest.raises(Problem, match=f"Another container has the host name {name}. .* exec {name} airflow"):
                enter.hold_name(tmp_path)
            holder.kill()

        enter.hold_name(tmp_path)

    @pytest.mark.parametrize("command", [["scheduler"], ["airflow", "offsets", "compare"]])
    def test_whatever_is_run_in_the_second_one_is_refused(
        self, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
        monkeypatch.setattr(enter, "AIRFLOW_HOME", tmp_path)
        monkeypatch.setattr(enter, "require_memory", lambda meminfo: None)
        monkeypatch.setattr(enter, "become", lambda argv: pytest.fail(f"became {argv}"))
        with (tmp_path / f"{socket.gethostname()}.lock").open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)

            assert enter.main(command) == 1

        [line] = capfd.readouterr().err.splitlines()
        assert line.startswith(f"{command[0]}: Another container has the host name")

    def test_it_is_held_over_the_exec(self, tmp_path: Path) -> None:
        sleeps = f"{self.HOLDS}; enter.become(['sleep', '600'])"
        with subprocess.Popen([sys.executable, "-c", sleeps, str(tmp_path)]) as holder:
            lock = tmp_path / f"{socket.gethostname()}.lock"
            while b"sleep" not in Path(f"/proc/{holder.pid}/cmdline").read_bytes().split(b"\0")[0]:
                assert holder.poll() is None

            handle = os.open(lock, os.O_RDWR)
            with pytest.raises(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(handle)
            holder.kill()


class TestServers:
    def test_the_broker_tells_each_side_an_address_that_it_reaches(self) -> None:
        lines = enter.kafka_properties(29092).splitlines()

        assert "advertised.listeners=BROKER://kafka:9092,LOCAL://127.0.0.1:29092" in lines
        names = [line.partition("=")[0] for line in lines if line]
        assert len(names) == len(set(names)), "the last one of two would count"

    def test_when_one_program_ends_the_others_do(self) -> None:
        waits = [sys.executable, "-c", "import time; time.sleep(600)"]

        assert enter.beside(waits, [sys.executable, "-c", "raise SystemExit(7)"]) in (7, -15)
