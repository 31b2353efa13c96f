"""Models over the same metrics, packed side by side; where windows of many devices are scored at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scorers.features import inverse, transform
from scorers.model import DeviceModel, Rows, logsumexp, standardise
from scorers.statistics import Floats, Ints

BATCH = 128
"""Windows of different devices scored at once: the copies of their models still fit the processor's cache."""
RUN = 8
"""From this many windows of one device on, its model is used where it lies instead of being gathered."""


class Distances(NamedTuple):
    """Where ``n`` windows lie, as seen by their models."""

    kernel: Floats
    """Kernel distance, shape (n,); see :class:`scorers.model.DeviceModel`."""
    whitened: Floats
    """Whitened Mahalanobis distance, shape (n,)."""
    parts: Floats
    """Each feature's part in the whitened distance squared, shape (n, p); their sum is the whole."""


@dataclass(frozen=True, slots=True)
class Group:
    """``d`` models over the same ``m`` metrics, ``p = 5 m`` features.

    Model ``i`` owns rows ``indptr[i]`` to ``indptr[i + 1]`` of ``stack``: ``p`` rows of its projection, then
    one row ``2 gamma projection.T @ v`` for each support vector ``v``. One product of these rows with a
    standardised window gives its whitened coordinates ``y`` and all that the kernel needs to know of it, for
    ``log(coef exp(-gamma |y - v|²)) = (log(coef) - gamma |v|²) + 2 gamma y.v - gamma |y|²``.
    """

    metrics: tuple[str, ...]
    devices: tuple[str, ...]
    softening: Floats
    """Shape (d, m)."""
    center: Floats
    """Shape (d, p)."""
    scale: Floats
    """Shape (d, p)."""
    indptr: Ints
    """Shape (d + 1,)."""
    stack: Floats
    """Shape (rows, p); ends in padding as long as the longest model, so that a read past a model is safe."""
    bias: Floats
    """Shape (rows,): ``log(coef) - gamma |v|²``; -inf where there is no support vector."""
    total: Floats
    """Shape (d,), as all that follow: logarithm of the sum of the coefficients."""
    gamma: Floats
    offset: Floats
    reach: Floats
    unit: Floats
    windows: Ints
    false_alarm_rate: Floats

    @classmethod
    def of(cls, models: Mapping[str, DeviceModel]) -> "Group":
        """Pack models that share their metrics."""
        parts = list(models.values())
        width = parts[0].space.center.size
        sizes = [width + part.kernel.coefs.size for part in parts]
        pad = np.zeros((max(sizes), width))
        return cls(
            metrics=parts[0].metrics,
            devices=tuple(models),
            softening=np.stack([part.space.softening for part in parts]),
            center=np.stack([part.space.center for part in parts]),
            scale=np.stack([part.space.scale for part in parts]),
            indptr=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            stack=np.concatenate([_stack(part) for part in parts] + [pad]),
            bias=np.concatenate([_bias(part) for part in parts] + [np.full(len(pad), -np.inf)]),
            total=np.array([np.log(part.kernel.coefs.sum()) for part in parts]),
            gamma=np.array([part.kernel.gamma for part in parts]),
            offset=np.array([part.kernel.offset for part in parts]),
            reach=np.array([part.reach for part in parts]),
            unit=np.array([part.unit for part in parts]),
            windows=np.array([part.windows for part in parts], np.int64),
            false_alarm_rate=np.array([part.false_alarm_rate for part in parts]),
        )

    def standardise(self, model: Rows, actual: Floats) -> Floats:
        """Standard deviations from typical of features (n, p), row ``i`` by ``model[i]``."""
        return standardise(transform(actual, self.softening[model]), self.center[model], self.scale[model])

    def typical(self) -> Floats:
        """Typical features of each model, in the metrics' own units, shape (d, p)."""
        return inverse(self.center, self.softening)

    def measure(self, model: Rows, z: Floats) -> Distances:
        """Distances of standardised windows (n, p), row ``i`` by ``model[i]``."""
        result = Distances(np.empty(len(z)), np.empty(len(z)), np.empty_like(z))
        for rows in _blocks(model, self.indptr):
            for whole, part in zip(result, self._block(model[rows[:, 0]], z[rows]), strict=True):
                whole[rows] = part
        return result

    def _block(self, model: Rows, z: Floats) -> Distances:
        """Distances of ``w`` windows of each of ``c`` devices: model (c,), z (c, w, p).

        Every sum runs over one window's numbers in one order (einsum's own loops, not BLAS), so that a window's
        bits do not depend on the company it is scored in.
        """
        width = z.shape[-1]
        stack, bias = self._gather(model)
        products = np.einsum("cwp,crp->cwr", z, stack)
        whitened = products[..., :width]
        norm = np.einsum("cwp,cwp->cw", whitened, whitened)
        near = logsumexp(bias[:, None, width:] + products[..., width:])
        kernel = np.maximum((self.total[model, None] - near) / self.gamma[model, None] + norm, 0.0)
        return Distances(kernel, np.sqrt(norm), z * np.einsum("cwr,crp->cwp", whitened, stack[:, :width]))

    def _gather(self, model: Rows) -> tuple[Floats, Floats]:
        """Stack (c, rows, p) and bias (c, rows) of models (c,), as long as the longest of them."""
        start, end = self.indptr[model], self.indptr[model + 1]
        longest = int((end - start).max())
        if len(model) == 1:
            own = slice(int(start[0]), int(start[0]) + longest)
            return self.stack[None, own], self.bias[None, own]
        place = start[:, None] + np.arange(longest)
        bias = np.where(place < end[:, None], self.bias[place], -np.inf)
        return self.stack.take(place, axis=0, mode="clip"), bias


def _blocks(model: Rows, indptr: Ints) -> Iterator[NDArray[np.intp]]:
    """Row numbers (c, w) that together cover all rows: ``w`` windows of each of ``c`` devices.

    A device with many windows makes a block of its own; the others go one window at a time, models of
    similar length together.
    """
    order = np.argsort(model, kind="stable")
    start = np.flatnonzero(np.diff(model[order], prepend=-1))
    length = np.diff(start, append=len(order))
    many = length >= RUN
    for first, size in zip(start[many], length[many], strict=True):
        yield order[None, first : first + size]
    few = order[np.repeat(~many, length)]
    few = few[np.argsort(np.diff(indptr)[model[few]], kind="stable")]
    yield from (few[first : first + BATCH, None] for first in range(0, len(few), BATCH))


def _stack(model: DeviceModel) -> Floats:
    projection, kernel = model.space.projection, model.kernel
    return np.concatenate([projection, 2 * kernel.gamma * kernel.vectors @ projection])


def _bias(model: DeviceModel) -> Floats:
    kernel = model.kernel
    bias = np.log(kernel.coefs) - kernel.gamma * (kernel.vectors**2).sum(axis=1)
    return np.concatenate([np.full(model.space.center.size, -np.inf), bias])
