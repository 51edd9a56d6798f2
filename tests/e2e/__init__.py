"""Whole stories on real servers, in an Airflow home of their own: they see nothing of the caller's Airflow.

Airflow reads its environment when it is imported, so this comes before every import of it.
"""

import atexit
import multiprocessing
import os
import shutil
import tempfile

# A process that a story starts has the environment of its story.
if multiprocessing.current_process().name == "MainProcess":
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        del os.environ[name]
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-e2e-")
    atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
