"""Lists in messages: the first things by name, and the number of the others."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 10
"""Number of things, such as partitions, that a message names one by one."""


def first_few(things: Iterable[object], *, limit: int = SHOWN, separator: str = ", ") -> str:
    """Return the first things as text, and behind them "and N more" if there are more.

    :param things: things to name, in the order of the message.
    :param limit: greatest number of things to name.
    :param separator: text between two things.
    """
    names = [str(thing) for thing in things]
    more = [f"and {len(names) - limit} more"] if len(names) > limit else []
    return separator.join([*names[:limit], *more])
