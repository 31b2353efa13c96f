"""Open windows of one partition, in columns: one row a (device, window), one block a statistic.

Statistics are running sums about the first value seen, added reading by reading in log order, so
the same log gives the same bits in any batching. A window's mean lies within its own spread of any
of its values; the shifted sum of squares therefore loses at most a factor *n* to cancellation
(Chan, Golub, LeVeque 1983, section 2: "shifted data").
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scorers.compiled import compiled
from scorers.errors import ConfigError
from scorers.statistics import Floats, Ints, Statistics
from stream.index import Index

_FIRST_ROWS = 64
LONGEST_MS = 24 * 24 * 3_600_000
"""Of a window: 32 bits hold its milliseconds, and how many readings a device sends in it."""


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """Half-open windows ``[k * hop, k * hop + size)`` aligned to the epoch; all lengths in ms.

    ``grace`` is how long a window waits for stragglers on its device's clock, ``idle`` how long on
    the partition's clock when the device has gone quiet.

    Raises:
        ConfigError: a length makes no sense.
    """

    size_ms: int = 10_000
    hop_ms: int = 10_000
    grace_ms: int = 2_000
    idle_ms: int = 30_000

    def __post_init__(self) -> None:
        if self.size_ms > LONGEST_MS:
            raise ConfigError(f"window.size ({self.size_ms} ms) must not be over 24 days ({LONGEST_MS} ms).")
        if self.size_ms < 1 or not 1 <= self.hop_ms <= self.size_ms:
            raise ConfigError(f"window.hop ({self.hop_ms} ms) must lie between 1 ms and window.size ({self.size_ms}).")
        if self.grace_ms < 0 or self.idle_ms < 1:
            raise ConfigError("window.grace must not be negative and window.idle must be positive.")

    @property
    def overlap(self) -> int:
        """How many windows a reading belongs to at the most."""
        return -(-self.size_ms // self.hop_ms)

    def last_end(self, ts: Ints) -> Ints:
        """The end of the last window that holds ``ts``."""
        return ts // self.hop_ms * self.hop_ms + self.size_ms


@dataclass(frozen=True, slots=True)
class Closed:
    """``n`` closed windows of devices that share their metrics."""

    device: Ints
    start: Ints
    end: Ints
    count: Ints
    """Readings in the window, whatever metrics they carried."""
    statistics: Statistics


@dataclass(frozen=True, slots=True)
class Arrivals:
    """``n`` readings of devices that share a block, in log order, placed in a window each."""

    device: Ints
    window: Ints
    """Window number: start divided by hop."""
    within: Ints
    """The reading's stamp since its window's start, ms."""
    offset: Ints
    partition_clock: Ints
    shape: Ints
    """Which metrics the reading has, as :class:`Values` numbers them."""
    start: Ints
    """Where its values begin in :class:`Values`."""


@dataclass(frozen=True, slots=True)
class Values:
    """What readings measured, and where it belongs in one block."""

    flat: Floats
    edges: Ints
    """Shape ``(shapes + 1,)``."""
    columns: Ints
    """The columns of shape *s* are ``columns[edges[s]:edges[s + 1]]``, in the order of its values."""


@dataclass(slots=True)
class _Columns:
    """Statistics blocks of shape ``(capacity, metrics)``."""

    count: NDArray[np.int32]
    shift: Floats
    total: Floats
    square: Floats
    low: Floats
    high: Floats
    last: Floats
    last_ts: NDArray[np.int32]
    """Since the window's start, as ``Arrivals.within``."""

    @classmethod
    def room(cls, rows: int, metrics: int) -> "_Columns":
        """Rows to be cleared before they are used: until then they cost no memory."""
        shape = (rows, metrics)
        shift, total, square, low, high, last = (np.empty(shape) for _ in range(6))
        return cls(np.empty(shape, np.int32), shift, total, square, low, high, last, np.empty(shape, np.int32))

    def put(self, rows: Ints, other: "_Columns", at: Ints, columns: Ints) -> None:
        """Copy rows ``at`` of ``other`` to ``rows``, its columns to ``columns``."""
        target = np.ix_(rows, columns)
        for name in self.__slots__:
            getattr(self, name)[target] = getattr(other, name)[at]

    def clear(self, rows: Ints) -> None:
        """Make ``rows`` as new."""
        for name in self.__slots__:
            getattr(self, name)[rows] = {"low": np.inf, "high": -np.inf}.get(name, 0)


@dataclass(slots=True)
class _Rows:
    """What each row is about; shape ``(capacity,)``."""

    device: Ints
    window: Ints
    count: Ints
    first_offset: Ints
    first_clock: Ints
    """The partition's clock when the window opened."""

    @classmethod
    def room(cls, rows: int) -> "_Rows":
        return cls(*(np.empty(rows, np.int64) for _ in cls.__slots__))


