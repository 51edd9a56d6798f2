"""Conversion of the selectors' results into the inputs of a plan."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_offsets.core.known import known_offsets
from airflow_provider_offsets.core.listing import first_few
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.problem import Problem, ProblemKind
from airflow_provider_offsets.core.restart.comparison import resolve_conflicts
from airflow_provider_offsets.core.restart.model import OnConflict
from airflow_provider_offsets.core.selectors.model import Chosen, StartSelector
from airflow_provider_offsets.core.selectors.resolve import Committed, FromFile, Offsets, Shift, Start
from airflow_provider_offsets.core.snapshot import Observation

LONGEST = 60
"""Maximum number of characters of a selector in a row of a plan."""


@dataclass(frozen=True)
class StartChoice:
    """Offsets that the selectors of a start chose, with the problems."""

    wanted: Position
    chosen_by: dict[TopicPartition, str]
    """Description of the selector that chose, where the choice is not obvious: see ``PartitionPlan.chosen_by``."""
    problems: tuple[Problem, ...]
    named: frozenset[TopicPartition]
    """The partitions whose start was left neither to the stores that lost it nor to a fallback: see ``known.replaced``.
    """


def weigh(
    start: Start, chosen: Mapping[TopicPartition, Chosen], seen: Observation, on_conflict: OnConflict
) -> StartChoice:
    """Return the offsets that ``start`` chose, with a problem for each partition that no selector named.

    Two kinds of partitions need no selector:

    - a partition that is new in a topic of the pipeline starts at 0 (law 3);
    - a topic that was never read starts at its earliest offset, if a selector of ``start`` reads the stores
      (``committed``, ``shift:``).

    :param start: the selectors, in the order in which they are tried.
    :param chosen: offset and selector of each partition.
    :param seen: stores and live topics at the time of the plan.
    :param on_conflict: what to do about stores that contradict each other.
    """
    left = {partition for partition, each in chosen.items() if isinstance(each.by, (Committed, Shift))}
    position, conflicts = resolve_conflicts(seen, on_conflict, chosen.keys() - left)
    stored, by_name = seen.stored or Position(), _by_name(start)
    # An offset that the policy picked from contradicting stores is not a first start.
    by_policy = {partition for partition in left if partition in position and partition not in stored}
    return StartChoice(
        Position({partition: each.offset for partition, each in chosen.items()}),
        {partition: words for partition, each in chosen.items() if (words := _words(each))},
        (*(conflicts if start.is_left_to_the_stores else ()), *_unnamed(start, chosen, seen)),
        frozenset(by_policy.union(partition for partition, each in chosen.items() if each.by in by_name)),
    )


def _by_name(start: Start) -> tuple[StartSelector, ...]:
    """Return the selectors that are no fallback: the lists of partitions at the front, and the first other selector.

    The first other selector is excluded if it reads the stores: what follows it is for partitions that the stores lack.
    """
    lists = tuple(itertools.takewhile(lambda part: isinstance(part, (Offsets, FromFile)), start.parts))
    first = start.parts[len(lists) : len(lists) + 1]
    return (*lists, *(part for part in first if not isinstance(part, (Committed, Shift))))


def _words(chosen: Chosen) -> str:
    text = str(chosen.by)
    if isinstance(chosen.by, Committed) and not chosen.note:
        return ""
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return f"{shown} ({chosen.note})" if chosen.note else shown


def _unnamed(start: Start, chosen: Mapping[TopicPartition, Chosen], seen: Observation) -> tuple[Problem, ...]:
    stored, known = seen.stored or Position(), known_offsets(seen)
    unnamed = [
        partition
        for partition in seen.live.partitions
        if partition not in chosen
        and partition not in known  # the plan itself adds known partitions
        and (partition in stored or (partition.topic not in stored.topics and not start.is_left_to_the_stores))
    ]
    if not unnamed:
        return ()
    fallback = "'| committed' or '| earliest'" if stored else "'| earliest'"
    return (
        Problem(
            ProblemKind.NO_START,
            f"'{start}' names no start for {first_few(unnamed)}. Append a fallback, such as {fallback}",
        ),
    )
