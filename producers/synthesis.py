"""Session logs of any size, as a server fleet would write them: files of a day or a month, with dirty rows.

A day is made in slices of time small enough to hold, each drawn from the seed and its place alone: the bytes are the
same whatever the number of processes, and memory does not grow with the log.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, groupby
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import pyarrow as pa

from producers.batch import Batch, Floats, columns_encoder, json_lines
from producers.demand import DAY_MS, Demand, DemandSpec
from producers.dirt import Dirt, spoil
from producers.sessions import COLUMNS, Sessions, address, lines, table
from scorers.errors import ConfigError

CELL_MS = 300_000
"""Activity is asked for every five minutes."""
CELLS = DAY_MS // CELL_MS
SLICE = 200_000
"""About as many sessions are held at once."""
LEVEL = 85.0
"""Load in five minutes of a usual server at its usual activity."""
ROW_BYTES = 152.9
"""Of a usual row, its end of line with it."""
SIZE_SHARE = 0.5
"""A server twice as large has so much (as a power) more sessions; the rest is the load of each."""


@dataclass(frozen=True, slots=True)
class LogSpec:
    """A session log; the same spec gives the same bytes.

    ``sessions`` is about how many there are; ``dirty`` the share of the rows that are spoilt. ``start`` (epoch ms) is a
    midnight UTC. With ``monthly`` a file holds a month, else a day.
    """

    servers: int = 390
    days: int = 31
    sessions: float = 5e6
    dirty: float = 0.01
    seed: int = 0
    start: int = 1_704_067_200_000
    timezone: str = "UTC"
    country: str = "US"
    monthly: bool = False

    def __post_init__(self) -> None:
        if self.days < 1 or not 0 < self.sessions < np.inf:
            raise ConfigError(f"{self.days} days and {self.sessions} sessions make no log; give at least 1 of each.")
        if not 0 <= self.dirty <= 1:
            raise ConfigError(f"dirty is {self.dirty}; give a share from 0 to 1.")
        if self.start % DAY_MS:
            raise ConfigError(f"start is {self.start}, which is no midnight UTC; a log begins with a whole day.")
        DemandSpec(self.servers, self.seed, self.start, self.timezone, self.country)

    def build(self) -> "Log":
        """The log, ready to be made."""
        return Log(self)


@dataclass(slots=True)
class Truth:
    """What was written: rows, bytes, and the spoilt rows by kind, and by column where one cell is spoilt."""

    rows: int = 0
    bytes: int = 0
    dirty: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Truth") -> None:
        """Count another's too."""
        self.rows += other.rows
        self.bytes += other.bytes
        self.dirty.update(other.dirty)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        kinds = Counter[str]()
        for name, number in self.dirty.items():
            kinds[name.partition(":")[0]] += number
        clean = self.rows - self.dirty.total()
        return {
            "rows": self.rows, "bytes": self.bytes, "clean": clean,
            "dirty": dict(sorted(kinds.items())), "cells": dict(sorted(self.dirty.items())),
        }  # fmt: skip


