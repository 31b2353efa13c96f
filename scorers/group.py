"""Models over the same metrics, packed side by side; where windows of many devices are scored at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from scorers.compiled import compiled
from scorers.features import inverse, transform
from scorers.model import DeviceModel, Rows, standardise
from scorers.statistics import Floats, Ints
from scorers.trees import Forest, Numbers


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
    ``log(coef exp(-gamma |y - v|²)) = (log(coef) - gamma |v|²) + 2 gamma y.v - gamma |y|²``. An isolation forest's two
    rows are the least and the largest coordinates themselves. Where two detectors are combined, the first
    ``support[i]`` rows behind the projection are the one-class SVM's, the others the neighbours'.
    """

    metrics: tuple[str, ...]
    devices: tuple[str, ...]
    """Or types."""
    softening: Floats
    """Shape (d, m)."""
    center: Floats
    """Shape (d, p)."""
    scale: Floats
    """Shape (d, p)."""
    indptr: Ints
    """Shape (d + 1,)."""
    stack: Floats
    """Shape (rows, p); ends in padding as long as the longest model."""
    bias: Floats
    """Shape (rows,): ``log(coef) - gamma |v|²``; -inf where there is no support vector."""
    total: Floats
    """Shape (d,), as all that follow: logarithm of the sum of the coefficients."""
    gamma: Floats
    nearest: Ints
    support: Ints
    offset: Floats
    reach: Floats
    unit: Floats
    windows: Ints
    until: Ints
    false_alarm_rate: Floats
    confidence: Floats
    """NaN where the file they come from did not tell."""
    grown: Ints
    """Shape (d + 1,): model ``i`` owns trees ``grown[i]`` to ``grown[i + 1]`` of ``forest``; most own none."""
    forest: Forest
    lent: bool = False
    """Whether they are models of types, for devices that have none."""

    @classmethod
    def of(cls, models: Mapping[str, DeviceModel], *, lent: bool = False) -> "Group":
        """Pack models that share their metrics, by device or by type."""
        parts = list(models.values())
        width = parts[0].space.center.size
        columns = {
            "softening": np.stack([part.space.softening for part in parts]),
            "center": np.stack([part.space.center for part in parts]),
            "scale": np.stack([part.space.scale for part in parts]),
            "total": np.array([np.log(part.kernel.weight) for part in parts]),
            "gamma": np.array([part.kernel.gamma for part in parts]),
            "nearest": np.array([part.kernel.nearest for part in parts], np.int64),
            "support": np.array([part.kernel.support for part in parts], np.int64),
            "offset": np.array([part.kernel.offset for part in parts]),
            "reach": np.array([part.reach for part in parts]),
            "unit": np.array([part.unit for part in parts]),
            "windows": np.array([part.windows for part in parts], np.int64),
            "until": np.array([part.until for part in parts], np.int64),
            "false_alarm_rate": np.array([part.false_alarm_rate for part in parts]),
            "confidence": np.array([part.confidence for part in parts]),
            "lent": lent,
            **_trees([part.kernel.forest for part in parts]),
        }
        sizes = np.array([width + part.kernel.coefs.size for part in parts])
        rows = [(_stack(part), _bias(part)) for part in parts]
        return cls._padded(parts[0].metrics, tuple(models), sizes, rows, columns)

    @classmethod
    def union(cls, parts: Sequence["Group"]) -> "Group":
        """The models of groups over the same metrics, all of devices or all of types, one after the other."""
        columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
        columns |= {"lent": parts[0].lent, "forest": Forest.union([part.forest for part in parts])}
        columns["grown"] = _edges(np.concatenate([np.diff(part.grown) for part in parts]))
        devices = tuple(device for part in parts for device in part.devices)
        sizes = np.concatenate([np.diff(part.indptr) for part in parts])
        rows = [(part.stack[: part.indptr[-1]], part.bias[: part.indptr[-1]]) for part in parts]
        return cls._padded(parts[0].metrics, devices, sizes, rows, columns)

    def take(self, models: Rows) -> "Group":
        """Some of its models, at least one, in that order."""
        edges = [(self.grown[model], self.grown[model + 1]) for model in models]
        trees = [self.forest.take(first, last) if first < last else None for first, last in edges]
        columns = {name: getattr(self, name)[models] for name in _COLUMNS} | {"lent": self.lent} | _trees(trees)
        devices = tuple(self.devices[model] for model in models)
        own = [slice(*self.indptr[model : model + 2]) for model in models]
        rows = [(self.stack[of], self.bias[of]) for of in own]
        return Group._padded(self.metrics, devices, np.diff(self.indptr)[models], rows, columns)

    @classmethod
    def _padded(
        cls,
        metrics: tuple[str, ...],
        devices: tuple[str, ...],
        sizes: Ints,
        rows: Sequence[tuple[Floats, Floats]],
        columns: dict[str, Any],
    ) -> "Group":
        """From the rows of ``stack`` and ``bias`` that models own; the padding is added here."""
        longest = int(sizes.max())
        stack, bias = [own for own, _ in rows], [own for _, own in rows]
        return cls(
            metrics=metrics,
            devices=devices,
            indptr=_edges(sizes),
            stack=np.concatenate([*stack, np.zeros((longest, stack[0].shape[1]))]),
            bias=np.concatenate([*bias, np.full(longest, -np.inf)]),
            **columns,
        )

    def standardise(self, model: Rows, actual: Floats) -> Floats:
        """Standard deviations from typical of features (n, p), row ``i`` by ``model[i]``."""
        return standardise(transform(actual, self.softening[model]), self.center[model], self.scale[model])

    def typical(self) -> Floats:
        """Typical features of each model, in the metrics' own units, shape (d, p)."""
        return inverse(self.center, self.softening)

    def measure(self, model: Rows, z: Floats) -> Distances:
        """Distances of standardised windows (n, p), row ``i`` by ``model[i]``.

        Every sum runs over one window's numbers in one order, so that a window's bits do not depend on the
        company it is scored in.
        """
        result = Distances(np.empty(len(z)), np.empty(len(z)), np.empty_like(z))
        trees = (self.grown, self.forest.roots, *self.forest.nodes, self.forest.value.ravel())
        kinds = (self.nearest, self.support)
        _measure(model, z, self.indptr, self.stack, self.bias, self.total, self.gamma, kinds, trees, *result)
        return result

    def reconstruct(self, model: Rows, z: Floats) -> Floats:
        """How far each feature by itself explains standardised windows (n, p), row ``i`` by ``model[i]``; shape (n, p).

        ``(R⁻¹ z)_i / √(R⁻¹)_ii``, the signed root of the reconstruction-based contribution (Alcala & Qin 2009, eq. 20):
        by how much the distance squared would shrink if that feature were what all others let expect. Of unit variance
        in health. 0 where a feature is typical, or missing.
        """
        result = np.zeros_like(z)
        _reconstruct(model, z, self.indptr, self.stack, result)
        return result


