"""An application on YARN: whether anything of it still runs, and how to kill it.

This module asks the ResourceManager and the NodeManagers over REST. An application is identified by the tag that its
submit set, so that no other application is ever mistaken for it or killed.
"""

from __future__ import annotations

import functools
import ssl
from typing import Any

import httpx

from airflow_provider_offsets.core.epoch import YarnApplication

TIMEOUT_S = 5.0
_OVER = ("FINISHED", "FAILED", "KILLED")
_RUNS_NOTHING = ("NEW", "SHUTDOWN", "DECOMMISSIONED")
"""States of a node that has run nothing, or that ended its containers before it left the cluster."""


def left_on_yarn(application: YarnApplication) -> str:
    """Return a message about what is left of an application; empty if nothing is left.

    The ResourceManager reports ``KILLED`` at once, while containers still run and write. So their nodes are asked too.
    Without an answer, the application counts as left: unknown is not dead. An application that YARN does not know has
    ended or was never submitted, so call this function after the submitting process has ended.
    """
    try:
        with _client() as client:
            found = _applications(client, application)
            for each in found:
                if each["state"] not in _OVER:
                    return f"{each['id']} is {each['state']} on YARN"
            # Check twice: an ApplicationMaster may have received a container on a node that was already checked.
            answers = (_containers(client, application, each) for _ in range(2) for each in found)
            return next(filter(None, answers), "")
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        return f"unknown: {_words(application, error)}"


def kill_on_yarn(application: YarnApplication) -> str:
    """Request the kill of an application, and return an error message; empty if YARN accepted the request.

    YARN answers before the kill (HTTP 202). Killing an application that has ended does no harm.
    """
    try:
        with _client() as client:
            for each in _applications(client, application):
                if each["state"] not in _OVER:
                    url = f"{application.resource_manager}/ws/v1/cluster/apps/{each['id']}/state"
                    client.put(url, json={"state": "KILLED"}).raise_for_status()
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        return _words(application, error)
    return ""


def _client() -> httpx.Client:
    # A standby ResourceManager redirects to the active one.
    headers = {"Accept": "application/json"}
    return httpx.Client(timeout=TIMEOUT_S, follow_redirects=True, headers=headers, verify=_certificates())


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Return the certificates that httpx trusts. Cached, because loading them takes longer than a request."""
    return httpx.create_ssl_context()


def _get(client: httpx.Client, url: str, **params: str) -> dict[str, Any]:
    answer = client.get(url, params=params)
    answer.raise_for_status()
    return dict(answer.json())


def _applications(client: httpx.Client, application: YarnApplication) -> list[dict[str, Any]]:
    """Return the applications with this tag: one or none."""
    url = f"{application.resource_manager}/ws/v1/cluster/apps"
    found = (_get(client, url, applicationTags=application.tag)["apps"] or {}).get("app") or []
    return [each for each in found if application.tag in each["applicationTags"].split(",")]


def _containers(client: httpx.Client, application: YarnApplication, found: dict[str, Any]) -> str:
    """Return a message about containers that still run although their application has ended; empty if none do."""
    scheme = application.resource_manager.partition("://")[0]
    number = f"_{found['id'].removeprefix('application_')}_"
    answer = _get(client, f"{application.resource_manager}/ws/v1/cluster/nodes")
    for node in (answer["nodes"] or {}).get("node") or []:
        if node["state"] in _RUNS_NOTHING:
            continue
        if node["state"] in ("LOST", "REBOOTED"):
            # The node cannot be asked. It ran nothing of the application if it was last alive before the application
            # started.
            if node["lastHealthUpdate"] >= found["startedTime"]:
                return f"unknown: node {node['id']} is {node['state']}, and may have run containers of {found['id']}"
            continue
        held = _get(client, f"{scheme}://{node['nodeHTTPAddress']}/ws/v1/node/containers")
        for container in (held["containers"] or {}).get("container") or []:
            if number in container["id"] and container["state"] != "DONE":
                return f"{container['id']} is {container['state']} on {node['id']}"
    return ""


def _words(application: YarnApplication, error: Exception) -> str:
    return f"YARN at {application.resource_manager} gave no answer ({type(error).__name__}: {error})"