class Log:
    """A log that can be made, day by day."""

    def __init__(self, spec: LogSpec) -> None:
        self.spec = spec
        self.demand = DemandSpec(spec.servers, spec.seed, spec.start, spec.timezone, spec.country).build()
        self._ips = [address(number) for number in range(spec.servers)]

    @cached_property
    def rate(self) -> float:
        """Sessions of a usual server at its usual activity in five minutes, so that there are as many as asked for."""
        weight = self.demand.size**SIZE_SHARE
        hours = self.spec.start + np.arange(24) * (DAY_MS // 24)
        total = sum(float((self.demand.activity(hours + day * DAY_MS) @ weight).sum()) for day in range(self.spec.days))
        return self.spec.sessions / (total * CELLS / 24) if total else 0.0

    def files(self) -> dict[Path, range]:
        """Each file's name in the log's folder, and the days in it."""
        form = "%Y/%m" if self.spec.monthly else "%Y/%m/%d"
        day = np.datetime64(self.spec.start, "ms").astype("datetime64[D]")
        names = [
            (Path((day + number).item().strftime(form)) / "request.csv", number) for number in range(self.spec.days)
        ]
        found = {name: [number for _, number in days] for name, days in groupby(names, key=lambda one: one[0])}
        return {name: range(days[0], days[-1] + 1) for name, days in found.items()}

    def tables(self, day: int) -> Iterator[pa.Table]:
        """The clean sessions of a day, in order of their start, slice by slice."""
        for number in range(self.slices):
            yield self._slice(day, number)[0]

    def write_day(self, day: int, file: IO[bytes]) -> Truth:
        """Append a day's rows, some of them spoilt."""
        truth = Truth()
        for number in range(self.slices):
            made, random = self._slice(day, number)
            written, dirt = self._spoilt(made, random)
            file.write(written)
            truth.add(Truth(len(made), len(written), dirt))
        return truth

    def batches(self, *, since: int | None = None, endless: bool = False) -> Iterator[Batch]:
        """The clean sessions as records of ``server.sessions``, keyed by server.

        Those that start at ``since`` (epoch ms) or later; with ``endless`` days follow those of the log for ever.
        """
        encode, first = records(), self.spec.start if since is None else since
        day = max(first - self.spec.start, 0) // DAY_MS
        for number in count(day) if endless else range(day, self.spec.days):
            for made in self.tables(number):
                batch = encode(made)
                rows = int(np.searchsorted(batch.ts, first))
                if rows < len(batch):
                    yield Batch(batch.keys[rows:], batch.values[rows:], batch.ts[rows:])

    @cached_property
    def slices(self) -> int:
        """Into how many parts a day is cut: a divisor of its five minutes."""
        wanted = self.spec.sessions / self.spec.days / SLICE
        return next((number for number in range(1, CELLS + 1) if CELLS % number == 0 and number >= wanted), CELLS)

    def _slice(self, day: int, number: int) -> tuple[pa.Table, np.random.Generator]:
        spec, cells = self.spec, CELLS // self.slices
        random = np.random.default_rng([spec.seed, 70, day, number])
        at = spec.start + day * DAY_MS + (number * cells + np.arange(cells)) * CELL_MS
        mean = self.rate * self.demand.size**SIZE_SHARE * self.demand.activity(at)
        each = _each(mean, self.demand, self.rate)
        counts = random.poisson(mean).ravel()
        cell = np.arange(counts.size).repeat(counts)
        start = at[cell // spec.servers] + random.integers(CELL_MS, size=len(cell))
        order = np.argsort(start, kind="stable")
        cell, start = cell[order], start[order]
        normal, uniform = random.standard_normal((len(cell), 8)), random.random((len(cell), 3))
        load = each.ravel()[cell] * np.exp(0.5 * normal[:, 0] - 0.125)  # so that its mean is as told
        return table(Sessions(cell % spec.servers, start, normal, uniform), load, self._ips), random

    def _spoilt(self, made: pa.Table, random: np.random.Generator) -> tuple[bytes, Counter[str]]:
        """The rows as CSV, some spoilt, and what was done to them."""
        written = lines(made)
        chosen = np.flatnonzero(random.random(len(made)) < self.spec.dirty)
        if not len(chosen):
            return written, Counter()
        rows = written.split(b"\n")
        dirt = Dirt(random)
        for row in chosen.tolist():
            rows[row] = spoil(rows[row], dirt)
        return b"\n".join(rows), dirt.done


@dataclass(frozen=True, slots=True)
class Varied:
    """A live fleet whose sessions are those of a log that never ends; the same spec gives the same bytes.

    ``start`` is epoch ms; ``rate`` the mean sessions per server and second over the first month.
    """

    servers: int
    seed: int = 0
    start: int = 0
    rate: float = 1.0
    timezone: str = "UTC"
    country: str = "US"

    @property
    def now(self) -> int:
        """Event time (epoch ms) at which it begins."""
        return self.start

    def build(self) -> "Varied":
        """Itself: any moment can be asked for without those before it."""
        return self

    def batches(self, _: int = 0) -> Iterator[Batch]:
        """Endless batches, a slice of a day each."""
        midnight, month = self.start // DAY_MS * DAY_MS, 31
        sessions = self.rate * self.servers * month * DAY_MS / 1000
        spec = LogSpec(self.servers, month, sessions, 0.0, self.seed, midnight, self.timezone, self.country)
        return spec.build().batches(since=self.start, endless=True)


def _each(mean: Floats, demand: Demand, rate: float) -> Floats:
    """Usual load of one session, ``(t, s)``; where there are few, one is no more than five minutes of many."""
    load: Floats = LEVEL / rate * demand.size ** (1 - SIZE_SHARE) * mean / (1 + mean) if rate else mean
    return load


def records() -> Callable[[pa.Table], Batch]:
    """What turns clean sessions into records of ``server.sessions``, keyed by server."""
    row, encoder = columns_encoder(COLUMNS), msgspec.json.Encoder()

    def encode(sessions: pa.Table) -> Batch:
        columns = sessions.to_pydict()
        values = json_lines(encoder, list(map(row, *(columns[name] for name in COLUMNS))))
        stamps = sessions["SessionStart"].cast(pa.timestamp("ms", "UTC")).cast(pa.int64())
        return Batch([server.encode() for server in columns["ServerIP"]], values, stamps.to_numpy())

    return encode
