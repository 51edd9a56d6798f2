"""Description of this provider for Airflow, as data."""

from __future__ import annotations

from typing import Any

NAME = "airflow-provider-offsets"
"""Must equal the distribution's name: otherwise Airflow raises an error for all providers."""

DOCS = "https://airflow-provider-offsets.readthedocs.io/"
"""Address of the docs site. ``site_url`` of ``mkdocs.yml`` and ``project_urls`` of ``setup.cfg`` have it too."""

OPERATORS = (
    "snapshot",
    "preflight",
    "plan",
    "approve",
    "stop",
    "apply",
    "submit",
    "watch",
    "roll_back",
    "recover",
    "audit",
    "prune",
    "replay",
    "backfill",
)


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description, modules and connection type, with the form as data."""
    return {
        "package-name": NAME,
        "name": "Offsets",
        "description": "Leakproof Kafka to Spark streaming: snapshot, stop, plan, resubmit, audit.",
        "integrations": [
            {
                "integration-name": "Offsets",
                "external-doc-url": DOCS,
                "logo": f"{DOCS}assets/icon.svg",
                "tags": ["software"],
            }
        ],
        "operators": [_modules("operators", OPERATORS)],
        "sensors": [_modules("sensors", ("streaming_job", "job_died", "offsets_reached", "retention_runway"))],
        "hooks": [_modules("hooks", ("offsets",))],
        "triggers": [_modules("triggers", ("streaming_job", "retention_runway"))],
        "cli": ["airflow_provider_offsets.cli.commands.offsets_commands"],
        "connection-types": [_offsets_connection()],
    }


def _modules(layer: str, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "integration-name": "Offsets",
        "python-modules": [f"airflow_provider_offsets.{layer}.{name}" for name in names],
    }


def _offsets_connection() -> dict[str, Any]:
    return {
        "connection-type": "offsets",
        "hook-class-name": "airflow_provider_offsets.hooks.offsets.OffsetsHook",
        "hook-name": "Offset store",
        "ui-field-behaviour": {
            "hidden-fields": ["host", "schema", "port", "extra"],
            "relabeling": {"login": "User of the store", "password": "Password of the store"},
            "placeholders": {
                "login": "for zookeeper:// (digest), and for postgresql:// without a user in the URL",
                "password": "only for postgresql:// and zookeeper://",
            },
        },
        "conn-fields": {
            "url": {
                "label": "Store URL",
                "description": "hbase://host:9090/table, sqlite:////absolute/file.db, postgresql://user@host/database;"
                " of positions only: zookeeper://host:2181,host2:2181/chroot",
                "schema": {"type": "string", "minLength": 1},
            }
        },
    }
