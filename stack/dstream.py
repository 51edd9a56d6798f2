"""An installation of Spark 3.5 for ``jobs/dstream``: jars, conf, and a ``spark3-submit`` command."""

import shlex

from stack import maven, needs
from stack.places import JARS, STATE

NAME = "dstream"
JAR = JARS / NAME / "build" / "dstream.jar"
"""Jar of the job."""
HOME = STATE / NAME
BIN = HOME / "bin"
"""Directory of ``spark3-submit``, one of the three command names that Airflow's Spark provider accepts."""
CONF = HOME / "conf"

# The packages that Spark's own launcher (JavaModuleOptions) opens.
_OPENS = (
    "java.base/java.lang",
    "java.base/java.lang.invoke",
    "java.base/java.lang.reflect",
    "java.base/java.io",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.base/sun.nio.cs",
    "java.base/sun.security.action",
    "java.base/sun.util.calendar",
)
_MEMORY = ("-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

_LOG4J = """\
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yy/MM/dd HH:mm:ss} %p %c{1}: %m%n%ex
"""


def install() -> None:
    """Write the conf and the launcher, for the jars that :func:`stack.maven.fetch` has downloaded.

    The launcher replaces the shell by one JVM, so its pid is the driver's pid. It supports client mode only, with a
    fixed memory size: ``--driver-memory`` has no effect on a JVM that already runs.
    """
    opens = [f"--add-opens={package}=ALL-UNNAMED" for package in _OPENS]
    classpath = f"{CONF}:{maven.fetch(NAME)}/*"
    argv = [needs.java(), *_MEMORY, *opens, "-cp", classpath, "org.apache.spark.deploy.SparkSubmit"]
    CONF.mkdir(parents=True, exist_ok=True)
    BIN.mkdir(exist_ok=True)
    (CONF / "log4j2.properties").write_text(_LOG4J, encoding="utf-8")
    launcher = BIN / "spark3-submit"
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n', encoding="utf-8")
    launcher.chmod(0o755)