@dataclass(slots=True)
class Block:
    """The open windows of all devices that send the same metrics."""

    metrics: tuple[str, ...]
    _index: Index = field(default_factory=Index)
    """Of the rows in use."""
    _free: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    _left: int = 0
    """How many rows are free: the first so many of ``_free``."""
    _used: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    _rows: _Rows = field(default_factory=lambda: _Rows.room(0))
    _data: _Columns = field(init=False)

    def __post_init__(self) -> None:
        self._data = _Columns.room(0, len(self.metrics))

    def __len__(self) -> int:
        return len(self._index)

    def columns(self, names: Sequence[str]) -> Ints:
        """Where ``names`` stand among the metrics."""
        place = {name: column for column, name in enumerate(self.metrics)}
        return np.array([place[name] for name in names], np.int64)

    def live(self) -> Ints:
        """The rows in use."""
        return np.flatnonzero(self._used)

    def add(self, arrivals: Arrivals, values: Values) -> None:
        """Add readings to their windows, opening what is not open."""
        row = self._place(arrivals)
        data = [getattr(self._data, name) for name in _Columns.__slots__]
        _accumulate(
            row, arrivals.within, arrivals.shape, arrivals.start, values.flat, values.edges, values.columns,
            self._rows.count, *data,
        )  # fmt: skip

    def _place(self, arrivals: Arrivals) -> Ints:
        """The row of each arrival's window."""
        about = self._rows
        rows = self._index.find(about.device, about.window, arrivals.device, arrivals.window)
        new = np.flatnonzero(rows < 0)
        if len(new):
            self._open(arrivals, new)
            about = self._rows
            rows[new] = self._index.find(about.device, about.window, arrivals.device[new], arrivals.window[new])
        return rows

    def _open(self, arrivals: Arrivals, new: NDArray[np.intp]) -> None:
        """Open a row for each window among ``new`` arrivals."""
        device, window = arrivals.device[new], arrivals.window[new]
        low = int(window.min())
        _, first = np.unique(device * (int(window.max()) - low + 1) + (window - low), return_index=True)
        rows, first = self._take(len(first)), new[first]
        about = self._rows
        about.device[rows], about.window[rows] = arrivals.device[first], arrivals.window[first]
        about.count[rows] = 0
        about.first_offset[rows] = arrivals.offset[first]
        about.first_clock[rows] = arrivals.partition_clock[first]
        self._register(rows)

    def _register(self, rows: Ints) -> None:
        self._index.enter(self._rows.device, self._rows.window, rows)
        self._used[rows] = True

    def _take(self, wanted: int) -> Ints:
        """Rows as new."""
        if wanted > self._left:
            self._grow(max(wanted, len(self._free) // 2, _FIRST_ROWS))
        self._left -= wanted
        rows = self._free[self._left : self._left + wanted].copy()
        self._data.clear(rows)
        return rows

    def _grow(self, more: int) -> None:
        old = len(self._free)
        new = old + more
        rows, data, free = _Rows.room(new), _Columns.room(new, len(self.metrics)), np.empty(new, np.int64)
        for name in _Rows.__slots__:
            getattr(rows, name)[:old] = getattr(self._rows, name)
        for name in _Columns.__slots__:
            getattr(data, name)[:old] = getattr(self._data, name)
        free[: self._left] = self._free[: self._left]
        free[self._left : self._left + more] = np.arange(new - 1, old - 1, -1)  # the lowest is taken first
        self._rows, self._data, self._free, self._left = rows, data, free, self._left + more
        self._used = np.append(self._used, np.zeros(more, np.bool_))

    def release(self, rows: Ints) -> None:
        """Forget ``rows``."""
        self._index.leave(self._rows.device, self._rows.window, rows)
        self._used[rows] = False
        self._free[self._left : self._left + len(rows)] = rows
        self._left += len(rows)

    def adopt(self, other: "Block", rows: Ints) -> None:
        """Take over ``rows`` of a block whose metrics are a subset of these."""
        mine = self._take(len(rows))
        for name in _Rows.__slots__:
            getattr(self._rows, name)[mine] = getattr(other._rows, name)[rows]  # noqa: SLF001 - a fellow block
        self._data.put(mine, other._data, rows, self.columns(other.metrics))  # noqa: SLF001 - a fellow block
        self._register(mine)
        other.release(rows)

    def of(self, device: Ints) -> Ints:
        """The rows of these devices."""
        rows = self.live()
        return rows[np.isin(self._rows.device[rows], device)]

    def due(self, closed: Ints, spec: WindowSpec) -> Ints:
        """The rows whose windows have closed, by device and start; ``closed`` is per device."""
        rows = self.live()
        about = self._rows
        ended = about.window[rows] * spec.hop_ms + spec.size_ms <= closed[about.device[rows]]
        rows = rows[ended]
        order = np.lexsort((about.window[rows], about.device[rows]))
        result: Ints = rows[order]
        return result

    def floor(self) -> tuple[int, int] | None:
        """(lowest offset an open window needs, the partition's clock there)."""
        rows = self.live()
        if not len(rows):
            return None
        offset = self._rows.first_offset[rows]
        lowest = offset.min()
        return int(lowest), int(self._rows.first_clock[rows[offset == lowest]].min())

    def summary(self, rows: Ints, spec: WindowSpec) -> Closed:
        """The statistics of ``rows``."""
        about, data = self._rows, self._data
        count = data.count[rows].astype(np.int64)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = data.shift[rows] + data.total[rows] / count
            spread = data.square[rows] - data.total[rows] * data.total[rows] / count
            std = np.sqrt(np.maximum(spread, 0.0) / (count - 1))
        absent = count == 0
        low, high, last = (np.where(absent, np.nan, block[rows]) for block in (data.low, data.high, data.last))
        # a mean that rounding pushed past the extremes is put back
        mean = np.clip(mean, low, high)
        std = np.where(count < 2, np.nan, std)  # noqa: PLR2004 - the sample deviation needs two
        start = about.window[rows] * spec.hop_ms
        statistics = Statistics(self.metrics, count, mean, std, low, high, last)
        return Closed(about.device[rows].copy(), start, start + spec.size_ms, about.count[rows].copy(), statistics)


@compiled
def _accumulate(  # noqa: PLR0913, PLR0917 - a loop over columns takes columns
    row: Ints, within: Ints, shape: Ints, start: Ints, flat: Floats, edges: Ints, columns: Ints, readings: Ints,
    count: NDArray[np.int32], shift: Floats, total: Floats, square: Floats, low: Floats, high: Floats, last: Floats,
    last_ts: NDArray[np.int32],
) -> None:  # fmt: skip
    """Reading by reading: the same sums, to the bit, in any batching."""
    for i in range(len(row)):
        at = row[i]
        readings[at] += 1
        first = edges[shape[i]]
        for place in range(first, edges[shape[i] + 1]):
            column, value = columns[place], flat[start[i] + place - first]
            if count[at, column] == 0:
                shift[at, column] = value
            distance = value - shift[at, column]
            count[at, column] += 1
            total[at, column] += distance
            square[at, column] += distance * distance
            low[at, column] = min(low[at, column], value)
            high[at, column] = max(high[at, column], value)
            if within[i] >= last_ts[at, column]:
                last[at, column], last_ts[at, column] = value, within[i]


class Windows:
    """Every open window of a partition; devices are numbers, each in the block of its metrics."""

    def __init__(self, spec: WindowSpec) -> None:
        self.spec = spec
        self._blocks: list[Block] = [Block(())]
        self._index: dict[tuple[str, ...], int] = {(): 0}
        self._block = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    def grow(self, devices: int) -> None:
        """Make room for device numbers below ``devices``."""
        more = devices - len(self._block)
        if more > 0:
            self._block = np.append(self._block, np.zeros(max(more, len(self._block) // 4), np.int64))

    def metrics(self, block: int) -> tuple[str, ...]:
        """The metrics of a block, sorted."""
        return self._blocks[block].metrics

    def blocks(self, device: Ints) -> Ints:
        """The block of each device."""
        return self._block[device]

    def widen(self, device: Ints, names: Sequence[str]) -> None:
        """Move devices, all of one block, to the block that has ``names`` too."""
        old = self._blocks[int(self._block[device[0]])]
        wanted = tuple(sorted({*old.metrics, *names}))
        number = self._index.setdefault(wanted, len(self._blocks))
        if number == len(self._blocks):
            self._blocks.append(Block(wanted))
        rows = old.of(device)
        if len(rows):
            self._blocks[number].adopt(old, rows)
        self._block[device] = number

    def add(self, block: int, arrivals: Arrivals, values: Values) -> None:
        """Add readings to windows of one block."""
        self._blocks[block].add(arrivals, values)

    def columns(self, block: int, names: Sequence[str]) -> Ints:
        """Where ``names`` stand among a block's metrics."""
        return self._blocks[block].columns(names)

    def close(self, closed: Ints) -> Iterator[Closed]:
        """Take out what has closed; ``closed`` holds, per device, the end up to which it has."""
        for block in self._blocks:
            if not len(block):
                continue
            rows = block.due(closed, self.spec)
            if len(rows):
                yield block.summary(rows, self.spec)
                block.release(rows)

    def floor(self) -> tuple[int, int] | None:
        """(lowest offset an open window needs, the partition's clock there), if any is open."""
        return min((floor for floor in (block.floor() for block in self._blocks) if floor), default=None)
