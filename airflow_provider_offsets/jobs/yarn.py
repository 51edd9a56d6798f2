"""An application on YARN: whether anything is left of it, and its kill.

Asked are the ResourceManager and the NodeManagers, over REST. An application is known by the tag that its submit gave
it, so that nothing else is ever taken for it, or killed.
"""

from __future__ import annotations

from typing import Any

import httpx

from airflow_provider_offsets.core.epoch import YarnApplication

TIMEOUT_S = 5.0
_OVER = ("FINISHED", "FAILED", "KILLED")
_RUNS_NOTHING = ("NEW", "SHUTDOWN", "DECOMMISSIONED")
"""States of a node which has nothing, or which has ended its containers before it left."""


def left_on_yarn(application: YarnApplication) -> str:
    """Say what is left of an application, for people; empty if nothing is.

    That the ResourceManager says ``KILLED`` is not enough: it does at once, while the containers still run, and write.
    Their nodes are asked too. What does not answer counts as left: unknown is not dead. An application that nobody
    knows is over, or was never submitted, so ask once what submits it is gone.
    """
    try:
        with _client() as client:
            found = _applications(client, application)
            for each in found:
                if each["state"] not in _OVER:
                    return f"{each['id']} is {each['state']} on YARN"
            # Twice: what asks for containers may have got one on a node that was looked at before its own.
            looks = (_containers(client, application, each) for _ in range(2) for each in found)
            return next(filter(None, looks), "")
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        return f"unknown: {_words(application, error)}"


def kill_on_yarn(application: YarnApplication) -> str:
    """Ask for the kill of an application, and give what went wrong, for people; empty if it was taken.

    The answer comes before the kill (HTTP 202), and one that is over may be killed again.
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
    # A ResourceManager on standby answers with the address of the active one.
    return httpx.Client(timeout=TIMEOUT_S, follow_redirects=True, headers={"Accept": "application/json"})


def _get(client: httpx.Client, url: str, **params: str) -> dict[str, Any]:
    answer = client.get(url, params=params)
    answer.raise_for_status()
    return dict(answer.json())


def _applications(client: httpx.Client, application: YarnApplication) -> list[dict[str, Any]]:
    """Those that bear the tag: one, or none."""
    url = f"{application.resource_manager}/ws/v1/cluster/apps"
    found = (_get(client, url, applicationTags=application.tag)["apps"] or {}).get("app") or []
    return [each for each in found if application.tag in each["applicationTags"].split(",")]


def _containers(client: httpx.Client, application: YarnApplication, found: dict[str, Any]) -> str:
    """What the nodes say of the containers of an application that is over."""
    scheme = application.resource_manager.partition("://")[0]
    number = f"_{found['id'].removeprefix('application_')}_"
    answer = _get(client, f"{application.resource_manager}/ws/v1/cluster/nodes")
    for node in (answer["nodes"] or {}).get("node") or []:
        if node["state"] in _RUNS_NOTHING:
            continue
        if node["state"] in ("LOST", "REBOOTED"):
            # Nobody can ask it. It was there when the application was, or it had nothing of it.
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
