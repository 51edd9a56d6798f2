"""Error for a missing client library; names the running Python, because a driver's Python is often another one."""

from __future__ import annotations

import sys

from airflow_provider_offsets.errors import StoreClientMissing


def client_missing(package: str, store: str) -> StoreClientMissing:
    """Return the error that names the package and the Python that lacks it.

    :param package: name of the package, as pip installs it.
    :param store: kind of the store, for the message.
    """
    return StoreClientMissing(
        seen=f"{sys.executable} has no package {package!r}",
        expected=f"the client library of {store} in the Python that runs this",
        do=f"run `{sys.executable} -m pip install '{package}'`",
    )
