"""The image ``debian:bookworm-slim``, made by debootstrap if no image registry is reachable."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stack.problem import Problem
from stack.report import Ticker, say

IMAGE = "debian:bookworm-slim"
_CERTIFICATES = Path("/usr/local/share/ca-certificates")


def is_there() -> bool:
    """Return whether Docker has the image."""
    return subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False).returncode == 0


def pull() -> bool:
    """Pull the image, and return whether that succeeded."""
    return subprocess.run(["docker", "pull", "-q", IMAGE], capture_output=True, check=False).returncode == 0


def make() -> None:
    """Create the image, with the certificate authorities that this machine's administrator has added.

    The image gets its name only when it is complete.

    :raises Problem: a program or a permission is missing, or debootstrap failed.
    """
    for program in ("debootstrap", "docker"):
        if shutil.which(program) is None:
            raise Problem(
                f"PATH has no {program}",
                expected="debootstrap and docker",
                do="install both (Debian: apt install debootstrap docker.io)",
            )
    if os.geteuid() != 0:
        raise Problem(
            f"debootstrap was started by uid {os.geteuid()}", expected="root", do="run: sudo make compose-base"
        )
    with tempfile.TemporaryDirectory(prefix="compose-base-") as folder, Ticker("base", lambda: "debootstrap") as ticker:
        root = Path(folder) / "root"
        _run(["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(root)])
        for certificate in sorted(_CERTIFICATES.glob("*.crt")):
            shutil.copy(certificate, root / str(_CERTIFICATES).lstrip("/"))
        _run(["chroot", str(root), "update-ca-certificates"])
        archives = root / "var/cache/apt/archives"
        for left in archives.glob("*.deb"):
            left.unlink()
        _import(root)
        say("base", f"{IMAGE} made in {ticker.seconds:.0f} s")


def _import(root: Path) -> None:
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as packing:
        image = subprocess.run(
            ["docker", "import", "-"], stdin=packing.stdout, capture_output=True, text=True, check=False
        )
    if packing.returncode != 0 or image.returncode != 0:
        raise Problem(
            f"docker import ended with code {image.returncode}, and tar with code {packing.returncode}",
            expected="code 0 of both",
            do="check that dockerd is up",
            detail=image.stderr,
        )
    _run(["docker", "tag", image.stdout.strip(), IMAGE])


def _run(argv: Sequence[str]) -> None:
    ended = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        detail = "\n".join((ended.stdout + ended.stderr).splitlines()[-20:])
        raise Problem(
            f"{argv[0]} ended with code {ended.returncode}",
            expected="code 0",
            do="read the last lines of its output, below",
            detail=detail,
        )
