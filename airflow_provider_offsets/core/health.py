"""Health of a job that was started: rules over a window of samples.

The rules are those of LinkedIn's Burrow (``core/internal/evaluator/caching.go``): *stop*, *rewind*, *stall*, and lag
that never shrinks. Burrow evaluates a consumer by a window of its commits, without thresholds of lag. Two things differ
here. A rule of Burrow that fires too early costs an alert; here it may cost a rollback. So a conclusion from the window
alone is only a doubt, which prolongs the watch and counts after ``stall_s``. And a driver can be observed to be dead.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Ended, EndedHow
from airflow_provider_offsets.core.listing import first_few
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition

NAMED = 3
"""Number of partitions that a reason names."""
HELD_BY = 3
"""Number of samples that show whether a job falls behind."""


@dataclass(frozen=True)
class HealthPolicy:
    """Limits of a health watch: its length, and the longest silence of a healthy job."""

    watch_s: int = 60
    """Minimum time for which a job is watched. The watch ends earlier only if the job is unhealthy or was stopped."""
    stall_s: int = 300
    """Time for which records may wait without progress before the job is unhealthy. It must exceed the longest batch
    and the interval of the trigger."""


class Health(enum.Enum):
    """Health of a job."""

    TOO_EARLY = "too early"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    OVER = "over"
    """The job was stopped, a newer epoch was started, or the job had no more to do: there is nothing to evaluate."""


class Rule(enum.Enum):
    """Rule behind a verdict. The first four names are Burrow's."""

    STOP = "stop"
    REWIND = "rewind"
    STALL = "stall"
    LAG = "lag"
    DEAD = "dead"
    SILENT = "silent"
    RESTART = "restart"
    OK = "ok"


@dataclass(frozen=True)
class Sample:
    """One sample of a running epoch."""

    at_s: float
    """Time of the sample, by the sampler's clock; only differences are used."""
    position: Position
    """Position of the epoch: the end of its last processed batch, or its start."""
    end: Position
    """Ends of its topics, read after ``position``: so a job that has read everything has no lag."""
    last_batch_id: int | None = None
    """Id of its last processed batch; None if unknown."""
    query_id: str | None = None
    beat: int | None = None
    """The driver's heartbeat; None for an untracked job."""
    went_back: tuple[OffsetRange, ...] = ()
    """Ranges that batches of this epoch replayed without an announcement."""
    ended: Ended | None = None
    superseded_by: str = ""
    """The operation that stopped this epoch, or claimed a newer one."""

    def lag(self, partition: TopicPartition) -> int:
        """Return the lag of a partition in offsets."""
        return max(0, self.end.get(partition, 0) - self.position.get(partition, 0))


@dataclass(frozen=True)
class Verdict:
    """Result of a window, and the rule behind it."""

    health: Health
    rule: Rule
    reason: str
    warnings: tuple[str, ...] = ()
    """Remarks that a person may want to check, but that are no reason for a rollback."""


def judge(samples: Sequence[Sample], policy: HealthPolicy) -> Verdict:
    """Return the verdict of a window of samples.

    The order of the rules matters. The end of an epoch explains everything else. A rewind is wrong at once, whatever is
    read since. The other rules need their time.

    :param samples: the oldest sample first.
    :param policy: thresholds of the rules, in seconds.
    """
    for rule in (_over, _dead, _restarted, _rewound):
        if (found := rule(samples)) is not None:
            return found
    for timed in (_stopped, _stalled, _silent):
        if (found := timed(samples, policy)) is not None:
            return found
    watched_s = samples[-1].at_s - samples[0].at_s
    doubts = (*_unsure_of_progress(samples), *_unsure_of_partitions(samples))
    if watched_s < policy.watch_s or doubts:
        reason = "; ".join(doubts) or "nothing speaks against it so far"
        return Verdict(Health.TOO_EARLY, Rule.OK, f"watched for {watched_s:.0f} s: {reason}")
    return Verdict(Health.HEALTHY, Rule.OK, _progress(samples), tuple(_growing_lag(samples)))


