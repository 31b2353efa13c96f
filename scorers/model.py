"""What training hands over for one device: how to standardise, whiten, compare and judge a window."""

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from scorers.errors import ModelError
from scorers.statistics import Floats
from scorers.trees import Forest

FARTHEST = 1e6
"""Standard deviations at which a feature is cut off, so that absurd readings stay within float range."""
PLAIN = 10.0
"""Standard deviations up to which a feature counts as it is; what lies beyond counts by its logarithm, so that one
feature does not drown all others."""
DEEPEST = 20.0
"""Largest ``gamma * reach``; beyond it the threshold drowns in the kernel's rounding."""
FEW = 15
"""So many features, or fewer: neighbours are found by a tree, which beyond looks at most of the windows anyway."""
STEEPNESS = 3
"""Exponent of :func:`score`."""


@dataclass(frozen=True, slots=True)
class Space:
    """Where windows of ``m`` metrics, ``p = 5 m`` features, are compared: standardised, then whitened."""

    softening: Floats
    """Shape (m,), in the metric's unit; see :func:`scorers.features.transform`."""
    center: Floats
    """Shape (p,), of transformed features."""
    scale: Floats
    """Shape (p,), positive."""
    projection: Floats
    """Shape (p, p); its rows are the whitening directions."""

    def whiten(self, shaped: Floats) -> Floats:
        """Whitened coordinates of transformed features, shape (n, p) both."""
        return standardise(shaped, self.center, self.scale) @ self.projection.T


@dataclass(frozen=True, slots=True)
class Kernel:
    """``s`` healthy windows to compare with: ``f(y) = sum_i coefs_i exp(-gamma |y - vectors_i|²) - offset``.

    A one-class SVM's support vectors, the windows of nearest neighbours, or the one in the middle of them all; where
    two detectors are combined, the first two of these one after the other; of an isolation forest the least and the
    largest coordinates.
    """

    vectors: Floats
    """Shape (s, p)."""
    coefs: Floats
    """Shape (s,), positive."""
    offset: float
    gamma: float
    nearest: int = 0
    """So many of the vectors, the nearest, say how far a window is; 0 lets all of them."""
    forest: Forest | None = None
    """Says how far a window is, in place of them all."""
    support: int = 0
    """So many of the vectors, the first, are a one-class SVM's and ``nearest`` are of the others, where both of them
    say how far a window is; 0 where there is one detector."""

    @property
    def weight(self) -> float:
        """The sum of the coefficients, where two detectors are combined those of the one-class SVM."""
        return float(self.coefs[: self.support or None].sum())

    def apart(self) -> "tuple[Kernel, Kernel]":
        """The one-class SVM and the nearest neighbours that are combined."""
        return (
            replace(self, vectors=self.vectors[: self.support], coefs=self.coefs[: self.support], nearest=0, support=0),
            replace(self, vectors=self.vectors[self.support :], coefs=self.coefs[self.support :], support=0),
        )

    def distance(self, whitened: Floats) -> Floats:
        """Kernel distance of rows (n, p), shape (n,); see :class:`DeviceModel`."""
        if self.forest is not None:
            least, largest = self.vectors
            beyond = whitened - np.clip(whitened, least, largest)
            paths = -np.log2(-self.forest.predict(whitened)[:, 0])
            return np.asarray((largest > least).sum() / paths**2 + (beyond**2).sum(axis=1))
        if self.support:
            svm, neighbours = self.apart()
            return np.asarray(np.sqrt(svm.distance(whitened) * neighbours.distance(whitened)))
        if self.nearest and whitened.shape[1] <= FEW:
            from sklearn.neighbors import KDTree  # noqa: PLC0415 - a second and 95 MB, which only those who train are to pay

            away, _ = KDTree(self.vectors).query(whitened, self.nearest)
            return np.asarray((away**2).mean(axis=1))
        squared = (whitened**2).sum(axis=1)[:, None] + (self.vectors**2).sum(axis=1) - 2 * whitened @ self.vectors.T
        if self.nearest:
            closest = np.partition(squared, self.nearest - 1, axis=1)[:, : self.nearest]
            return np.asarray(np.maximum(closest.mean(axis=1), 0.0))
        near = logsumexp(np.log(self.coefs) - self.gamma * squared)
        return np.asarray(np.maximum((np.log(self.weight) - near) / self.gamma, 0.0))

    def decision(self, whitened: Floats) -> Floats:
        """Decision values of rows (n, p), shape (n,), as scikit-learn's ``decision_function``."""
        return np.asarray(self.weight * np.exp(-self.gamma * self.distance(whitened)) - self.offset)


