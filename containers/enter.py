"""The entry point of every container: becomes the requested server, or prints one line about what is wrong.

It runs inside the images, with Debian's own Python and the standard library. It writes files to a volume, and prints to
the container's log.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from stack import hbase, kafka
from stack.problem import Problem

DATA = Path("/var/lib/offsets")
"""Volume of the server in this container."""
JARS = Path("/opt/jars")
AIRFLOW_HOME = Path("/opt/airflow")
POSTGRES = Path("/usr/lib/postgresql/15/bin")
DATABASE = "airflow"
LEAST_GIB = 7.0
"""A machine sold with 8 GiB reports slightly less."""

BROKER, CONTROLLER, LOCAL, THRIFT, ZOOKEEPER, API = 9092, 9093, 19092, 9090, 2181, 8080


def main(argv: Sequence[str] | None = None) -> int:
    """Become the server named by the first argument; return an exit code only if that fails."""
    role, *rest = sys.argv[1:] if argv is None else argv
    try:
        if role == "healthy":
            return _healthy(rest[0])
        require_memory(Path("/proc/meminfo").read_text(encoding="ascii"))
        if "AIRFLOW_HOME" in os.environ:
            hold_name(AIRFLOW_HOME)
            name_machine(AIRFLOW_HOME)
        if role in ROLES:
            ROLES[role]()
        become([role, *rest])
    except Problem as problem:
        print(f"{role}: {problem}", file=sys.stderr, flush=True)
        if problem.detail:
            print(problem.detail, file=sys.stderr, flush=True)
        return 1


def become(argv: Sequence[str], **env: str) -> NoReturn:
    """Replace this process by a program.

    :param env: additional environment variables.
    """
    os.execvpe(argv[0], list(argv), {**os.environ, **env})  # noqa: S606 - that is the point of an entry point


def setting(name: str, form: str) -> str:
    """Return an environment variable that docker-compose.yml passes on from .env.

    :param form: regular expression that the whole value must match.
    :raises Problem: the variable is missing or has another form.
    """
    value = os.environ.get(name, "")
    if not re.fullmatch(form, value):
        seen = f"{name} has {len(value)} characters of another form" if value else f"{name} is empty"
        raise Problem(
            seen,
            expected=f"a value that matches {form}",
            do="correct .env as .env.example explains, or remove .env and run: make compose-password",
        )
    return value


def require_memory(meminfo: str) -> None:
    """Raise if the machine has too little memory for the limits in docker-compose.yml.

    :param meminfo: content of ``/proc/meminfo``.
    """
    found = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    gib = int(found[1]) / 2**20 if found else 0.0
    if gib < LEAST_GIB:
        raise Problem(
            f"Docker's machine has {gib:.1f} GiB of memory",
            expected="8 GiB",
            do="assign more (Docker Desktop: Settings, Resources), or start fewer services: docker compose up kafka",
        )


def version_of(jars: Path, artifact: str) -> str:
    """Return the version of a server from the name of its jar.

    :param jars: directory of the jars.
    :param artifact: Maven artifact of the jar.
    :raises Problem: the jar does not exist, because the image was not built completely.
    """
    found = sorted(jars.glob(f"{artifact}-[0-9]*.jar"))
    if not found:
        raise Problem(
            f"{jars} has no {artifact}-*.jar",
            expected="a complete image",
            do="run: docker compose build --no-cache",
        )
    return found[0].stem.removeprefix(f"{artifact}-")


def require_version(volume: Path, made_by: str) -> None:
    """Write the server's name and version to its volume; raise if another version has written to the volume.

    :param volume: directory of the volume.
    :param made_by: name and version of the server.
    :raises Problem: the volume is of another version, or not writable.
    """
    mark = volume / "made-by"
    if not os.access(volume, os.W_OK):
        raise Problem(
            f"the volume at {volume} cannot be written by uid {os.getuid()}",
            expected="a volume of that user",
            do="remove the volumes with all data: docker compose down --volumes",
        )
    if not mark.exists():
        mark.write_text(f"{made_by}\n", encoding="utf-8")
    elif (seen := mark.read_text(encoding="utf-8").strip()) != made_by:
        raise Problem(
            f"the volume at {volume} was made by {seen}",
            expected=made_by,
            do="build the older version, or remove the volumes with all data: docker compose down --volumes",
        )


def hold_name(folder: Path) -> None:
    """Hold a lock so that no second container has this host name while this process runs.

    A driver is identified by host, boot, pid and start time. A second container with the same host name would not see
    the driver's process, and would take the driver for dead. The lock is released when this process ends.

    :param folder: directory of the lock file.
    :raises Problem: another container has the host name.
    """
    lock = os.open(folder / f"{socket.gethostname()}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        name = socket.gethostname()
        raise Problem(
            f"another container has the host name {name}",
            expected="one container of that name, because drivers are identified by it",
            do=f"run commands in that container: docker compose exec {name} airflow …",
        ) from error
    os.set_inheritable(lock, True)  # inherited by the server, which holds the lock from here on


def name_machine(folder: Path) -> None:
    """Choose the id that ``/etc/machine-id`` of this image links to, unless an earlier container has chosen it.

    The id is on a volume, because after a reboot of the machine it tells a driver of the earlier container from a
    driver on another machine. The machine's own file cannot be mounted everywhere: Docker Desktop has none.

    :param folder: directory of the volume.
    """
    own = folder / f"machine-id.{socket.gethostname()}"
    own.unlink(missing_ok=True)  # an interrupted start has left one file with both names: a write would change the id
    own.write_text(f"{uuid.uuid4().hex}\n", encoding="ascii")
    with suppress(FileExistsError):
        os.link(own, folder / "machine-id")
    own.unlink()


def _java(heap_mb: int, *options: str) -> list[str]:
    lean = ("-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Dorg.slf4j.simpleLogger.showDateTime=true")
    return ["java", f"-Xmx{heap_mb}m", *lean, *options]


def _heap_mb() -> int:
    return int(setting("HEAP_MB", "[0-9]+"))


def _kafka() -> None:
    require_version(DATA, f"kafka {version_of(JARS, 'kafka_2.13')}")
    properties = DATA / "server.properties"
    properties.write_text(kafka_properties(int(setting("KAFKA_PORT", "[0-9]+"))), encoding="utf-8")
    java = _java(_heap_mb(), "-cp", f"{JARS}/*")
    log = DATA / "log"
    if not (log / "meta.properties").exists():
        shutil.rmtree(log, ignore_errors=True)
        cluster = kafka.cluster_id()
        subprocess.run([*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)], check=True)
    become([*java, "kafka.Kafka", str(properties)])


def kafka_properties(port: int) -> str:
    """Return the broker's settings: those of the stack, with one listener for this network and one for the host.

    :param port: port on the loopback interface under which the host reaches the broker.
    """
    ours = {
        "listeners": f"BROKER://:{BROKER},CONTROLLER://:{CONTROLLER},LOCAL://:{LOCAL}",
        "advertised.listeners": f"BROKER://kafka:{BROKER},LOCAL://127.0.0.1:{port}",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT,LOCAL:PLAINTEXT",
        "controller.quorum.voters": f"1@kafka:{CONTROLLER}",
        "log.retention.check.interval.ms": "300000",
    }
    stack = kafka.PROPERTIES.format(host="kafka", broker=BROKER, controller=CONTROLLER, data=DATA / "log")
    kept = [line for line in stack.splitlines() if line.partition("=")[0] not in ours and not line.startswith("#")]
    return "\n".join([*kept, *(f"{name}={value}" for name, value in ours.items()), ""])


def _hbase() -> None:
    """Run HBase's master (with region server and ZooKeeper) and the Thrift server in one container.

    They share a container because ZooKeeper listens on the loopback interface. The container ends when one of them
    ends.
    """
    require_version(DATA, f"hbase {version_of(JARS, 'hbase-server')}")
    conf = Path("/tmp/conf")  # noqa: S108 - of this container alone
    hbase.configure(conf, hbase_settings())
    classes = ["-cp", f"{conf}:{JARS}/*"]
    master = [*_java(_heap_mb(), *hbase.OPENS, *classes), "org.apache.hadoop.hbase.master.HMaster", "start"]
    thrift = [*_java(_heap_mb() // 3, *hbase.OPENS, *classes), "org.apache.hadoop.hbase.thrift.ThriftServer", "start"]
    sys.exit(beside(master, thrift))


def beside(*commands: Sequence[str]) -> int:
    """Run programs until one ends, end the others, and return its exit code. SIGTERM is passed on to all of them."""
    running = [subprocess.Popen(command) for command in commands]

    def end(*_: object) -> None:
        for each in running:
            each.terminate()

    signal.signal(signal.SIGTERM, end)
    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    end()
    return max((each.wait() for each in running), key=abs)


def hbase_settings() -> dict[str, str | int]:
    """Return the settings of HBase's processes.

    Hadoop's ``LocalFileSystem`` buffers writes that HBase has acknowledged. The *raw* one passes them to the operating
    system at once, so a killed container loses none. HBase is configured to enforce this.
    """
    return {
        "hbase.rootdir": (DATA / "data").as_uri(),
        "hbase.tmp.dir": "/tmp/hbase",  # noqa: S108 - of this container alone
        "fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
        "hbase.wal.provider": "filesystem",
        "hbase.unsafe.stream.capability.enforce": "true",
        "hbase.master.info.port": -1,
        "hbase.regionserver.info.port": -1,
        "hbase.thrift.info.port": -1,
        "hbase.zookeeper.quorum": "127.0.0.1",
        "hbase.zookeeper.property.clientPort": ZOOKEEPER,
        "hbase.zookeeper.property.dataDir": str(DATA / "zookeeper"),
        # After a kill, the new master waits until the session of the old one expires: 90 s by default.
        "zookeeper.session.timeout": 30_000,
        "hbase.regionserver.thrift.port": THRIFT,
    }


def _postgres() -> None:
    password = setting("POSTGRES_PASSWORD", "[A-Za-z0-9_-]{16,}")
    version = subprocess.run([POSTGRES / "postgres", "--version"], capture_output=True, text=True, check=True)
    require_version(DATA, f"postgresql {version.stdout.split()[2].partition('.')[0]}")
    data, draft = DATA / "data", DATA / "draft"
    if not data.exists():
        shutil.rmtree(draft, ignore_errors=True)
        init = [POSTGRES / "initdb", "-D", draft, "-U", DATABASE, "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust"]
        subprocess.run(init, check=True)
        _sql(draft, f"CREATE DATABASE {DATABASE};\n")
        (draft / "pg_hba.conf").write_text("local all all trust\nhost all all all scram-sha-256\n", encoding="ascii")
        draft.rename(data)
    # On every start, because the password in .env applies even after a change.
    _sql(data, f"ALTER ROLE {DATABASE} PASSWORD '{password}';\n")
    become([str(POSTGRES / "postgres"), "-D", str(data), "-c", "listen_addresses=*", "-c", "shared_buffers=48MB"])


def _sql(data: Path, text: str) -> None:
    """Run a statement without a server. A password in the statement does not appear in an argument list or a log."""
    (data / "postmaster.pid").unlink(missing_ok=True)  # left by the previous container, which was alone in its volume
    argv = [POSTGRES / "postgres", "--single", "-D", data, "postgres"]
    ended = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if ended.returncode != 0 or "ERROR" in ended.stderr:
        raise Problem(
            f"PostgreSQL refused a statement, and ended with code {ended.returncode}",
            expected="code 0 and no error",
            do="read its output, below",
            detail=ended.stderr,
        )


def _spark_master() -> None:
    # Applications and workers are stored, so that a restarted master can recover them.
    options = f"-Dspark.deploy.recoveryMode=FILESYSTEM -Dspark.deploy.recoveryDirectory={DATA}"
    become(["spark-class", "org.apache.spark.deploy.master.Master", "-h", "spark-master"], SPARK_MASTER_OPTS=options)


def _spark_worker() -> None:
    argv = ["spark-class", "org.apache.spark.deploy.worker.Worker", "-h", "spark-worker", "-d", "/tmp/work"]  # noqa: S108
    become([*argv, setting("SPARK_MASTER", "spark://.+")])


def _airflow(part: str) -> Callable[[], None]:
    def run() -> None:
        _write_passwords()
        become(["airflow", part])

    return run


def _write_passwords() -> None:
    """Write the file of Airflow's simple auth manager. Otherwise Airflow would generate a password and log it."""
    file = Path("/tmp/passwords.json")  # noqa: S108 - of this container alone
    file.unlink(missing_ok=True)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as opened:
        json.dump({"admin": setting("AIRFLOW_ADMIN_PASSWORD", ".{12,}")}, opened)


