"""What an engine is asked for and what it tells: session logs to the hours of servers.

::

    request ──▶ tidewatch.forecast.etl ──asks──▶ an engine (tidewatch.forecast.local, tidewatch.forecast.spark)
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from scorers.forecast.schema import HOUR_MS
from tidewatch.places import Found

Spans = tuple[tuple[int, int], ...]
"""Intervals of epoch ms, half-open."""
Progress = Callable[[str, int, int], None]
"""Called with the stage, how much is done and how much there is; raises to stop."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which sessions count: of these servers (all where empty), started in ``[since, until)`` (epoch ms)."""

    servers: frozenset[str] = frozenset()
    since: int | None = None
    until: int | None = None

    def within(self, sessions: pa.Table) -> pa.Table:
        """Those started in time, of any server."""
        if self.since is not None:
            sessions = sessions.filter(pc.field("start") >= self.since)
        return sessions if self.until is None else sessions.filter(pc.field("start") < self.until)

    def chosen(self, sessions: pa.Table) -> pa.Table:
        """Those of the servers."""
        return sessions.filter(pc.field("server").isin(sorted(self.servers))) if self.servers else sessions


@dataclass
class Tally:
    """What was in the logs. ``first`` and ``last`` are starts of sessions, ``busy`` the hours (epoch ms) with any."""

    lines: int = 0
    sessions: int = 0
    """In time, of any server."""
    chosen: int = 0
    """Of them, those of the servers asked for."""
    blank: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    first: int | None = None
    """Of those in time."""
    last: int | None = None
    """Of all."""
    busy: set[int] = field(default_factory=set)

    def end(self, until: int | None) -> int:
        """Where the log's last whole hour ends."""
        last = self.last or 0
        return (last if until is None else min(last, until)) // HOUR_MS * HOUR_MS


class Engine(Protocol):
    """What runs the SQL. Tables: ``peaks`` once logs are read; ``hours``, ``targets`` and ``calendar`` when given."""

    def read(self, files: Sequence[Found], choice: Choice, rejects: Path, progress: Progress) -> Tally:
        """Read logs into ``peaks``, and write what is no session as Parquet to the folder ``rejects``."""

    def days(self) -> list[int]:
        """The days (since 1970, UTC) with any peak."""

    def give(self, hours: Sequence[Path], since: int) -> list[int]:
        """Make ``hours`` of those since then in these files, ``targets`` of the last file; the hours there are."""

    def calendar(self, table: pa.Table) -> None:
        """Make ``calendar``."""

    def write(self, query: str, schema: pa.Schema, path: Path) -> None:
        """Write what a query gives, ordered by server and hour, to one Parquet file."""