@dataclass(frozen=True, slots=True)
class DeviceModel:
    """A calibrated detector on whitened features.

    The kernel distance ``D`` of a window is the squared distance that, shared by all support vectors, would
    give its decision value: ``D = -log((f + offset) / sum_i coefs_i) / gamma``. It rises as the decision
    value falls and, unlike it, does not saturate. Of nearest neighbours it is the mean of their squared distances,
    of the two combined the geometric mean of both, ``√(D D')``: neither's unit counts.

    Of an isolation forest it is ``p (c / h)² + |y - y'|²``: the number of directions ``p``, how much shorter than the
    usual ``c`` the paths ``h`` are, and the nearest place ``y'`` within the range of the healthy windows. With
    scikit-learn's ``s = -score_samples``, ``h / c = -log2(s)``.

    ``reach`` is the calibrated limit of ``D``.
    """

    metrics: tuple[str, ...]
    space: Space
    kernel: Kernel
    reach: float
    """Kernel distance above which a window is an anomaly."""
    unit: float
    """Median whitened distance of held-out healthy windows; the unit of severity."""
    windows: int
    """Windows it was fitted on."""
    until: int
    """End of the latest of them, epoch ms."""
    false_alarm_rate: float
    """Share of held-out windows beyond ``reach``."""
    confidence: float = 1.0
    """How far out the limit would lie, as a share of how far out it does, if windows without number had the same tail;
    roots of distances, in (0, 1]."""

    @property
    def threshold(self) -> float:
        """The SVM's decision value at ``reach``; lower is an anomaly. Always above saturation, ``-offset``."""
        kernel = self.kernel
        return float(kernel.weight * np.exp(-kernel.gamma * self.reach)) - kernel.offset

    def checked(self) -> "DeviceModel":
        """The model itself.

        Raises:
            ModelError: it is degenerate and would flag everything or nothing.
        """
        parts = (self.space, self.kernel)
        arrays = [getattr(part, field.name) for part in parts for field in fields(part) if field.name != "forest"]
        if not all(np.isfinite(values).all() for values in (*arrays, self.reach, self.unit)):
            raise ModelError("The model holds values that are not finite; train it on windows without extreme values.")
        if not self.kernel.coefs.size or self.kernel.coefs.min() <= 0 or self.space.scale.min() <= 0:
            raise ModelError("The model has no usable support vectors; raise nu or train it on more windows.")
        if not 0 <= self.kernel.nearest <= self.kernel.coefs.size - self.kernel.support:
            raise ModelError("The model asks for more neighbours than it has; train it on more windows.")
        if not 0 < self.kernel.gamma * self.reach < DEEPEST or self.unit <= 0:
            raise ModelError("The model's threshold lies where its kernel saturates; lower gamma.")
        return self


def standardise(transformed: Floats, center: Floats, scale: Floats) -> Floats:
    """Standard deviations from typical; 0, the typical value, where a feature is missing.

    Beyond ``PLAIN`` they are ``PLAIN (1 + log(z / PLAIN))``, which begins as steep as that ends: Huber's way (1964)
    with what lies far out, but that it goes on rising.
    """
    z = (transformed - center) / scale
    z[np.isnan(z)] = 0.0
    np.clip(z, -FARTHEST, FARTHEST, out=z)
    far = np.abs(z) > PLAIN
    if far.any():
        beyond = z[far]
        z[far] = np.sign(beyond) * PLAIN * (1 + np.log(np.abs(beyond) / PLAIN))
    return np.asarray(z)


def logsumexp(terms: Floats) -> Floats:
    """``log(sum(exp(terms)))`` over the last axis, without underflow."""
    top: Floats = terms.max(axis=-1)
    return np.asarray(top + np.log(np.exp(terms - top[..., None]).sum(axis=-1)))


def score(distance: Floats, reach: Floats) -> Floats:
    """Oddness from 0 to 100: ``100 / (1 + (reach / distance)³)``.

    50 at the threshold, about 10 for an ordinary window, 89 at twice the limit, 99.9 at ten times.
    """
    with np.errstate(divide="ignore"):
        return np.asarray(100.0 / (1.0 + (reach / distance) ** STEEPNESS))


Rows = NDArray[np.intp]
"""Row numbers."""
