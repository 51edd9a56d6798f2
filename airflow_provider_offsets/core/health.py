"""Whether a job that was started does well: rules over a window of looks at it.

The rules are those of LinkedIn's Burrow (``core/internal/evaluator/caching.go``), which judges a consumer by a window
of its commits and knows no thresholds of lag: *stop*, *rewind*, *stall*, and lag that never shrinks. Two things
differ. A rule of Burrow's that fires too early costs an alert; here it may cost a rollback. So what Burrow tells from
the window alone is a doubt, which prolongs the watch, and is believed after ``stall_s``. And a driver can be seen dead.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Ended, EndedHow
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition

NAMED = 3
"""How many partitions a reason names."""
HELD_BY = 3
"""How many looks tell whether a job falls behind."""


@dataclass(frozen=True)
class HealthPolicy:
    """How long a job is watched, and what is too long."""

    watch_s: int = 60
    """How long a job is watched at least. It ends earlier only if the job is unhealthy, or stopped by somebody."""
    stall_s: int = 300
    """How long records may wait, with no progress, before that is unhealthy: longer than the longest batch, and than
    the interval of the trigger."""


class Health(enum.Enum):
    """What can be said of a job."""

    TOO_EARLY = "too early"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    OVER = "over"
    """Somebody stopped it, or started a newer epoch, or it had no more to do: there is nothing to judge."""


class Rule(enum.Enum):
    """What a verdict goes by. The first four words are Burrow's."""

    STOP = "stop"
    REWIND = "rewind"
    STALL = "stall"
    LAG = "lag"
    DEAD = "dead"
    SILENT = "silent"
    RESTART = "restart"
    OK = "ok"


@dataclass(frozen=True)
class Look:
    """One look at a running epoch."""

    at_s: float
    """By the clock of whoever looks; only differences are used."""
    position: Position
    """Where the epoch stands: the end of its last finished batch, or its start."""
    end: Position
    """The ends of its topics, read after ``position``: so a job that reads all there is has no lag."""
    last_batch_id: int | None = None
    """Of the batch that it finished last; None if it does not tell."""
    query_id: str | None = None
    beat: int | None = None
    """The driver's heartbeat; None of an untouched job."""
    went_back: tuple[OffsetRange, ...] = ()
    """What batches of this epoch read again though nothing announced it."""
    ended: Ended | None = None
    superseded_by: str = ""
    """The operation that stopped this epoch, or claimed a newer one."""

    def lag(self, partition: TopicPartition) -> int:
        """Return how many offsets of a partition wait."""
        return max(0, self.end.get(partition, 0) - self.position.get(partition, 0))


@dataclass(frozen=True)
class Verdict:
    """What a window says, and by which rule."""

    health: Health
    rule: Rule
    reason: str
    warnings: tuple[str, ...] = ()
    """What a person may want to look at, and no reason to roll back."""


def judge(looks: Sequence[Look], policy: HealthPolicy) -> Verdict:
    """Return the verdict of a window of looks, the oldest first.

    The order matters: an end explains everything else; going back is wrong at once, however much is read since; the
    others need their time.
    """
    for rule in (_over, _dead, _restarted, _rewound):
        if (found := rule(looks)) is not None:
            return found
    for timed in (_stopped, _stalled, _silent):
        if (found := timed(looks, policy)) is not None:
            return found
    watched_s = looks[-1].at_s - looks[0].at_s
    doubts = (*_unsure_of_progress(looks), *_unsure_of_partitions(looks))
    if watched_s < policy.watch_s or doubts:
        reason = "; ".join(doubts) or "nothing speaks against it so far"
        return Verdict(Health.TOO_EARLY, Rule.OK, f"watched for {watched_s:.0f} s: {reason}")
    return Verdict(Health.HEALTHY, Rule.OK, _progress(looks), tuple(_growing_lag(looks)))


