"""Requirements on the machine; a missing one is reported in one line."""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from stack.problem import Problem

JAVA = 17


def linux() -> None:
    """Raise on a system without /proc, which is read for processes and memory."""
    if not Path("/proc/self/stat").exists():
        raise Problem(
            f"this machine has no /proc ({sys.platform})", expected="Linux", do="use a Linux machine or container"
        )


@functools.cache
def java() -> str:
    """Return the path of ``java``, from JAVA_HOME or the PATH."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    hint = "install a JDK (Debian: apt install openjdk-17-jdk-headless) or set JAVA_HOME"
    if found is None:
        raise Problem(
            f"{home}/bin has no java" if home else "PATH has no java", expected=f"a JDK {JAVA} or newer", do=hint
        )
    done = subprocess.run([found, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(\d+)', done.stderr)
    if version is None or int(version[1]) < JAVA:
        seen = version[1] if version else done.stderr.strip().partition("\n")[0] or "unknown"
        raise Problem(f"the version of {found} is {seen}", expected=f"Java {JAVA} or newer", do=hint)
    return found


def python(version: str) -> str:
    """Return the path of a Python of a version such as ``3.9``, from the PATH or from pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    there = [shutil.which(f"python{version}"), *map(str, sorted(pyenv.glob(f"{version}.*/bin/python")))]
    for path in filter(None, there):
        # pyenv puts a program of this name on the PATH for each version, and only some of them start.
        done = subprocess.run([path, "-V"], capture_output=True, text=True, check=False)
        if done.stdout.startswith(f"Python {version}."):
            return path
    raise Problem(
        f"neither the PATH nor pyenv has Python {version}",
        expected="one of each version that a driver may have",
        do=f"install it, for example with: pyenv install {version}",
    )


def maven() -> str:
    """Return the path of ``mvn``, which downloads the servers' jars."""
    found = shutil.which("mvn")
    if found is None:
        raise Problem("PATH has no mvn", expected="Maven 3.6 or newer", do="install Maven (Debian: apt install maven)")
    return found


def memory(servers: dict[str, float]) -> None:
    """Raise if the servers together need more GiB of memory than the machine has available."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    free = int(re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)[1]) / 2**20  # type: ignore[index]
    wanted = sum(servers.values())
    if free < wanted:
        raise Problem(
            f"the machine has {free:.1f} GiB of memory available",
            expected=f"{wanted:.1f} GiB for {', '.join(servers)}",
            do="stop other programs, or start fewer servers: python3 -m stack up kafka",
        )
