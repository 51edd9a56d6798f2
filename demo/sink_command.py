"""Ask the command line for what the sink of the demo's pipeline proves, as a person would."""

import json
import os
import subprocess
from collections.abc import Mapping

from demo import PIPELINE, fresh
from demo.progress import DemoFailed


def sink_verdict(env: Mapping[str, str]) -> str:
    """Return the verdict of ``airflow offsets audit --sink``: ``proven``, ``not-proven`` or ``refuted``.

    :param env: environment variables of Airflow.
    :raises DemoFailed: the command printed no report.
    """
    argv = ["airflow", "offsets", "audit", "--pipeline", PIPELINE, "--sink", "--output", "json"]
    done = subprocess.run(argv, cwd=fresh.ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    try:
        report = json.loads(done.stdout)["sink"]
    except (ValueError, KeyError) as error:
        raise DemoFailed(f"{' '.join(argv)}: {done.stdout[-2000:]}{done.stderr[-2000:]}") from error
    for reason in report["reasons"]:
        print(f"sink: {reason}")
    return str(report["verdict"]).replace(" ", "-")
