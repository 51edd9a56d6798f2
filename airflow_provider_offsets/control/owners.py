"""Owners of what only one pipeline may use, such as a checkpoint: one control record for all pipelines of a store.

All resources are in one record, so a pipeline claims all of its resources in one step, or none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from airflow_provider_offsets.control.cells import load_cell
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.stores.protocols import ControlStore
from airflow_provider_offsets.stores.rules import ALL_PIPELINES

OWNERS = "owners"


@dataclass(frozen=True)
class Owners:
    """Resources with their owners."""

    version: int = 0
    """Grows with each change, so that a compare-and-set never takes a later state for the one that it has read."""
    of: dict[str, str] = field(default_factory=dict)
    """Names of pipelines, by resource."""


def owners_of(store: ControlStore, resources: Iterable[str]) -> dict[str, str]:
    """Return the owners of those resources that a pipeline has claimed.

    :param store: the control store.
    :param resources: names of checkpoints, histories and positions.
    :returns: the pipeline that owns each claimed resource; other resources are omitted.
    """
    owners = _load(store.get(ALL_PIPELINES, OWNERS)).of
    return {each: owners[each] for each in resources if each in owners}


def claim_resources(store: ControlStore, pipeline: str, resources: Iterable[str]) -> dict[str, str]:
    """Claim all of these resources for a pipeline, or none if another pipeline owns one of them.

    Safe to repeat.

    :param store: the control store of the pipeline.
    :param pipeline: name of the pipeline.
    :param resources: as ``StreamingPipeline.resources`` names them.
    :returns: the owners of the resources afterwards.
    """
    claimed = dict.fromkeys(resources, pipeline)

    def claim(of: Mapping[str, str]) -> Mapping[str, str]:
        is_free = all(of.get(each, pipeline) == pipeline for each in claimed)
        return {**of, **claimed} if is_free else of

    after = _change(store, claim)
    return {each: after[each] for each in claimed if each in after}


def hand_over(store: ControlStore, old: str, new: str, *, is_due: Callable[[], bool]) -> None:
    """Transfer everything that a pipeline owns to its new name. Safe to repeat.

    :param store: the control store of the pipeline.
    :param old: the name that owns.
    :param new: the name that shall own.
    :param is_due: called after each read; False: the pipeline has been renamed again, so nothing is changed.
    """
    _change(store, lambda of: {each: new if name == old else name for each, name in of.items()} if is_due() else of)


def release_resources(store: ControlStore, pipeline: str, resources: Iterable[str]) -> None:
    """Take these resources from a pipeline if it owns them. Safe to repeat.

    :param store: the control store of the pipeline.
    :param pipeline: name of the owner.
    :param resources: what it shall no longer own.
    """
    released = set(resources)
    _change(store, lambda of: {each: name for each, name in of.items() if name != pipeline or each not in released})


def _change(store: ControlStore, decide: Callable[[Mapping[str, str]], Mapping[str, str]]) -> Mapping[str, str]:
    """Set the owners to what ``decide`` returns for the current ones, and return them."""
    while True:
        text = store.get(ALL_PIPELINES, OWNERS)
        before = _load(text)
        after = dict(decide(before.of))
        if after == before.of:
            return after
        changed = Owners(before.version + 1, dict(sorted(after.items())))
        if store.check_and_put(ALL_PIPELINES, OWNERS, text, codec.dumps(changed)):
            return after


def _load(text: str | None) -> Owners:
    return Owners() if text is None else load_cell(Owners, ALL_PIPELINES, OWNERS, text)
