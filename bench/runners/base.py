"""What the measurement must know of a runner."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.arena import Arena


@dataclass(frozen=True, slots=True)
class Runner:
    """One system that does the job in a process of its own."""

    name: str
    title: str
    """For the table."""
    command: Callable[[Arena], list[str]]
    """The program to run, and its arguments; builds what the program needs where that is missing."""
    begins: str
    """What its log says once its partitions are its own and reading begins."""
    ends: str | None = None
    """What its log says at the end; None: it is done when every window is in the scores topic."""
    patience_s: float | None = None
    """It is stopped after so many seconds, and measured by the windows it has made by then."""
    scores: bool = True
    """Whether its windows are scored."""
