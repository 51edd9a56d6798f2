"""Run several tasks in one process, one effect at a time, in an order that a test chooses.

A task runs until it is about to do something that others can see (a call of a store, of Kafka, of a machine), and stops
there. ``step`` executes that call and continues to the next one. So a test can put any other task, or an external
event, between any two effects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

from greenlet import getcurrent, greenlet

from airflow_provider_offsets.errors import OffsetsError, StoreUnreachable

LIMIT = 5_000
"""More effects than a terminating task has."""


class Fault(Enum):
    """The failure of a task's next effect."""

    LOST_REQUEST = "the effect does not happen, and the call fails"
    LOST_ANSWER = "the effect happens, and the call fails"


class Task:
    """One task, stopped before its next effect."""

    def __init__(self, name: str, run: Callable[[], Any]) -> None:
        self.name = name
        self.result: Any = None
        self.error: OffsetsError | None = None
        self.next_effect: str = ""
        """The next effect of the task; empty once the task is over."""
        self._run = run
        self._thread: greenlet | None = greenlet(self._main)
        self._go(None)

    @property
    def is_over(self) -> bool:
        """Whether the task has nothing more to do."""
        return self._thread is None

    def step(self, fault: Fault | None = None) -> None:
        """Execute the task's next effect."""
        self._go(fault)

    def until(self, effect: str) -> None:
        """Step until the task is about to have an effect whose text begins with this."""
        while not self.next_effect.startswith(effect):
            assert not self.is_over, f"{self.name} is over: {self.error or self.result}"
            self.step()

    def finish(self) -> Any:
        """Step until the task is over; return what it returned, or raise what it raised."""
        for _ in range(LIMIT):
            if self.is_over:
                break
            self.step()
        assert self.is_over, f"{self.name} waits for ever"
        if self.error is not None:
            raise self.error
        return self.result

    def kill(self) -> None:
        """End the task as SIGKILL would: before its next effect."""
        if self._thread is not None:
            thread, self._thread, self.next_effect = self._thread, None, ""
            thread.throw()

    def _main(self, _: Any) -> None:
        try:
            self.result = self._run()
        except OffsetsError as error:  # any other error fails the test: no task may end with it
            self.error = error

    def _go(self, fault: Fault | None) -> None:
        assert self._thread is not None, f"{self.name} is over"
        paused = self._thread.switch(fault)
        self.next_effect = paused if isinstance(paused, str) else ""
        if not self.next_effect:
            self._thread = None


class Stepped:
    """An object whose methods are effects of the calling task. Outside of tasks they are plain calls."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        return (lambda *args, **more: self._call(name, found, args, more)) if callable(found) else found

    def _call(self, name: str, method: Callable[..., Any], args: tuple[Any, ...], more: dict[str, Any]) -> Any:
        hub = getcurrent().parent
        if hub is None:
            return method(*args, **more)
        fault = hub.switch(" ".join([name, *(each for each in args[1:2] if isinstance(each, str))]))
        if fault is Fault.LOST_REQUEST:
            raise _unreachable()
        result = method(*args, **more)
        if isinstance(result, Iterator):
            result = iter(list(result))
        if fault is Fault.LOST_ANSWER:
            raise _unreachable()
        return result


def _unreachable() -> StoreUnreachable:
    return StoreUnreachable(seen="no answer", expected="an answer", do="run the task again")
