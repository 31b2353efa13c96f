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

_FIRST_ROWS = 64


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
    ts: Ints
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

    count: Ints
    shift: Floats
    total: Floats
    square: Floats
    low: Floats
    high: Floats
    last: Floats
    last_ts: Ints

    @classmethod
    def empty(cls, rows: int, metrics: int) -> "_Columns":
        shape = (rows, metrics)
        zeros = [np.zeros(shape) for _ in range(4)]
        shift, total, square, last = zeros
        low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
        return cls(np.zeros(shape, np.int64), shift, total, square, low, high, last, np.zeros(shape, np.int64))

    def put(self, rows: Ints, other: "_Columns", at: Ints, columns: Ints) -> None:
        """Copy rows ``at`` of ``other`` to ``rows``, its columns to ``columns``."""
        target = np.ix_(rows, columns)
        for name in self.__slots__:
            getattr(self, name)[target] = getattr(other, name)[at]

    def clear(self, rows: Ints) -> None:
        """Make ``rows`` as good as new."""
        width = self.count.shape[1]
        self.put(rows, _Columns.empty(1, width), np.zeros(len(rows), np.int64), np.arange(width))


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
    def empty(cls, rows: int) -> "_Rows":
        return cls(*(np.zeros(rows, np.int64) for _ in cls.__slots__))


@dataclass(slots=True)
class Block:
    """The open windows of all devices that send the same metrics."""

    metrics: tuple[str, ...]
    place: dict[tuple[int, int], int] = field(default_factory=dict)
    """(device, window) to row."""
    _free: list[int] = field(default_factory=list)
    _used: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    _rows: _Rows = field(default_factory=lambda: _Rows.empty(0))
    _data: _Columns = field(init=False)

    def __post_init__(self) -> None:
        self._data = _Columns.empty(0, len(self.metrics))

    def __len__(self) -> int:
        return len(self.place)

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
            row, arrivals.ts, arrivals.shape, arrivals.start, values.flat, values.edges, values.columns,
            self._rows.count, *data,
        )  # fmt: skip

    def _place(self, arrivals: Arrivals) -> Ints:
        """The row of each arrival's window."""
        # the window count of a batch is far below its reading count: look up each pair once
        low = int(arrivals.window.min())
        span = int(arrivals.window.max()) - low + 1
        pair = arrivals.device * span + (arrivals.window - low)
        pairs, first, back = np.unique(pair, return_index=True, return_inverse=True)
        keys = zip((pairs // span).tolist(), (pairs % span + low).tolist(), strict=True)
        rows = np.array([self.place.get(key, -1) for key in keys], np.int64)
        new = np.flatnonzero(rows < 0)
        if len(new):
            rows[new] = self._open(arrivals, first[new])
        result: Ints = rows[back]
        return result

    def _open(self, arrivals: Arrivals, first: NDArray[np.intp]) -> Ints:
        rows = self._take(len(first))
        about = self._rows
        about.device[rows], about.window[rows] = arrivals.device[first], arrivals.window[first]
        about.count[rows] = 0
        about.first_offset[rows] = arrivals.offset[first]
        about.first_clock[rows] = arrivals.partition_clock[first]
        self._register(rows)
        return rows

    def _register(self, rows: Ints) -> None:
        about = self._rows
        keys = zip(about.device[rows].tolist(), about.window[rows].tolist(), strict=True)
        self.place.update(zip(keys, rows.tolist(), strict=True))
        self._used[rows] = True

    def _take(self, wanted: int) -> Ints:
        capacity = len(self._rows.device)
        if wanted > len(self._free):
            more = max(wanted, capacity, _FIRST_ROWS)
            self._grow(capacity, capacity + more)
            self._free.extend(range(capacity + more - 1, capacity - 1, -1))
        rows = np.array(self._free[-wanted:], np.int64)
        del self._free[-wanted:]
        return rows

    def _grow(self, old: int, new: int) -> None:
        rows, data = _Rows.empty(new), _Columns.empty(new, len(self.metrics))
        for name in _Rows.__slots__:
            getattr(rows, name)[:old] = getattr(self._rows, name)
        for name in _Columns.__slots__:
            getattr(data, name)[:old] = getattr(self._data, name)
        self._rows, self._data = rows, data
        self._used = np.append(self._used, np.zeros(new - old, np.bool_))

    def release(self, rows: Ints) -> None:
        """Forget ``rows``."""
        about = self._rows
        for key in zip(about.device[rows].tolist(), about.window[rows].tolist(), strict=True):
            del self.place[key]
        self._data.clear(rows)
        self._used[rows] = False
        self._free.extend(rows.tolist())

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
        row = rows[np.argmin(self._rows.first_offset[rows])]
        return int(self._rows.first_offset[row]), int(self._rows.first_clock[row])

    def summary(self, rows: Ints, spec: WindowSpec) -> Closed:
        """The statistics of ``rows``."""
        about, data = self._rows, self._data
        count = data.count[rows]
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
    row: Ints, ts: Ints, shape: Ints, start: Ints, flat: Floats, edges: Ints, columns: Ints, readings: Ints,
    count: Ints, shift: Floats, total: Floats, square: Floats, low: Floats, high: Floats, last: Floats, last_ts: Ints,
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
            if ts[i] >= last_ts[at, column]:
                last[at, column], last_ts[at, column] = value, ts[i]


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
            self._block = np.append(self._block, np.zeros(max(more, len(self._block)), np.int64))

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
