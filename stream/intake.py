"""Believed readings into open windows; what is late, repeated or one metric too many stays out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from scorers.statistics import Ints
from stream.clock import Clocks, Trace
from stream.contracts import Reason
from stream.decode import Decoded
from stream.dedupe import Seen
from stream.rejects import WHOLE
from stream.window import Arrivals, Values, Windows, WindowSpec

_FORGET_AT = 65_536

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Batch:
    """``n`` believed readings in the order they count, and what their clocks said."""

    decoded: Decoded
    device: Ints
    offset: Ints
    trace: Trace

    def before(self) -> Ints:
        """The partition's clock before the first reading of each reading's record: there the log is read again."""
        clock = self.trace.partition
        if self.decoded.part.max(initial=WHOLE) <= 0:
            return clock
        _, record = np.unique(self.decoded.row, return_inverse=True)
        lowest = np.full(len(clock), np.iinfo(np.int64).max)
        np.minimum.at(lowest, record, clock)
        return lowest[record]


class Intake:
    """The open windows of one partition and what they have taken in."""

    def __init__(self, spec: WindowSpec, *, dedupe: bool, max_metrics: int) -> None:
        self.windows = Windows(spec)
        self._spec = spec
        self._dedupe = dedupe
        self._max_metrics = max_metrics
        self._seen: dict[tuple[str, ...], Seen] = {}
        self._forget_at = _FORGET_AT

    def admit(self, batch: Batch) -> list[tuple[int, Reason]]:
        """Add the readings to every window of theirs that is open; (reading, reason) of those left out."""
        numbers, places = self._places(batch)
        late = np.logical_not(places.any(axis=0))
        crowded = self._widen(batch, ~late)
        repeated = self._repeated(batch, ~(late | crowded))
        out = late | crowded | repeated
        # reading by reading, so that every window sums in log order
        rows, back = np.nonzero((places & ~out).T)
        self._add(batch, numbers[back, rows], rows)
        if not out.any():
            return []
        reasons = ((late, Reason.LATE), (crowded, Reason.TOO_MANY_METRICS), (repeated, Reason.DUPLICATE))
        return [(at, reason) for mask, reason in reasons for at in np.flatnonzero(mask).tolist()]

    def metrics(self, device: Ints) -> list[tuple[str, ...]]:
        """Every metric that each device has sent."""
        return [self.windows.metrics(block) for block in self.windows.blocks(device).tolist()]

    def recall(self, sent: Iterable[tuple[int, Sequence[str]]]) -> None:
        """Know again which metrics devices have sent."""
        devices: dict[tuple[str, ...], list[int]] = {}
        for device, metrics in sent:
            devices.setdefault(tuple(metrics), []).append(device)
        for names, alike in devices.items():
            self.windows.widen(np.array(alike), names)

    def forget(self, clocks: Clocks) -> None:
        """Drop from memory the readings that lie in closed windows alone."""
        if sum(map(len, self._seen.values())) < self._forget_at:
            return
        closed = clocks.closed()
        for seen in self._seen.values():
            seen.forget(closed, self._spec.size_ms)
        self._seen = {names: seen for names, seen in self._seen.items() if len(seen)}
        self._forget_at = max(_FORGET_AT, 2 * sum(map(len, self._seen.values())))

    def _places(self, batch: Batch) -> tuple[Ints, Mask]:
        """Window numbers of each reading, and which of those windows are open; shape (overlap, n)."""
        ts = batch.decoded.ts
        numbers: Ints = ts // self._spec.hop_ms - np.arange(self._spec.overlap)[:, None]
        ends = numbers * self._spec.hop_ms + self._spec.size_ms
        return numbers, (ends > ts) & (ends > batch.trace.closed)

    def _widen(self, batch: Batch, fine: Mask) -> Mask:
        """Give every device the metrics it sends; which readings would give it too many."""
        crowded = np.zeros(len(fine), np.bool_)
        blocks = self.windows.blocks(batch.device)
        for block in np.unique(blocks[fine]).tolist():
            rows = np.flatnonzero(fine & (blocks == block))
            shapes = [batch.decoded.shapes[shape] for shape in np.unique(batch.decoded.shape[rows]).tolist()]
            have = set(self.windows.metrics(block))
            if have.issuperset(chain.from_iterable(shapes)):
                continue
            if len(have.union(*shapes)) <= self._max_metrics:
                self._widen_by_shape(batch, rows)
            else:
                crowded[self._widen_in_turn(batch, rows)] = True
        return crowded

    def _widen_by_shape(self, batch: Batch, rows: Ints) -> None:
        """All at once: whatever the order, no device gets too many."""
        for shape in np.unique(batch.decoded.shape[rows]).tolist():
            names = batch.decoded.shapes[shape]
            device = np.unique(batch.device[rows[batch.decoded.shape[rows] == shape]])
            blocks = self.windows.blocks(device)
            for block in np.unique(blocks).tolist():
                if not set(names).issubset(self.windows.metrics(block)):
                    self.windows.widen(device[blocks == block], names)

    def _widen_in_turn(self, batch: Batch, rows: Ints) -> list[int]:
        """Reading by reading: who comes first has the room; the readings left out."""
        crowded = []
        for row in rows.tolist():
            device, names = batch.device[row : row + 1], batch.decoded.shapes[int(batch.decoded.shape[row])]
            have = self.windows.metrics(int(self.windows.blocks(device)[0]))
            if len({*have, *names}) > self._max_metrics:
                crowded.append(row)
            elif not set(names).issubset(have):
                self.windows.widen(device, names)
        return crowded

    def _repeated(self, batch: Batch, fine: Mask) -> Mask:
        repeated = np.zeros(len(fine), np.bool_)
        if not self._dedupe:
            return repeated
        suspect = batch.decoded.ts <= batch.trace.clock
        for shape, names in enumerate(batch.decoded.shapes):
            rows = np.flatnonzero(fine & (batch.decoded.shape == shape))
            if len(rows):
                seen = self._seen.setdefault(tuple(sorted(names)), Seen())
                repeated[rows] = seen.repeated(batch.device[rows], batch.decoded.ts[rows], suspect[rows])
        return repeated

    def _add(self, batch: Batch, number: Ints, rows: Ints) -> None:
        """Add reading ``rows[i]`` to window ``number[i]``."""
        decoded, before = batch.decoded, batch.before()
        blocks = self.windows.blocks(batch.device[rows])
        for block in np.unique(blocks).tolist():
            chosen = blocks == block
            here = rows[chosen]
            shape = decoded.shape[here]
            arrivals = Arrivals(
                batch.device[here],
                number[chosen],
                decoded.ts[here] - number[chosen] * self._spec.hop_ms,
                batch.offset[here],
                before[here],
                shape,
                decoded.start[here],
            )
            self.windows.add(block, arrivals, self._values(decoded, shape, block))

    def _values(self, decoded: Decoded, shape: Ints, block: int) -> Values:
        """Where the values of a batch belong in a block, for the shapes that occur there."""
        columns = [np.empty(0, np.int64)] * len(decoded.shapes)
        for number in np.unique(shape).tolist():
            columns[number] = self.windows.columns(block, decoded.shapes[number])
        return Values(decoded.flat, np.cumsum([0, *map(len, columns)]), np.concatenate(columns))
