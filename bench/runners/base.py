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
    module: Callable[[Arena], list[str]]
    """The Python module to run, and its arguments."""
    begins: str
    """What its log says once its partitions are its own and reading begins."""
    ends: str | None = None
    """What its log says at the end; None: it is done when every window is in the scores topic."""
