"""What scoring hands to the stream: one verdict a window, as columns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scorers.statistics import Floats, Ints


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the fleet says of ``n`` windows; NaN (and -1) where ``scored`` is false.

    ``decision`` is scikit-learn's decision value minus the calibrated threshold (negative = anomaly),
    ``score`` 0 to 100 by :func:`scorers.model.score`, ``severity`` the whitened Mahalanobis distance in
    units of its median over healthy held-out windows: about 1 in health, without upper bound.

    The contributors of a window are the features with the largest share of that distance squared:
    ``z_i (R⁻¹ z)_i`` with ``R`` the shrunk correlation matrix, negative parts left out, scaled to sum to 1
    over all features.
    """

    scored: NDArray[np.bool_]
    decision: Floats
    score: Floats
    severity: Floats
    anomaly: NDArray[np.bool_]
    names: tuple[str, ...]
    """What ``feature`` points into, such as ``temperature.mean``."""
    feature: Ints
    """Shape (n, top), largest share first; -1 where a model has fewer features."""
    share: Floats
    """Shape (n, top)."""
    actual: Floats
    """Shape (n, top), in the metric's unit; NaN where the window has no such value."""
    typical: Floats
    """Shape (n, top), in the metric's unit."""
    lent: NDArray[np.bool_]
    """Whether the model is the type's, and not the device's own."""
    confidence: Floats
    """Of the model, in [0, 1]; NaN where it is not known. See :class:`scorers.model.DeviceModel`."""

    def __len__(self) -> int:
        return len(self.scored)

    @classmethod
    def learning(cls, rows: int, top: int, names: tuple[str, ...] = ()) -> "Verdicts":
        """Verdicts of ``rows`` windows whose devices have no model."""
        return cls(
            scored=np.zeros(rows, np.bool_),
            decision=np.full(rows, np.nan),
            score=np.full(rows, np.nan),
            severity=np.full(rows, np.nan),
            anomaly=np.zeros(rows, np.bool_),
            names=names,
            feature=np.full((rows, top), -1, np.int64),
            share=np.full((rows, top), np.nan),
            actual=np.full((rows, top), np.nan),
            typical=np.full((rows, top), np.nan),
            lent=np.zeros(rows, np.bool_),
            confidence=np.full(rows, np.nan),
        )
