"""Processes are identified by more than their pid, and a driver outlives its launcher; with real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_offsets.backends import process
from airflow_provider_offsets.backends.detached import Launch, launch
from airflow_provider_offsets.backends.process import identify, is_alive, is_session_alive, signal_session, this_process
from airflow_provider_offsets.core.codec import dumps, loads
from airflow_provider_offsets.core.epoch import ProcessIdentity

SAYS_WHO_IT_IS = """
from airflow_provider_offsets.core.codec import dumps
from airflow_provider_offsets.backends.process import this_process
print(dumps(this_process()))
"""


LOOKS_AS_ANOTHER_USER = """
import os, subprocess, sys
from airflow_provider_offsets.backends.process import is_alive, is_session_alive
from airflow_provider_offsets.core.codec import loads
from airflow_provider_offsets.core.epoch import ProcessIdentity
driver = loads(ProcessIdentity, sys.argv[2])
mounted = subprocess.run(["mount", "-t", "proc", "-o", "hidepid=" + sys.argv[1], "proc", "/proc"], check=False)
if mounted.returncode:
    sys.exit("no mount of /proc here")
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
print(is_alive(driver), is_session_alive(driver))
"""


class TestIdentity:
    def test_this_process_lives(self) -> None:
        me = this_process()

        assert (me.pid, me.host) == (os.getpid(), socket.gethostname())
        assert is_alive(me) is True

    def test_a_zombie_is_nobody(self) -> None:
        with subprocess.Popen([sys.executable, "-c", ""]) as ended:
            os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)

            assert identify(ended.pid) is None

    def test_a_driver_in_another_pid_namespace_is_not_taken_for_dead(self) -> None:
        """Its pid belongs to no process here, or to another one (seen with a container on the host's network)."""
        said = subprocess.run(
            # --map-root-user: the tests need no root, as on a CI runner.
            ["/usr/bin/unshare", "--map-root-user", "-pf", "--mount-proc", sys.executable, "-c", SAYS_WHO_IT_IS],
            capture_output=True,
            text=True,
            check=False,
        )
        if said.returncode:
            words = f"no PID namespace here: {said.stderr}"
            pytest.fail(words, pytrace=False) if os.environ.get("CI") else pytest.skip(words)
        inside = loads(ProcessIdentity, said.stdout)

        assert (inside.host, inside.boot_id) == (this_process().host, this_process().boot_id)
        assert is_alive(inside) is None
        assert is_session_alive(inside) is None

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can mount /proc and become another user")
    @pytest.mark.parametrize("hidepid", ["1", "2"])
    def test_a_driver_of_another_user_that_proc_hides_is_not_taken_for_dead(self, hidepid: str) -> None:
        with subprocess.Popen(["/bin/sleep", "600"], start_new_session=True) as driver:
            try:
                known = identify(driver.pid)
                said = subprocess.run(
                    ["/usr/bin/unshare", "--mount", sys.executable, "-c", LOOKS_AS_ANOTHER_USER, hidepid, dumps(known)],
                    capture_output=True,
                    text=True,
                    check=False,
                )
            finally:
                driver.kill()
        if "no mount of /proc here" in said.stderr and not os.environ.get("CI"):
            pytest.skip(said.stderr)
        assert (said.returncode, said.stdout.split()) == (0, ["None", "None"]), said.stderr

    @pytest.mark.parametrize(
        ("error", "alive"), [(PermissionError, None), (ProcessLookupError, False)], ids=["hidden", "gone"]
    )
    def test_a_process_that_proc_does_not_show(
        self, error: type[OSError], alive: bool | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def send(number: int, signal_number: int) -> None:
            raise error

        unseen = replace(this_process(), pid=2**22 + 1)  # beyond the greatest pid of Linux
        monkeypatch.setattr(os, "kill", send)
        monkeypatch.setattr(os, "killpg", send)

        assert (is_alive(unseen), is_session_alive(unseen)) == (alive, alive)

    def test_nobody_tells_a_reboot_from_another_machine_without_a_machine_id(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(process, "_machine_id", lambda: "")
        before = replace(this_process(), boot_id="another")

        assert before.machine_id == ""
        assert is_alive(before) is None
        assert is_session_alive(before) is None

    def test_a_name_with_brackets_and_spaces_is_no_trouble(self, tmp_path: Path) -> None:
        program = tmp_path / "a) b ("
        program.symlink_to("/bin/cat")
        with subprocess.Popen([program], stdin=subprocess.PIPE) as process:
            found = identify(process.pid)
            assert process.stdin is not None
            process.stdin.close()

        assert found is not None
        assert found.pid == process.pid


class TestMachineId:
    MACHINES_PIDS, CONTAINERS_PIDS = "pid:[4026531836]", "pid:[4026532001]"
    MOUNTED = "620 601 254:1 /etc/machine-id {file} ro,relatime - ext4 /dev/vda1 rw"
    VOLUME = "621 601 254:1 /volumes/logs/_data {folder} rw,relatime - ext4 /dev/vda1 rw"
    IMAGE = "601 500 0:52 / / rw,relatime - overlay overlay rw"
    BESIDE = "622 601 254:1 /hosts {file}s rw,relatime - ext4 /dev/vda1 rw"

    @pytest.mark.parametrize(
        ("why", "pids", "text", "mounts", "expected"),
        [
            ("a machine has its own file", MACHINES_PIDS, "3d12\n", IMAGE, "3d12"),
            ("no file", MACHINES_PIDS, None, IMAGE, ""),
            ("an image without an id", CONTAINERS_PIDS, "", MOUNTED, ""),
            ("systemd has not chosen one yet", MACHINES_PIDS, "uninitialized\n", IMAGE, ""),
            ("an image's file is the same on every machine", CONTAINERS_PIDS, "3d12\n", IMAGE, ""),
            ("another file is mounted", CONTAINERS_PIDS, "3d12\n", BESIDE, ""),
            ("the machine's file is mounted", CONTAINERS_PIDS, "3d12\n", MOUNTED, "3d12"),
            ("the file is on a volume", CONTAINERS_PIDS, "3d12\n", VOLUME, "3d12"),
        ],
    )
    def test_it_is_of_one_machine(
        self,
        why: str,
        pids: str,
        text: str | None,
        mounts: str,
        expected: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        folder = tmp_path / "volume"
        folder.mkdir()
        file, link, table = folder / "machine-id", tmp_path / "link", tmp_path / "mountinfo"
        if text is not None:
            file.write_text(text)
        link.symlink_to(file)
        table.write_text("\n".join([self.IMAGE, mounts.format(file=file, folder=folder)]))
        monkeypatch.setattr(process, "_namespaces", lambda: (pids, "uts:[1]", "net:[1]"))
        monkeypatch.setattr(process, "MACHINE_ID", link)
        monkeypatch.setattr(process, "MOUNTS", table)

        assert this_process().machine_id == expected, why


LEADS = """
import subprocess, sys
helper = subprocess.Popen(["sleep", "600"], process_group=0)
print(helper.pid, flush=True)
sys.stdin.read()
"""


class TestSession:
    """The processes of spark-submit: a JVM that leads a session, with helpers, some of them in groups of their own."""

    @pytest.fixture
    def leader(self) -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen(
            [sys.executable, "-c", LEADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        ) as process:
            yield process
            process.kill()

    @pytest.fixture
    def helper(self, leader: subprocess.Popen[bytes]) -> Iterator[ProcessIdentity]:
        assert leader.stdout is not None
        found = identify(int(leader.stdout.readline()))
        assert found is not None
        handle = os.pidfd_open(found.pid)
        yield found
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)

    def known(self, leader: subprocess.Popen[bytes]) -> ProcessIdentity:
        found = identify(leader.pid)
        assert found is not None
        return found

    def test_a_session_of_the_same_number_in_a_container_that_was_started_again_is_left_alone(
        self, leader: subprocess.Popen[bytes], helper: ProcessIdentity, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Pids count from 1 again there, so the number is used again, and its leader may have left something too."""
        known = self.known(leader)
        before = replace(known, start_ticks=known.start_ticks - 1)
        leader.kill()
        leader.wait()
        assert is_session_alive(before) is True, "the test of the test: without a restart this is what it left"
        stat = process._stat
        first = process._Stat(session=1, start_ticks=known.start_ticks)
        monkeypatch.setattr(process, "_stat", lambda pid: first if pid == 1 else stat(pid))

        assert is_session_alive(before) is False
        assert signal_session(before, signal.SIGKILL) is False
        assert is_session_alive(known) is True
        assert is_alive(helper) is True


class TestLaunch:
    def end_of(self, launched: Launch) -> None:
        assert launched.process is not None
        os.waitpid(launched.process.pid, 0)

    def test_it_is_in_a_session_of_its_own_with_a_log_and_no_input(self, tmp_path: Path) -> None:
        code = "import os, sys; print(os.getsid(0) == os.getpid(), sys.stdin.read() == '', sorted(os.environ))"
        log = tmp_path / "logs" / "1.log"

        launched = launch("op@1", [sys.executable, "-c", code], log=str(log), env={"ONLY": "this"})
        self.end_of(launched)

        first, second, names = log.read_text().split(maxsplit=2)
        assert (first, second) == ("True", "True")
        assert "'ONLY'" in names
        assert "'PATH'" not in names
        assert log.stat().st_mode & 0o777 == 0o600
        assert launched.is_alive is False

    def test_errors_go_to_the_same_log(self, tmp_path: Path) -> None:
        launched = launch("op@1", [sys.executable, "-c", "1 / 0"], log=str(tmp_path / "log"), env={})
        self.end_of(launched)

        assert launched.log_tail(lines=1) == "ZeroDivisionError: division by zero"

    def test_no_open_file_of_ours_is_left_in_its_hands(self, tmp_path: Path) -> None:
        """A pipe that the driver kept would make ``make … | tee`` wait for as long as the job runs."""
        reading, writing = os.pipe()
        os.set_inheritable(writing, True)
        code = "import os; print([n for n in os.listdir('/proc/self/fd') if int(n) > 2])"
        launched = launch("op@1", [sys.executable, "-c", code], log=str(tmp_path / "log"), env={})
        self.end_of(launched)
        os.close(reading)
        os.close(writing)

        assert launched.log_tail() == "['3']", "the one that is there is the listing's own"

    def test_a_program_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            launch("op@1", ["no-such-program"], log=str(tmp_path / "log"), env={})


IVY = """\
:: loading settings :: url = jar:file:/pyspark/jars/ivy-2.5.3.jar!/org/apache/ivy/core/settings/ivysettings.xml
:: resolving dependencies :: org.apache.spark#spark-submit-parent-1;1.0
	Host repo not found. url=https://repo/a/b/1/b-1.pom
		module not found: a#b;1
		:: a#b;1: not found
:: USE VERBOSE OR DEBUG MESSAGE LEVEL FOR MORE DETAILS
Exception: [unresolved dependency: a#b;1: not found]
"""
FOUND = """\
:: loading settings :: url = jar:file:/pyspark/jars/ivy-2.5.3.jar!/org/apache/ivy/core/settings/ivysettings.xml
:: resolving dependencies :: org.apache.spark#spark-submit-parent-1;1.0
	found a#b;1 in central
:: retrieving :: org.apache.spark#spark-submit-parent-1
	0 artifacts copied, 1 already retrieved (0kB/5ms)
boom
"""


class TestLogTail:
    @pytest.mark.parametrize(
        ("why", "text", "tail"),
        [
            ("no log", None, ""),
            ("an empty log", "", ""),
            ("the last lines", "1\n2\n3\n4\n", "3\n4"),
            ("Spark's log lines are omitted", "26/01/01 INFO Driver: up\nboom\n26/01/01 INFO Driver: bye\n", "boom"),
            (
                "what Ivy tries is omitted, its result is not (E6)",
                IVY,
                "Exception: [unresolved dependency: a#b;1: not found]",
            ),
            ("what Ivy finds is omitted", FOUND, "boom"),
            ("empty lines are omitted", "boom\n\n\n", "boom"),
            ("bytes that are no text are shown as well as can be", "a\udcffb\n", "a\ufffdb"),
        ],
    )
    def test_it_gives_what_helps(self, why: str, text: str | None, tail: str, tmp_path: Path) -> None:
        log = tmp_path / "log"
        if text is not None:
            log.write_bytes(text.encode(errors="surrogateescape"))

        assert Launch("op@1", None, str(log)).log_tail(lines=2) == tail

    def test_of_a_long_log_the_end_is_read(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text("x" * 1_000_000 + "\nboom\n")

        assert Launch("op@1", None, str(log)).log_tail(lines=1) == "boom"


def test_a_launch_that_was_never_seen_is_not_alive() -> None:
    assert Launch("op@1", None, "/log").is_alive is False
