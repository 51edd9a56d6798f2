"""From what the selectors of a start answer to what a plan is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_offsets.core.compare import settle
from airflow_provider_offsets.core.plan import OnConflict, Problem, ProblemKind
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.selector import Chosen, Committed, Shift, Start
from airflow_provider_offsets.core.snapshot import Observation

LONGEST = 60
"""How many characters of a selector stand in a row of a plan."""


@dataclass(frozen=True)
class StartChoice:
    """What the selectors of a start chose, and what speaks against it."""

    wanted: Position
    chosen_by: dict[TopicPartition, str]
    """The part that chose, in words, where that is not plain: see ``PartitionPlan.chosen_by``."""
    problems: tuple[Problem, ...]


def weigh(
    start: Start, chosen: Mapping[TopicPartition, Chosen], seen: Observation, on_conflict: OnConflict
) -> StartChoice:
    """Give what ``start`` chose as a plan takes it.

    What nobody named is a problem, but for two things that the plan knows itself: a partition that is new in a topic
    of the pipeline starts at 0 (law 3), and a topic that was never read begins at its first offset, if the start
    is left to the stores at all (``committed``, ``shift:``).
    """
    elsewhere = {partition for partition, each in chosen.items() if not isinstance(each.by, Committed | Shift)}
    conflicts = settle(seen, on_conflict, elsewhere)[1] if start.is_left_to_the_stores else ()
    return StartChoice(
        Position({partition: each.offset for partition, each in chosen.items()}),
        {partition: words for partition, each in chosen.items() if (words := _words(each))},
        (*conflicts, *_unnamed(start, chosen, seen)),
    )


def _words(chosen: Chosen) -> str:
    text = str(chosen.by)
    if isinstance(chosen.by, Committed) and not chosen.note:
        return ""
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return f"{shown} ({chosen.note})" if chosen.note else shown


def _unnamed(start: Start, chosen: Mapping[TopicPartition, Chosen], seen: Observation) -> tuple[Problem, ...]:
    stored = seen.stored or Position()
    unnamed = [
        partition
        for partition in seen.live.partitions
        if partition not in chosen
        and (partition in stored or (partition.topic not in stored.topics and not start.is_left_to_the_stores))
    ]
    if not unnamed:
        return ()
    more = f" and {len(unnamed) - 10} more" if len(unnamed) > 10 else ""
    fallback = "'| committed' or '| earliest'" if stored else "'| earliest'"
    return (
        Problem(
            ProblemKind.NO_START,
            f"'{start}' says nothing of {', '.join(map(str, unnamed[:10]))}{more}; write behind it what they start from"
            f" then, such as {fallback}",
        ),
    )
