"""What the schedule remembers: every run in an SQLite file, and up to when each entry's times are settled.

Any process may read and write at any time; each statement is a transaction on disk when it returns. A row
says ``running`` while a run is under way. Whether it still is, or was cut, its lock says (``tidewatch.runner``).
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from scorers.errors import InputError, UnavailableError

FORMAT = 1
_BUSY_S = 30.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    entry TEXT NOT NULL, words TEXT NOT NULL, why TEXT NOT NULL, outcome TEXT NOT NULL,
    scheduled REAL NOT NULL, began REAL, ended REAL, code INTEGER, reason TEXT NOT NULL DEFAULT '',
    times INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX IF NOT EXISTS by_entry ON runs (entry, id);
CREATE TABLE IF NOT EXISTS settled (entry TEXT PRIMARY KEY, timing TEXT NOT NULL, upto REAL NOT NULL);
"""
_SETTLE = "UPDATE settled SET upto = max(upto, ?) WHERE entry = ?"


class Why(StrEnum):
    """What started a run."""

    SCHEDULED = "scheduled"
    MISSED = "missed"
    """It makes up for runs that were missed."""
    AGAIN = "again"
    """It makes up for a run that was cut."""
    NOW = "now"


class Outcome(StrEnum):
    """How a run ended, or why there was none."""

    RUNNING = "running"
    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"
    STOPPED = "stopped"
    """Ended with the scheduler that ran it, or by Ctrl-C."""
    CUT = "cut"
    """Whoever ran it died; how far it came nobody knows."""
    SKIPPED = "skipped"
    """Not begun, for the one before was still running."""
    MISSED = "missed"
    """Its time passed while nothing was there to make it, and it is not made up for."""


NOT_MADE = (Outcome.SKIPPED, Outcome.MISSED)


