"""Program that spark-submit runs for a preflight: prints what a driver of the job would find, and starts no session.

It runs with any Python 3 that Spark supports, without this package. Its arguments are the modules to import.
"""

import importlib
import json
import platform
import sys
from typing import Any

ANSWER = "offsets-preflight "
CONNECTORS = (
    "org.apache.spark.sql.kafka010.KafkaSourceProvider",
    "org.apache.spark.streaming.kafka010.KafkaUtils",
    "org.apache.spark.streaming.kafka.KafkaUtils",
)


def main(modules: list[str]) -> None:
    """Print one line of JSON."""
    import pyspark
    from pyspark.java_gateway import launch_gateway

    jvm = launch_gateway().jvm
    missing = {}
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            missing[module] = f"{type(error).__name__}: {error}"
    found = {
        "spark": getattr(getattr(jvm.org.apache.spark, "package$"), "MODULE$").SPARK_VERSION(),
        "pyspark": pyspark.__version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "connector": next(filter(None, (jar_of(jvm, name) for name in CONNECTORS)), ""),
        "missing": missing,
    }
    print(ANSWER + json.dumps(found), flush=True)


def jar_of(jvm: Any, name: str) -> str:
    """Return the file name of the jar that has a class, or an empty text.

    :param jvm: the JVM of spark-submit, as py4j shows it.
    :param name: full name of the class.
    """
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    found = loader.getResource(name.replace(".", "/") + ".class")
    return "" if found is None else str(found.toString()).partition("!")[0].rpartition("/")[2]


if __name__ == "__main__":
    main(sys.argv[1:])
