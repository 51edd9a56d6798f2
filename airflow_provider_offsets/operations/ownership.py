"""Make sure that no two pipelines use the same checkpoint, history or stored position.

A pipeline is known by its name. So a changed name in ``pipelines.yaml`` looks like a new pipeline, which never ran and
has no position, while the job of the old name may run. What the job uses shows that both are the same job.
"""

from __future__ import annotations

from collections.abc import Mapping

from airflow_provider_offsets.control.owners import claim_resources, owners_of
from airflow_provider_offsets.core.listing import first_few
from airflow_provider_offsets.errors import StateLost
from airflow_provider_offsets.operations.session import Session


def require_own(session: Session) -> None:
    """Raise if another pipeline owns what this pipeline uses. Nothing is changed.

    :raises StateLost: another pipeline owns a resource.
    """
    _require(session, owners_of(session.store, session.pipeline.resources))


def claim_own(session: Session) -> None:
    """Claim what this pipeline uses, before anything acts on it. Safe to repeat.

    A resource stays claimed when the pipeline no longer uses it, because its job may still run there: see
    ``renaming.release``.

    :raises StateLost: another pipeline owns a resource; nothing was claimed.
    """
    _require(session, claim_resources(session.store, session.pipeline.name, session.pipeline.resources))


def _require(session: Session, owners: Mapping[str, str]) -> None:
    new = session.pipeline.name
    foreign = {resource: owner for resource, owner in owners.items() if owner != new}
    if not foreign:
        return
    old = next(iter(foreign.values()))
    raise StateLost(
        seen=f"pipeline {new!r} uses the {first_few(foreign, limit=1)}, which pipeline {old!r} owns",
        expected="a checkpoint, marker, history and stored position that no other pipeline of this control store uses",
        do=f"if {old!r} is the previous name of {new!r}, run 'airflow offsets rename {old} {new}'. If they are two"
        f" pipelines, give one of them another checkpoint or group_id, or another marker. If {old!r} no longer uses it,"
        f" run 'airflow offsets release {old} {new}'",
    )
