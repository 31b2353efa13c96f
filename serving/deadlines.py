"""Time limits of one length for many tasks, kept by one timer.

A timer of the event loop for each request is most of what its time limit costs. As all of one kind last equally long,
who began first is first out of time, and one timer for the first of them is enough.
"""

import asyncio
from types import TracebackType
from typing import Self


class Deadlines:
    """Gives limits of ``seconds``; used from one event loop at a time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._running: dict[Deadline, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._armed = False

    def begin(self) -> "Deadline":
        """The limit of the task that asks, from now on; to be entered, or ended, at once."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._armed = loop, False
            self._running.clear()
        deadline = Deadline(self, loop.time() + self.seconds)
        self._running[deadline] = None
        if not self._armed:
            self._armed = True
            loop.call_at(deadline.at, self._look, loop)
        return deadline

    def end(self, deadline: "Deadline") -> None:
        """Nobody waits for it any more."""
        self._running.pop(deadline, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell those that are out of time, and come again when the next one is."""
        now = loop.time()
        while self._running:
            first = next(iter(self._running))
            if first.at > now:
                loop.call_at(first.at, self._look, loop)
                return
            del self._running[first]
            first.expire()
        self._armed = False


class Deadline:
    """The limit of one task, as :func:`asyncio.timeout` is: it cancels the task, and raises TimeoutError."""

    __slots__ = ("_cancelling", "_of", "_task", "at", "expired")

    def __init__(self, of: Deadlines, at: float) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit needs a task")
        self._of, self._task, self.at = of, task, at
        self._cancelling = task.cancelling()
        self.expired = False

    def expire(self) -> None:
        """Cancel what the task awaits."""
        self.expired = True
        self._task.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._of.end(self)
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
