"""Work item by item in a child process, such that an item that kills it is lost alone.

The child is forked, so that it costs milliseconds and needs no copy of the items: for processes that others made, such
as Spark's. A crew (``scorers/crew.py``) makes its own.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_FORK = get_context("fork")
_FIRST = "1000"
"""What Linux's out-of-memory killer takes first."""


def apart(
    items: Sequence[Item], work: Callable[[Item], Result], lost: Callable[[Item], Result], attempts: int = 2
) -> Iterator[Result]:
    """Results in the order of items; an item at which the child ends ``attempts`` times has the result ``lost`` gives.

    Call it where no other thread is at work: a child is forked.

    Raises:
        Exception: what ``work`` raises.
    """
    left, ended = deque(items), 0
    while left:
        for result in _child(tuple(left), work):
            left.popleft()
            ended = 0
            yield result
        if left:
            ended += 1
        if ended == attempts:
            ended = 0
            yield lost(left.popleft())


def _child(items: Sequence[Item], work: Callable[[Item], Result]) -> Iterator[Result]:
    """The results that a child gives before it ends."""
    reader, writer = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_work, args=(items, work, writer), daemon=True)
    process.start()
    writer.close()
    try:
        while (told := _told(reader)) is not None:
            result, error = told
            if error is not None:
                raise error
            yield result
    finally:
        reader.close()
        process.kill()
        process.join()
        process.close()


def _told(reader: "Connection[Any, Any]") -> tuple[Any, Exception | None] | None:
    """A result or what was raised; None where the child has ended, perhaps in the middle of it."""
    with suppress(EOFError, OSError):
        told: tuple[Any, Exception | None] = reader.recv()
        return told
    return None


def _work(items: Sequence[Any], work: Callable[[Any], Any], writer: "Connection[Any, Any]") -> None:
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST)
    for item in items:
        try:
            result = work(item)
        except Exception as error:  # noqa: BLE001 - it is raised on the other side
            writer.send((None, error))
            return
        writer.send((result, None))