@compiled
def _reconstruct(model: Rows, z: Floats, indptr: Ints, stack: Floats, result: Floats) -> None:
    width = z.shape[1]
    for i in range(len(model)):
        first = indptr[model[i]]
        terms = _products(stack[first : first + width], z[i])
        pull, norm = np.zeros(width), np.zeros(width)
        for row in range(width):
            for column in range(width):
                pull[column] += terms[row] * stack[first + row, column]
                norm[column] += stack[first + row, column] ** 2
        for column in range(width):
            if z[i, column] != 0.0 and norm[column] > 0.0:
                result[i, column] = pull[column] / np.sqrt(norm[column])


_COLUMNS = tuple(
    field.name
    for field in fields(Group)
    if field.name not in {"metrics", "devices", "indptr", "stack", "bias", "lent", "grown", "forest"}
)
"""What has one row a model."""
_Trees = tuple[Ints, Ints, Numbers, Floats, Numbers, Numbers, Floats]
"""Of each model the first, of each tree the first node; of nodes feature, threshold, left, right and value."""


def _trees(forests: Sequence[Forest | None]) -> dict[str, Any]:
    """What a group keeps of the trees of each model."""
    counts = [0 if forest is None else len(forest.output) for forest in forests]
    return {"grown": _edges(np.array(counts)), "forest": Forest.union([forest for forest in forests if forest])}