def why_hold_back(samples: Sequence[Sample]) -> str | None:
    """Return why a replay must yield to the running job: it falls behind, or it is stalled.

    Burrow's ``checkIfLagNotDecreasing`` over the newest samples: a job whose lag was zero at any time, or shrank, is
    fine.

    :param samples: the oldest sample first.
    :returns: the reason; an empty string if the job is fine; None if more samples are needed.
    """
    newest = samples[-HELD_BY:]
    if newest[-1].ended is not None or newest[-1].superseded_by:
        return ""
    waiting = [sum(sample.lag(partition) for partition in sample.end) for sample in newest]
    if 0 in waiting:
        return ""
    if len(newest) < HELD_BY:
        return None
    seconds = newest[-1].at_s - newest[0].at_s
    if any(one > other for one, other in zip(waiting, waiting[1:])):
        return ""
    return f"{waiting[-1]:,} offsets wait for the live job, {waiting[0]:,} did {seconds:.0f} s ago"


def went_back(start: Position, batches: Iterable[Batch]) -> tuple[OffsetRange, ...]:
    """Return the ranges that batches of one epoch replayed.

    :param start: required start of the first batch.
    :param batches: the oldest first.
    """
    found, ends = [], start
    for batch in batches:
        for each in batch.ranges:
            before = ends.get(TopicPartition(each.topic, each.partition), each.start)
            if each.start < before:
                found.append(OffsetRange(each.topic, each.partition, each.start, before))
        ends = ends.updated(batch.end)
    return tuple(found)


def _over(samples: Sequence[Sample]) -> Verdict | None:
    """Return a verdict if the job was stopped or came to its own end, which is not unhealthy."""
    last = samples[-1]
    if last.superseded_by:
        return Verdict(Health.OVER, Rule.OK, f"{last.superseded_by} stopped the job, or started a newer epoch")
    if last.ended is not None and last.ended.how is EndedHow.FINISHED:
        return Verdict(Health.OVER, Rule.OK, "the query ended by itself, with nothing more to do")
    return None


def _dead(samples: Sequence[Sample]) -> Verdict | None:
    """Return a verdict if the driver failed or its process has exited. Burrow cannot know this; unknown is not dead."""
    ended = samples[-1].ended
    if ended is None:
        return None
    return Verdict(
        Health.UNHEALTHY, Rule.DEAD, f"the driver is {ended.how.value}: {ended.message or 'without a message'}"
    )


def _restarted(samples: Sequence[Sample]) -> Verdict | None:
    """Return a verdict if the query id changed within the epoch: the job left the checkpoint of its start."""
    ids = [sample.query_id for sample in samples if sample.query_id is not None]
    changed = next(((one, other) for one, other in zip(ids, ids[1:]) if one != other), None)
    if changed is None:
        return None
    reason = f"query {changed[0]} became {changed[1]}: the job left the checkpoint that it was started from"
    return Verdict(Health.UNHEALTHY, Rule.RESTART, reason)


def _rewound(samples: Sequence[Sample]) -> Verdict | None:
    """Return a verdict if the position went back (Burrow's ``checkIfOffsetsRewind``).

    Within an epoch no offset may go back: a rewind is announced, and starts a new epoch.
    """
    ranges = [each for sample in samples for each in sample.went_back]
    for before, after in zip(samples, samples[1:]):
        ranges += [
            OffsetRange(*partition, after.position[partition], offset)
            for partition, offset in before.position.items()
            if after.position.get(partition, offset) < offset
        ]
    if not ranges:
        return None
    named = first_few(ranges, limit=NAMED)
    return Verdict(Health.UNHEALTHY, Rule.REWIND, f"went back, and nothing announced it: {named}")


def _stopped(samples: Sequence[Sample], policy: HealthPolicy) -> Verdict | None:
    """Return a verdict if no batch was processed for ``stall_s`` while records wait.

    Burrow's ``checkIfOffsetsStopped`` compares with the length of the window. Batches differ, so here the time is the
    pipeline's own: a long batch is no stop before it.
    """
    since, waiting = _silence(samples)
    silent_s = samples[-1].at_s - since.at_s
    if not waiting or silent_s < policy.stall_s:
        return None
    reason = f"no batch for {silent_s:.0f} s while records wait: {_lags(samples[-1], waiting)}"
    return Verdict(Health.UNHEALTHY, Rule.STOP, reason)


