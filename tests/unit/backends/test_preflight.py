"""The program that looks for what a driver would find, run by a command of the test instead of spark-submit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_offsets.backends.driver_probe import ANSWER
from airflow_provider_offsets.backends.preflight import see_driver
from airflow_provider_offsets.core.preflight import Driver
from airflow_provider_offsets.errors import DriverFailed, DriverSilent

FAILED = """\
:: loading settings :: url = jar:file:/x
	Host repo not found. url=https://repo/a/b/1/b-1.pom
:: USE VERBOSE OR DEBUG MESSAGE LEVEL FOR MORE DETAILS
unresolved dependency: a#b;1"""
SEEN = {"spark": "4.2.0", "pyspark": "4.2.0", "python": "3.11", "connector": "", "missing": {}}


def see(program: str, timeout_s: float = 60) -> Driver:
    reported: list[str] = []
    return see_driver([sys.executable, "-c", program], dict(os.environ), timeout_s=timeout_s, report=reported.append)


def test_the_answer_is_found_between_other_lines() -> None:
    line = f"{ANSWER}{json.dumps(SEEN)}"

    assert see(f"print('WARN before'); print({line!r}); print('WARN after')") == Driver(**SEEN)


def test_a_failed_submit_says_why_and_leaves_out_what_ivy_prints() -> None:
    with pytest.raises(DriverFailed) as failed:
        see(f"print({FAILED!r}); exit(1)")

    assert "exit code 1; its output ends:\nunresolved dependency: a#b;1\n" in str(failed.value)


def test_a_submit_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    program = f"import os, pathlib, time; pathlib.Path('{tmp_path}/pid').write_text(str(os.getpid())); time.sleep(600)"

    with pytest.raises(DriverSilent, match="did not end within 2 s"):
        see(program, timeout_s=2)

    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_success_without_an_answer_is_a_failure() -> None:
    with pytest.raises(DriverFailed, match="exit code 0"):
        see("print('hello')")


def test_the_program_needs_no_package_of_ours() -> None:
    """The driver's Python may be older than the one of Airflow."""
    from airflow_provider_offsets.backends.preflight import PROGRAM

    imports = [line for line in PROGRAM.read_text().splitlines() if "import" in line]

    assert not [line for line in imports if "airflow" in line]
    assert subprocess.run([sys.executable, "-m", "py_compile", PROGRAM], check=False).returncode == 0