ROLES: dict[str, Callable[[], None]] = {
    "kafka": _kafka,
    "hbase": _hbase,
    "postgres": _postgres,
    "spark-master": _spark_master,
    "spark-worker": _spark_worker,
    **{part: _airflow(part) for part in ("api-server", "scheduler", "dag-processor", "triggerer")},
}
"""Servers by name. Any other first argument is a program, such as that of ``init``."""


def _healthy(role: str) -> int:
    """Run the health check of a role. Docker shows its output in ``docker inspect``."""
    trouble = HEALTH[role]()
    print(trouble or "healthy")
    return 1 if trouble else 0


def _of_airflow(part: str) -> Callable[[], str]:
    """Return a check of a part of Airflow, based on the part's heartbeat in the health API."""

    def look() -> str:
        try:
            with urllib.request.urlopen(f"http://api-server:{API}/api/v2/monitor/health", timeout=20) as reply:
                status = (json.load(reply).get(part) or {}).get("status")
        except (OSError, ValueError) as error:
            return f"no answer of the API server: {error}"
        return "" if status == "healthy" else f"{part} is {status}"

    return look


def _open(port: int) -> Callable[[], str]:
    def look() -> str:
        try:
            with socket.create_connection((socket.gethostname(), port), timeout=5):
                return ""
        except OSError as error:
            return f"nobody listens on {port}: {error}"

    return look


def _postgres_answers() -> str:
    argv = [POSTGRES / "pg_isready", "-h", "127.0.0.1", "-d", DATABASE, "-U", DATABASE]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    return "" if ended.returncode == 0 else ended.stdout


HEALTH: dict[str, Callable[[], str]] = {
    "kafka": lambda: kafka.answers({"bootstrap_servers": f"kafka:{BROKER}"}),
    "hbase": lambda: hbase.answers({"thrift": f"hbase:{THRIFT}"}),
    "postgres": _postgres_answers,
    "spark-master": _open(7077),
    "spark-worker": _open(8081),
    "api-server": _of_airflow("metadatabase"),
    "scheduler": _of_airflow("scheduler"),
    "dag-processor": _of_airflow("dag_processor"),
    "triggerer": _of_airflow("triggerer"),
}

if __name__ == "__main__":
    sys.exit(main())
