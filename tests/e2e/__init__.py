"""End-to-end tests on real servers, with an Airflow home of their own that ignores the caller's Airflow.

Airflow reads its environment when it is imported, so this module sets it before every import of Airflow.
"""

import atexit
import multiprocessing
import os
import shutil
import tempfile

# A process that a test starts inherits the environment of that test.
if multiprocessing.current_process().name == "MainProcess":
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        del os.environ[name]
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-e2e-")
    atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