def why_hold_back(looks: Sequence[Look]) -> str | None:
    """Return why a replay must yield to a running job: it falls behind, or it is stalled. Empty if it is neither;
    None if more looks are needed to know.

    Burrow's ``checkIfLagNotDecreasing``, over the newest looks: where there was no lag at any time, or less of it than
    before, there is nothing to say.

    :param looks: the oldest first.
    """
    newest = looks[-HELD_BY:]
    if newest[-1].ended is not None or newest[-1].superseded_by:
        return ""
    waiting = [sum(look.lag(partition) for partition in look.end) for look in newest]
    if 0 in waiting:
        return ""
    if len(newest) < HELD_BY:
        return None
    seconds = newest[-1].at_s - newest[0].at_s
    if any(one > other for one, other in pairwise(waiting)):
        return ""
    return f"{waiting[-1]:,} offsets wait for the live job, {waiting[0]:,} did {seconds:.0f} s ago"


def went_back(start: Position, batches: Iterable[Batch]) -> tuple[OffsetRange, ...]:
    """Return what ``batches`` of one epoch, the oldest first, read again.

    :param start: where the first of them has to begin.
    """
    found, ends = [], start
    for batch in batches:
        for each in batch.ranges:
            before = ends.get(TopicPartition(each.topic, each.partition), each.start)
            if each.start < before:
                found.append(OffsetRange(each.topic, each.partition, each.start, before))
        ends = ends.updated(batch.end)
    return tuple(found)


def _over(looks: Sequence[Look]) -> Verdict | None:
    """A job that somebody stopped, or that came to its own end, is no unhealthy job."""
    last = looks[-1]
    if last.superseded_by:
        return Verdict(Health.OVER, Rule.OK, f"{last.superseded_by} stopped the job, or started a newer epoch")
    if last.ended is not None and last.ended.how is EndedHow.FINISHED:
        return Verdict(Health.OVER, Rule.OK, "the query ended by itself, with nothing more to do")
    return None


def _dead(looks: Sequence[Look]) -> Verdict | None:
    """A driver that failed, or whose process is gone. Burrow cannot know this; unknown is not dead."""
    ended = looks[-1].ended
    if ended is None:
        return None
    return Verdict(Health.UNHEALTHY, Rule.DEAD, f"the driver is {ended.how.value}: {ended.message or 'without a word'}")


def _restarted(looks: Sequence[Look]) -> Verdict | None:
    """Another query under the same epoch: it began on another checkpoint than the one it was started from."""
    ids = [look.query_id for look in looks if look.query_id is not None]
    changed = next(((one, other) for one, other in pairwise(ids) if one != other), None)
    if changed is None:
        return None
    reason = f"query {changed[0]} became {changed[1]}: the job left the checkpoint that it was started from"
    return Verdict(Health.UNHEALTHY, Rule.RESTART, reason)


def _rewound(looks: Sequence[Look]) -> Verdict | None:
    """Burrow's ``checkIfOffsetsRewind``: an offset that is less than the one before. Within an epoch nothing may go
    back: a rewind is announced, and begins an epoch."""
    ranges = [each for look in looks for each in look.went_back]
    for before, after in pairwise(looks):
        ranges += [
            OffsetRange(*partition, after.position[partition], offset)
            for partition, offset in before.position.items()
            if after.position.get(partition, offset) < offset
        ]
    if not ranges:
        return None
    return Verdict(Health.UNHEALTHY, Rule.REWIND, f"went back, and nothing announced it: {_some(ranges)}")


def _stopped(looks: Sequence[Look], policy: HealthPolicy) -> Verdict | None:
    """Burrow's ``checkIfOffsetsStopped``: no commit for longer than the window of commits is long, while records wait.
    Batches are not alike, so the time is the pipeline's own: a long batch is no stop before it."""
    since, waiting = _silence(looks)
    silent_s = looks[-1].at_s - since.at_s
    if not waiting or silent_s < policy.stall_s:
        return None
    reason = f"no batch for {silent_s:.0f} s while records wait: {_lags(looks[-1], waiting)}"
    return Verdict(Health.UNHEALTHY, Rule.STOP, reason)


def _stalled(looks: Sequence[Look], policy: HealthPolicy) -> Verdict | None:
    """Burrow's ``checkIfOffsetsStalled``: commits come, and the offset of a partition with lag is always the same."""
    stuck = [
        partition
        for partition in looks[-1].end
        if (since := _standing_since(looks, partition)) is not None and looks[-1].at_s - since.at_s >= policy.stall_s
    ]
    if not stuck:
        return None
    reason = f"batches come, and for {policy.stall_s} s nothing was read of {_lags(looks[-1], stuck)}"
    return Verdict(Health.UNHEALTHY, Rule.STALL, reason)