@dataclass(frozen=True, slots=True)
class Run:
    """One row of the history."""

    id: int
    entry: str
    words: list[str]
    why: Why
    outcome: Outcome
    scheduled: datetime
    began: datetime | None
    ended: datetime | None
    code: int | None
    """The command's exit code; negative is the signal that ended it."""
    reason: str
    times: int
    """How often in a row the same was told; more than one only for runs that were not made."""

    def plain(self) -> dict[str, Any]:
        """For JSON: times in ISO 8601."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(self).items()
        }


class History:
    """The history in ``folder``; made on first use.

    Raises:
        InputError: the file is of a newer format, or no history; from every method.
        UnavailableError: the disk does not take it; from every method.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "history.sqlite"

    def begin(self, entry: str, words: list[str], why: Why, *, scheduled: datetime, now: datetime) -> int:
        """Tell of a run that begins, and that its time is settled; its number."""
        with self._open() as base:
            base.execute("BEGIN IMMEDIATE")
            if why is not Why.NOW:
                base.execute(_SETTLE, (scheduled.timestamp(), entry))
            added = base.execute(
                "INSERT INTO runs (entry, words, why, outcome, scheduled, began) VALUES (?, ?, ?, ?, ?, ?)",
                (entry, json.dumps(words), why, Outcome.RUNNING, scheduled.timestamp(), now.timestamp()),
            )
            base.execute("COMMIT")
            return int(added.lastrowid or 0)

    def end(self, run: int, outcome: Outcome, code: int | None, reason: str, now: datetime) -> None:
        """Tell how a run ended."""
        with self._open() as base:
            base.execute(
                "UPDATE runs SET outcome = ?, code = ?, reason = ?, ended = ? WHERE id = ?",
                (outcome, code, reason, now.timestamp(), run),
            )

    def tell(self, entry: str, outcome: Outcome, reason: str, *, scheduled: datetime, now: datetime) -> bool:
        """Tell of a run that is not made; the same again is counted in one row. Whether it is news."""
        with self._open() as base:
            base.execute("BEGIN IMMEDIATE")
            last = base.execute("SELECT * FROM runs WHERE entry = ? ORDER BY id DESC LIMIT 1", (entry,)).fetchone()
            known = last is not None and (last["outcome"], last["reason"]) == (outcome, reason)
            if known:
                base.execute(
                    "UPDATE runs SET scheduled = ?, ended = ?, times = times + 1 WHERE id = ?",
                    (scheduled.timestamp(), now.timestamp(), last["id"]),
                )
            else:
                base.execute(
                    "INSERT INTO runs (entry, words, why, outcome, scheduled, ended, reason) "
                    "VALUES (?, '[]', ?, ?, ?, ?, ?)",
                    (entry, Why.SCHEDULED, outcome, scheduled.timestamp(), now.timestamp(), reason),
                )
            base.execute("COMMIT")
        return not known

    def cut(self, entry: str, now: datetime) -> list[Run]:
        """Tell of the entry's runs under way that they were cut; those. Only the holder of its lock may say so."""
        with self._open() as base:
            rows = base.execute(
                "UPDATE runs SET outcome = ?, ended = ?, reason = 'the process that ran it died' "
                "WHERE entry = ? AND outcome = ? RETURNING *",
                (Outcome.CUT, now.timestamp(), entry, Outcome.RUNNING),
            ).fetchall()
        return [_run(row) for row in rows]

    def under_way(self) -> list[Run]:
        """Runs that say they are under way."""
        return self._select("WHERE outcome = 'running' ORDER BY id")

    def runs(self, entry: str | None = None, limit: int = 20) -> list[Run]:
        """The newest rows, of one entry or of all, newest first."""
        return self._select("WHERE ?1 IS NULL OR entry = ?1 ORDER BY id DESC LIMIT ?2", entry, limit)

    def run(self, number: int) -> Run | None:
        """The run with this number."""
        return next(iter(self._select("WHERE id = ?", number)), None)

    def last(self, entry: str, *outcomes: Outcome) -> Run | None:
        """The newest run of the entry that was made; with one of ``outcomes``, where some are given."""
        among = outcomes or tuple(outcome for outcome in Outcome if outcome not in NOT_MADE)
        marks = ", ".join("?" * len(among))
        found = self._select(f"WHERE entry = ? AND outcome IN ({marks}) ORDER BY id DESC LIMIT 1", entry, *among)
        return next(iter(found), None)

    def prune(self, entry: str, keep: int) -> list[int]:
        """Forget all but the entry's newest ``keep`` rows; the numbers of those forgotten."""
        with self._open() as base:
            rows = base.execute(
                "DELETE FROM runs WHERE entry = ?1 AND outcome != 'running' AND id NOT IN "
                "(SELECT id FROM runs WHERE entry = ?1 ORDER BY id DESC LIMIT ?2) RETURNING id",
                (entry, keep),
            ).fetchall()
        return [int(row["id"]) for row in rows]

    def settled(self, entry: str, timing: str, now: datetime) -> datetime:
        """Up to when the entry's times are settled; ``now`` for one that is new or is timed otherwise than before."""
        with self._open() as base:
            base.execute(
                "INSERT INTO settled VALUES (?1, ?2, ?3) "
                "ON CONFLICT DO UPDATE SET timing = ?2, upto = ?3 WHERE timing != ?2",
                (entry, timing, now.timestamp()),
            )
            row = base.execute("SELECT upto FROM settled WHERE entry = ?", (entry,)).fetchone()
        return _moment(row["upto"])

    def settle(self, entry: str, upto: datetime) -> None:
        """The entry's times up to this one are settled: run, or told why not."""
        with self._open() as base:
            base.execute(_SETTLE, (upto.timestamp(), entry))

    def forget(self, names: set[str]) -> None:
        """Times are settled for these entries alone: what is no longer there, or not enabled, begins anew one day."""
        with self._open() as base:
            known = {row["entry"] for row in base.execute("SELECT entry FROM settled")}
            base.executemany("DELETE FROM settled WHERE entry = ?", [(name,) for name in known - names])

    def _select(self, where: str, *values: object) -> list[Run]:
        if not self.path.exists():
            return []
        with self._open() as base:
            return [_run(row) for row in base.execute(f"SELECT * FROM runs {where}", values)]  # noqa: S608 - ours

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            base = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
            try:
                base.row_factory = sqlite3.Row
                self._prepare(base)
                yield base
            finally:
                base.close()
        except (sqlite3.OperationalError, OSError) as error:
            raise UnavailableError(
                f"The schedule's history {self.path} cannot be used ({error}); check its disk and who may write there."
            ) from error
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{self.path} is no history of runs ({error}); move it away to begin a new one."
            ) from error

    def _prepare(self, base: sqlite3.Connection) -> None:
        found = base.execute("PRAGMA user_version").fetchone()[0]
        if found > FORMAT:
            raise InputError(f"{self.path} is of format {found}, newer than {FORMAT}; use the version that wrote it.")
        if found < FORMAT:
            base.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;")


def _run(row: sqlite3.Row) -> Run:
    given = dict(row)
    for name in ("scheduled", "began", "ended"):
        given[name] = None if given[name] is None else _moment(given[name])
    return Run(
        **given | {"words": json.loads(row["words"]), "why": Why(row["why"]), "outcome": Outcome(row["outcome"])}
    )


def _moment(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(epoch_s, UTC)
