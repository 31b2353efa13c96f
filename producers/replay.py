"""Recordings to batches: every row a reading, all devices and files in order of event time.

A file whose rows are in order of time streams through; one that is not is held in memory (8 bytes a
value, time and device of its rows) and sorted. Files are opened when their time comes. Where two rows have
the same time, the earlier file and the earlier row come first, so chunk sizes change nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from producers.batch import Batch, ReadingEncoder
from producers.columns import Rows, concat, convert, pivot, stamps
from producers.formats import Tally, read
from producers.recordings import Part, Recording
from scorers.errors import ConfigError, InputError
from stream.decode import EARLIEST, LATEST

Progress = Callable[[int, int], None]
"""Rows done and rows in all."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What to replay: the rows of ``[since, until)`` (epoch ms), once or, with ``loop``, for ever.

    Each round of a loop goes on in time where the one before ended. ``rows`` is the size of a chunk.
    """

    recording: Recording
    since: int = EARLIEST
    until: int = LATEST
    loop: bool = False
    rows: int = 8_192

    def __post_init__(self) -> None:
        if self.since >= self.until:
            raise ConfigError(f"--from {self.since} is not before --to {self.until}; swap them.")
        if self.rows < 1:
            raise ConfigError(f"rows is {self.rows}; give at least 1.")

    def open(self) -> "Player":
        """A player at the first row; looks through the times of every file once.

        Raises:
            InputError: a file cannot be read, its times make no sense, or no row lies in the range.
        """
        return Player(self)


@dataclass(slots=True)
class Survey:
    """What one look through a part's times tells; ``rows`` counts those in range, readable or not."""

    part: Part
    rows: int = 0
    first: int = LATEST
    last: int = EARLIEST
    distinct: int = 0
    ordered: bool = True
    metrics: dict[str, None] = field(default_factory=dict)

    def add(self, table: pa.Table, spec: Replay) -> None:
        """Take in one chunk."""
        ts, dated = stamps(table[self.part.columns.ts], self.part.columns)
        inside = ts[dated & (ts >= spec.since) & (ts < spec.until)]
        self.rows += len(inside) + int((~dated).sum())
        if self.part.columns.metric is not None:
            names = table[self.part.columns.metric].cast(pa.string()).unique().drop_null().to_pylist()
            self.metrics.update(dict.fromkeys(names))
        if not len(inside):
            return
        steps = np.diff(inside, prepend=self.last if self.distinct else inside[0] - 1)
        self.ordered &= bool((steps >= 0).all())
        self.distinct += int((steps != 0).sum())
        self.first = min(self.first, int(inside.min()))
        self.last = max(self.last, int(inside.max()))

    @property
    def step(self) -> int:
        """The usual time between two rows, in ms."""
        return max(1, (self.last - self.first) // max(1, self.distinct - 1))


def survey(part: Part, spec: Replay) -> Survey:
    """Look through a part's times.

    Raises:
        InputError: it cannot be read, or has not one usable time.
    """
    tally, seen, dated = Tally(), 0, False
    found = Survey(part, metrics=dict.fromkeys(part.columns.metrics or ()))
    wanted = [name for name in (part.columns.ts, part.columns.metric) if name is not None]
    for table in read(part.path, wanted, rows=spec.rows, tally=tally):
        seen += len(table)
        dated = dated or bool(stamps(table[part.columns.ts], part.columns)[1].any())
        found.add(table, spec)
    if seen and not dated:
        raise InputError(
            f"Column {part.columns.ts!r} of {str(part.path)!r} holds no time between 1980 and 2199; name another with"
            " --ts, or if it numbers the rows, give the time of row 0 with --start and of each with --step."
        )
    found.rows += tally.rows.total()
    return found


class Player:
    """A replay under way.

    ``total`` rows will be seen in one round, ``done`` were so far; ``tally`` says which rows could not be
    turned into readings and which cells were left out, and why.
    """

    def __init__(self, spec: Replay) -> None:
        self.spec = spec
        self.tally = Tally()
        self.emitted = 0
        self._surveys = [survey(part, spec) for part in spec.recording.parts]
        self.total = sum(found.rows for found in self._surveys)
        self._surveys = [found for found in self._surveys if found.distinct]
        if not self._surveys:
            raise InputError(f"Recording {spec.recording.name!r} has no row in that range; widen --from and --to.")
        self._narrow = _narrow(spec.recording)
        self.metrics = tuple(dict.fromkeys(name for found in self._surveys for name in found.metrics))
        self._encoder = ReadingEncoder(self.metrics)

    @property
    def done(self) -> int:
        """Rows seen so far: turned into readings, or tallied as unfit."""
        return self.emitted + self.tally.rows.total()

    @property
    def first(self) -> int:
        """Event time of the first reading, epoch ms."""
        return min(found.first for found in self._surveys)

    @property
    def last(self) -> int:
        """Event time of the last reading of the first round, epoch ms."""
        return max(found.last for found in self._surveys)

    @property
    def period(self) -> int:
        """How far each round of a loop is shifted, in ms: the recording's length and one usual step."""
        return self.last - self.first + max(found.step for found in self._surveys)

    def batches(self, progress: Progress | None = None) -> Iterator[Batch]:
        """The readings, in order of event time, round after round; endless if the spec loops."""
        shift = 0
        while True:
            for rows in merge([Stream(found.first, self._rows(found)) for found in self._surveys]):
                self.emitted += len(rows)
                for chunk in _slices(pivot(rows) if self._narrow else rows, self.spec.rows):
                    yield self._encode(chunk, shift)
                if progress is not None:
                    progress(self.done, self.total)
            if not self.spec.loop:
                return
            shift += self.period

    def _encode(self, rows: Rows, shift: int) -> Batch:
        ts = rows.ts + shift
        devices = rows.device.tolist()
        return Batch([device.encode() for device in devices], self._encoder.encode(devices, ts, rows.matrix), ts)

    def _rows(self, found: Survey) -> Iterator[Rows]:
        """A part's rows in order of time."""
        chunks = self._chunks(found.part)
        if found.ordered:
            return chunks
        rows = concat(list(chunks))
        return _slices(rows.take(np.argsort(rows.ts, kind="stable")), self.spec.rows)

    def _chunks(self, part: Part) -> Iterator[Rows]:
        spec = self.spec
        for table in read(part.path, part.columns.wanted, rows=spec.rows, tally=self.tally):
            rows = convert(table, part.columns, self.metrics, self.tally)
            yield rows.take((rows.ts >= spec.since) & (rows.ts < spec.until))


def _narrow(recording: Recording) -> bool:
    forms = {part.columns.narrow for part in recording.parts}
    if len(forms) > 1:
        raise InputError(f"Recording {recording.name!r} has files of one metric a row and of many; replay them apart.")
    return forms.pop()


def _slices(rows: Rows, size: int) -> Iterator[Rows]:
    return (rows.take(slice(low, low + size)) for low in range(0, len(rows), size))


class Stream:
    """Rows in order of time, loaded chunk by chunk as they are asked for."""

    def __init__(self, first: int, chunks: Iterator[Rows]) -> None:
        self.reach: int | None = first
        """No later row is earlier than this; None when there is no later row."""
        self._chunks = chunks
        self._pending: list[Rows] = []

    def load(self) -> None:
        """Take one more chunk, or note that there is none."""
        chunk = next(self._chunks, None)
        if chunk is None:
            self.reach = None
        elif len(chunk):
            self.reach = int(chunk.ts[-1])
            self._pending.append(chunk)

    def before(self, time: int) -> Rows | None:
        """Give up the rows earlier than ``time`` (epoch ms)."""
        if not self._pending:
            return None
        rows = concat(self._pending) if len(self._pending) > 1 else self._pending[0]
        cut = int(np.searchsorted(rows.ts, time))
        self._pending = [rows.take(slice(cut, None))] if cut < len(rows) else []
        return rows.take(slice(0, cut)) if cut else None


def merge(streams: Sequence[Stream]) -> Iterator[Rows]:
    """All rows in order of time; rows of one time come together, in the order of the streams."""
    while True:
        waiting = [stream.reach for stream in streams if stream.reach is not None]
        horizon = min(waiting, default=LATEST)
        ready = [rows for stream in streams if (rows := stream.before(horizon)) is not None]
        if ready:
            rows = concat(ready)
            yield rows.take(np.argsort(rows.ts, kind="stable"))
        if not waiting:
            return
        for stream in streams:
            if stream.reach == horizon:
                stream.load()