def _edges(sizes: Ints) -> Ints:
    """Where blocks of those sizes begin, and the last one ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


@compiled
def _measure(  # noqa: PLR0913, PLR0917 - a loop over columns takes columns
    model: Rows, z: Floats, indptr: Ints, stack: Floats, bias: Floats, total: Floats, gamma: Floats,
    kinds: tuple[Ints, Ints], trees: _Trees, kernel: Floats, whitened: Floats, parts: Floats,
) -> None:  # fmt: skip
    """Fill in what :class:`Distances` holds."""
    width = z.shape[1]
    for i in range(len(model)):
        first, last = indptr[model[i]], indptr[model[i] + 1]
        terms = _products(stack[first:last], z[i])
        norm = 0.0
        pull = np.zeros(width)
        for row in range(width):
            norm += terms[row] * terms[row]
            for column in range(width):
                pull[column] += terms[row] * stack[first + row, column]
        for column in range(width):
            parts[i, column] = z[i, column] * pull[column]
        if trees[0][model[i]] < trees[0][model[i] + 1]:
            spread = stack[first + width : last]
            kernel[i], whitened[i] = _isolated(terms[:width], spread, model[i], trees), np.sqrt(norm)
            continue
        for row in range(width, last - first):
            terms[row] += bias[first + row]
        nearest, support = kinds[0][model[i]], kinds[1][model[i]]
        if nearest:
            near = _mean_of_largest(terms[width + support :], nearest)
        else:
            near = _logsumexp(terms[width:]) - total[model[i]]
        kernel[i], whitened[i] = max(norm - near / gamma[model[i]], 0.0), np.sqrt(norm)
        if support:
            near = _logsumexp(terms[width : width + support]) - total[model[i]]
            kernel[i] = np.sqrt(kernel[i] * max(norm - near / gamma[model[i]], 0.0))


@compiled
def _isolated(y: Floats, spread: Floats, model: int, trees: _Trees) -> float:
    """As :meth:`scorers.model.Kernel.distance` of a forest, for one row."""
    grown, roots, feature, threshold, left, right, value = trees
    path = 0.0
    for tree in range(grown[model], grown[model + 1]):
        node = roots[tree]
        while feature[node] >= 0:
            goes_left = np.float32(y[feature[node]]) <= threshold[node]
            node = roots[tree] + (left[node] if goes_left else right[node])
        path += value[node]
    varied, beyond = 0, 0.0
    for column in range(len(y)):
        least, largest = spread[0, column], spread[1, column]
        varied += largest > least
        beyond += max(least - y[column], y[column] - largest, 0.0) ** 2
    return float(varied / path**2 + beyond)


@compiled
def _logsumexp(terms: Floats) -> float:
    top = -np.inf
    for term in terms:
        top = max(top, term)
    near = 0.0
    for term in terms:
        near += np.exp(term - top)
    return float(top + np.log(near))


@compiled
def _mean_of_largest(terms: Floats, count: int) -> float:
    largest = np.full(min(count, len(terms)), -np.inf)
    for term in terms:
        at = 0  # of what is kept, in ascending order, the smallest goes
        while at < len(largest) and largest[at] < term:
            if at:
                largest[at - 1] = largest[at]
            at += 1
        if at:
            largest[at - 1] = term
    total = 0.0
    for term in largest:
        total += term
    return total / len(largest)


@compiled
def _products(rows: Floats, z: Floats) -> Floats:
    """Each row times ``z``; four at a time, for their sums do not wait for one another."""
    result = np.empty(len(rows))
    whole = len(rows) // 4 * 4
    for row in range(0, whole, 4):
        a = b = c = d = 0.0
        for column in range(len(z)):
            a += rows[row, column] * z[column]
            b += rows[row + 1, column] * z[column]
            c += rows[row + 2, column] * z[column]
            d += rows[row + 3, column] * z[column]
        result[row], result[row + 1], result[row + 2], result[row + 3] = a, b, c, d
    for row in range(whole, len(rows)):
        total = 0.0
        for column in range(len(z)):
            total += rows[row, column] * z[column]
        result[row] = total
    return result


def _stack(model: DeviceModel) -> Floats:
    projection, kernel = model.space.projection, model.kernel
    if kernel.forest is not None:
        return np.concatenate([projection, kernel.vectors])
    return np.concatenate([projection, 2 * kernel.gamma * kernel.vectors @ projection])


def _bias(model: DeviceModel) -> Floats:
    kernel = model.kernel
    bias = np.log(kernel.coefs) - kernel.gamma * (kernel.vectors**2).sum(axis=1)
    return np.concatenate([np.full(model.space.center.size, -np.inf), bias])
