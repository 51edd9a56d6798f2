"""Run a program with the spark-submit, jars and packages of a job, to see what its driver would find."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from airflow_provider_offsets.backends.detached import said
from airflow_provider_offsets.backends.driver_probe import ANSWER
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.preflight import Driver
from airflow_provider_offsets.errors import DriverFailed, DriverSilent

PROGRAM = Path(__file__).with_name("driver_probe.py")
REPORT_EVERY_S = 5


def see_driver(
    command: Sequence[str],
    env: Mapping[str, str],
    *,
    timeout_s: float,
    report: Callable[[str], None],
) -> Driver:
    """Return what the driver of a job would find. Packages that are not in the cache of Ivy are downloaded to it.

    :param command: the argument vector that runs ``PROGRAM``.
    :param env: the environment of the driver.
    :param timeout_s: seconds for the download and the program together.
    :param report: called with the progress.
    :raises DriverFailed: spark-submit failed, such as for a package that does not exist.
    :raises DriverSilent: the program did not end in time. It was stopped.
    """
    with tempfile.TemporaryFile() as output:
        running = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=dict(env)
        )
        try:
            has_ended = _wait(running, timeout_s, report)
        finally:
            running.kill()
            running.wait()
        output.seek(0)
        text = output.read().decode(errors="replace")
    answers = [line for line in text.splitlines() if line.startswith(ANSWER)]
    if running.returncode == 0 and answers:
        return codec.loads(Driver, answers[-1].removeprefix(ANSWER))
    if not has_ended:
        raise DriverSilent(
            seen=f"spark-submit did not end within {timeout_s:.0f} s; its output ends:\n{said(text)}\n",
            expected="its packages within that time",
            do="look at the repository of packages, and try again",
        )
    raise DriverFailed(
        seen=f"spark-submit ended with exit code {running.returncode}; its output ends:\n{said(text)}\n",
        expected="a program that starts with the jars, packages and conf of the job",
        do="correct job.packages, job.jars or job.conf as the output says",
    )


def _wait(running: subprocess.Popen[bytes], timeout_s: float, report: Callable[[str], None]) -> bool:
    """Return whether the process has ended in time."""
    began_s = time.monotonic()
    while (passed_s := time.monotonic() - began_s) < timeout_s:
        try:
            running.wait(min(REPORT_EVERY_S, timeout_s - passed_s))
            return True
        except subprocess.TimeoutExpired:
            report(f"{time.monotonic() - began_s:.0f} s: spark-submit fetches the packages of the job")
    return False