def _silent(looks: Sequence[Look], policy: HealthPolicy) -> Verdict | None:
    """A tracked driver whose heartbeat does not grow. Its process may be on another machine, and is not called dead."""
    last = looks[-1]
    same = _tail(looks, lambda look: (look.beat, look.last_batch_id))
    silent_s = last.at_s - same[0].at_s
    if last.beat is None or silent_s < policy.stall_s:
        return None
    return Verdict(Health.UNHEALTHY, Rule.SILENT, f"no heartbeat and no batch for {silent_s:.0f} s")


def _unsure_of_progress(looks: Sequence[Look]) -> Iterator[str]:
    """Burrow's stop, as it is: silence that is longer than the time in which there was progress."""
    since, waiting = _silence(looks)
    silent_s, active_s = looks[-1].at_s - since.at_s, since.at_s - looks[0].at_s
    if waiting and silent_s > active_s:
        yield f"no batch for {silent_s:.0f} s while records wait: {_lags(looks[-1], waiting)}"


def _unsure_of_partitions(looks: Sequence[Look]) -> Iterator[str]:
    """Burrow's stall, as it is: lag in the whole window, and an offset that is always the same."""
    stuck = [partition for partition in looks[-1].end if _standing_since(looks, partition) is looks[0]]
    if stuck:
        yield f"nothing was read yet of {_lags(looks[-1], stuck)}"


def _growing_lag(looks: Sequence[Look]) -> Iterator[str]:
    """Burrow's ``checkIfLagNotDecreasing``, a warning there too: it reads, and falls behind."""
    for partition in looks[-1].end:
        lags = [look.lag(partition) for look in looks]
        if 0 not in lags and lags[0] < lags[-1] and all(one <= other for one, other in pairwise(lags)):
            yield f"{partition} falls behind: {lags[0]:,} offsets waited at first, {lags[-1]:,} do now"


def _silence(looks: Sequence[Look]) -> tuple[Look, list[TopicPartition]]:
    """The look since which nothing was finished, and the partitions whose records have waited all that time.

    Burrow's first rule is in it: where the lag was zero at any time, there is nothing to say.
    """
    same = _tail(looks, lambda look: (look.position, look.last_batch_id))
    return same[0], [partition for partition in same[-1].end if all(look.lag(partition) for look in same)]


def _standing_since(looks: Sequence[Look], partition: TopicPartition) -> Look | None:
    """The look since which a partition stands still with records waiting, though batches came; None if it does not."""
    same = _tail(looks, lambda look: look.position.get(partition, 0))
    lagging = _tail(same, lambda look: look.lag(partition) > 0)
    batches_came = len({(look.last_batch_id, look.position) for look in lagging}) > 1
    return lagging[0] if looks[-1].lag(partition) and batches_came else None


def _tail(looks: Sequence[Look], what: Callable[[Look], object]) -> Sequence[Look]:
    """The newest looks that agree in ``what``."""
    count = next(
        (index for index, look in enumerate(reversed(looks)) if what(look) != what(looks[-1])),
        len(looks),
    )
    return looks[len(looks) - count :]


def _progress(looks: Sequence[Look]) -> str:
    first, last = looks[0], looks[-1]
    read = sum(max(0, offset - first.position.get(partition, 0)) for partition, offset in last.position.items())
    waiting = sum(last.lag(partition) for partition in last.end)
    return f"watched for {last.at_s - first.at_s:.0f} s: {read:,} offsets read, {waiting:,} wait"


def _lags(look: Look, partitions: Sequence[TopicPartition]) -> str:
    return _some([f"{each} stands at {look.position.get(each, 0)} of {look.end[each]}" for each in partitions])


def _some(things: Sequence[object]) -> str:
    more = f" and {len(things) - NAMED} more" if len(things) > NAMED else ""
    return ", ".join(map(str, things[:NAMED])) + more
