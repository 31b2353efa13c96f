"""What a window is summarised by; the currency between stream, training and scoring."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of ``n`` windows over ``m`` metrics, one row a window.

    Every array has shape ``(n, m)``. Where ``count`` is 0 the rest is NaN. ``std`` is the
    sample standard deviation (``ddof=1``, as pandas), NaN for fewer than two readings.
    ``last`` is the reading with the highest event time.
    """

    metrics: tuple[str, ...]
    count: Ints
    mean: Floats
    std: Floats
    min: Floats
    max: Floats
    last: Floats

    def __len__(self) -> int:
        return len(self.count)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Statistics":
        """The statistics of the chosen rows, in that order."""
        return replace(self, **{name: getattr(self, name)[rows] for name in BLOCKS})

    def align(self, metrics: Sequence[str]) -> "Statistics":
        """The same windows over ``metrics``, in that order; a metric unknown here has count 0."""
        wanted = tuple(metrics)
        if wanted == self.metrics:
            return self
        place = {name: column for column, name in enumerate(self.metrics)}
        columns = np.array([place.get(name, -1) for name in wanted], dtype=np.intp)
        blocks = {}
        for name in BLOCKS:
            block = getattr(self, name)
            filler = np.zeros((len(block), 1), block.dtype) if name == "count" else np.full((len(block), 1), np.nan)
            blocks[name] = np.hstack([block, filler])[:, columns]
        return Statistics(wanted, **blocks)


BLOCKS = tuple(field.name for field in fields(Statistics) if field.name != "metrics")


def concat(parts: Sequence[Statistics]) -> Statistics:
    """One block out of many with the same metrics; rows keep their order."""
    if len(parts) == 1:
        return parts[0]
    blocks = {name: np.concatenate([getattr(part, name) for part in parts]) for name in BLOCKS}
    return Statistics(parts[0].metrics, **blocks)