def _stalled(samples: Sequence[Sample], policy: HealthPolicy) -> Verdict | None:
    """Return a verdict if batches are processed, but a partition with lag stays at its offset.

    This is Burrow's ``checkIfOffsetsStalled``.
    """
    stuck = [
        partition
        for partition in samples[-1].end
        if (since := _standing_since(samples, partition)) is not None
        and samples[-1].at_s - since.at_s >= policy.stall_s
    ]
    if not stuck:
        return None
    reason = f"batches come, and for {policy.stall_s} s nothing was read of {_lags(samples[-1], stuck)}"
    return Verdict(Health.UNHEALTHY, Rule.STALL, reason)


def _silent(samples: Sequence[Sample], policy: HealthPolicy) -> Verdict | None:
    """Return a verdict if a tracked driver's heartbeat does not increase.

    The process may run on another machine, so it is not reported as dead.
    """
    last = samples[-1]
    same = _tail(samples, lambda sample: (sample.beat, sample.last_batch_id))
    silent_s = last.at_s - same[0].at_s
    if last.beat is None or silent_s < policy.stall_s:
        return None
    return Verdict(Health.UNHEALTHY, Rule.SILENT, f"no heartbeat and no batch for {silent_s:.0f} s")


def _unsure_of_progress(samples: Sequence[Sample]) -> Iterator[str]:
    """Yield a doubt if the silence is longer than the time with progress: Burrow's stop, unchanged."""
    since, waiting = _silence(samples)
    silent_s, active_s = samples[-1].at_s - since.at_s, since.at_s - samples[0].at_s
    if waiting and silent_s > active_s:
        yield f"no batch for {silent_s:.0f} s while records wait: {_lags(samples[-1], waiting)}"


def _unsure_of_partitions(samples: Sequence[Sample]) -> Iterator[str]:
    """Yield a doubt if a partition had lag and the same offset in the whole window: Burrow's stall, unchanged."""
    stuck = [partition for partition in samples[-1].end if _standing_since(samples, partition) is samples[0]]
    if stuck:
        yield f"nothing was read yet of {_lags(samples[-1], stuck)}"


def _growing_lag(samples: Sequence[Sample]) -> Iterator[str]:
    """Yield a warning for each partition that falls behind: Burrow's ``checkIfLagNotDecreasing``, unchanged."""
    for partition in samples[-1].end:
        lags = [sample.lag(partition) for sample in samples]
        if 0 not in lags and lags[0] < lags[-1] and all(one <= other for one, other in zip(lags, lags[1:])):
            yield f"{partition} falls behind: {lags[0]:,} offsets waited at first, {lags[-1]:,} do now"


def _silence(samples: Sequence[Sample]) -> tuple[Sample, list[TopicPartition]]:
    """Return the sample since which nothing was processed, and the partitions whose records have waited since.

    Includes Burrow's first rule: a partition whose lag was zero at any time does not count.
    """
    same = _tail(samples, lambda sample: (sample.position, sample.last_batch_id))
    return same[0], [partition for partition in same[-1].end if all(sample.lag(partition) for sample in same)]


def _standing_since(samples: Sequence[Sample], partition: TopicPartition) -> Sample | None:
    """Return the sample since which a partition with lag stays at its offset although batches came, or None."""
    same = _tail(samples, lambda sample: sample.position.get(partition, 0))
    lagging = _tail(same, lambda sample: sample.lag(partition) > 0)
    batches_came = len({(sample.last_batch_id, sample.position) for sample in lagging}) > 1
    return lagging[0] if samples[-1].lag(partition) and batches_came else None


def _tail(samples: Sequence[Sample], what: Callable[[Sample], object]) -> Sequence[Sample]:
    """Return the newest samples that agree in ``what``."""
    count = next(
        (index for index, sample in enumerate(reversed(samples)) if what(sample) != what(samples[-1])),
        len(samples),
    )
    return samples[len(samples) - count :]


def _progress(samples: Sequence[Sample]) -> str:
    first, last = samples[0], samples[-1]
    read = sum(max(0, offset - first.position.get(partition, 0)) for partition, offset in last.position.items())
    waiting = sum(last.lag(partition) for partition in last.end)
    return f"watched for {last.at_s - first.at_s:.0f} s: {read:,} offsets read, {waiting:,} wait"


def _lags(sample: Sample, partitions: Sequence[TopicPartition]) -> str:
    lags = (f"{each} is at {sample.position.get(each, 0)} of {sample.end[each]}" for each in partitions)
    return first_few(lags, limit=NAMED)
