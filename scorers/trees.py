"""Ensembles of decision trees in flat arrays: made from scikit-learn's, kept without pickle, evaluated in one loop."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scorers.compiled import compiled
from scorers.errors import ModelError
from scorers.statistics import Flags, Floats

Numbers = NDArray[np.int32]
LEAF = -1
"""In place of a feature's number."""


class Kind(IntEnum):
    """What the sum of a row's leaves is the beginning of."""

    RANDOM_FOREST = 0
    """The sum is the probabilities of the classes (Breiman 2001)."""
    GRADIENT_BOOSTING = 1
    """Log-odds of the second class, or logits of all classes where there are more than two (Friedman 2001)."""
    ISOLATION_FOREST = 2
    """Mean path as a share of the usual, ``h / c(n)``; the result is ``-2^(-h / c(n))`` (Liu, Ting & Zhou 2008)."""


TYPES: Mapping[str, type[np.generic]] = {
    "roots": np.int64, "output": np.int32, "feature": np.int32, "threshold": np.float64, "left": np.int32,
    "right": np.int32, "missing_left": np.bool_, "value": np.float64, "base": np.float64,
}  # fmt: skip
"""Every array of a forest."""


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees over ``d`` features; nodes lie tree by tree, the root first and every node before its children.

    >>> from sklearn.ensemble import RandomForestClassifier
    >>> x = np.arange(20.0).reshape(10, 2)
    >>> forest = Forest.of(RandomForestClassifier(5, random_state=0).fit(x, x[:, 0] > 9))
    >>> Forest.from_arrays(forest.arrays()).predict(x[-1:]).round(2).tolist()
    [[0.0, 1.0]]
    """

    kind: Kind
    width: int
    """How many features there are, ``d``."""
    roots: NDArray[np.int64]
    """Where each tree begins, and the last one ends, shape (trees + 1,)."""
    output: Numbers
    """The column of the sum that the first of a tree's values goes to, shape (trees,)."""
    feature: Numbers
    """What a node looks at, shape (nodes,), as all that follow; ``LEAF`` at a leaf."""
    threshold: Floats
    """A row goes left if its feature is no larger, in that feature's unit."""
    left: Numbers
    """Counted from the tree's root, as ``right``."""
    right: Numbers
    missing_left: Flags
    """Whether a row goes left where its feature is NaN."""
    value: Floats
    """What a leaf adds, shape (nodes, w)."""
    base: Floats
    """What the sum begins with, shape (k,)."""

    @classmethod
    def of(cls, model: object) -> "Forest":
        """The trees of a fitted scikit-learn classifier or isolation forest.

        Args:
            model: a ``RandomForestClassifier`` of one output, a ``HistGradientBoostingClassifier`` without
                categorical features, or an ``IsolationForest``.

        Raises:
            ModelError: it is something else.
        """
        from sklearn.ensemble import (  # noqa: PLC0415 - a second and 95 MB, which only those who train are to pay
            HistGradientBoostingClassifier,
            IsolationForest,
            RandomForestClassifier,
        )

        if isinstance(model, RandomForestClassifier) and model.n_outputs_ == 1:
            return _random_forest(model)
        if isinstance(model, HistGradientBoostingClassifier) and not model._bin_mapper.is_categorical_.any():  # noqa: SLF001 - known nowhere else
            return _gradient_boosting(model)
        if isinstance(model, IsolationForest):
            return _isolation_forest(model)
        raise ModelError(
            f"A {type(model).__name__} like this cannot be packed; train a random forest or gradient boosting of one "
            "output and without categorical features, or an isolation forest."
        )

    @classmethod
    def union(cls, forests: Sequence["Forest"]) -> "Forest":
        """The trees of isolation forests, over as many features as the widest has, one after the other; maybe none."""
        every = [_BARE, *forests]
        joined = {
            name: np.concatenate([getattr(forest, name) for forest in every])
            for name in TYPES
            if name not in {"roots", "base"}
        }
        sizes = np.concatenate([np.diff(forest.roots) for forest in every])
        roots = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        width = max(forest.width for forest in every)
        return cls(Kind.ISOLATION_FOREST, width, roots=roots, base=np.zeros(1), **joined)

    def take(self, first: int, last: int) -> "Forest":
        """Its trees from ``first`` to before ``last``."""
        nodes = slice(*self.roots[[first, last]])
        part = {name: getattr(self, name)[nodes] for name in TYPES if name not in {"roots", "base", "output"}}
        roots = self.roots[first : last + 1] - self.roots[first]
        return replace(self, roots=roots, output=self.output[first:last], **part)

    def predict(self, rows: Floats) -> Floats:
        """What scikit-learn's ``predict_proba`` gives, or ``score_samples`` as the only column, to 1e-12.

        Args:
            rows: shape (n, d), float64. NaN is missing. Infinite values are compared as they are.

        Returns:
            Shape (n, k) for k classes in the order of the model's ``classes_``; (n, 1) for an isolation forest.

        Raises:
            ModelError: ``rows`` has another shape.
        """
        if rows.ndim != 2 or rows.shape[1] != self.width:  # noqa: PLR2004 - rows and columns
            raise ModelError(f"Rows have the shape {rows.shape}; give {self.width} features each.")
        sums = np.tile(self.base, (len(rows), 1))
        seen = np.ascontiguousarray(rows, np.float64)
        if self.kind is not Kind.GRADIENT_BOOSTING:
            with np.errstate(over="ignore"):
                seen = seen.astype(np.float32).astype(np.float64)  # what scikit-learn's forests look at
        _add(seen, self.roots, self.output, self.nodes, self.missing_left, self.value, sums)
        return _finished(self.kind, sums)

    @property
    def nodes(self) -> tuple[Numbers, Floats, Numbers, Numbers]:
        """What tells a row's way: feature, threshold, left and right."""
        return self.feature, self.threshold, self.left, self.right

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it as flat arrays, for a file."""
        flat = {name: getattr(self, name).ravel() for name in TYPES}
        return flat | {"kind": np.array([self.kind], np.int64), "width": np.array([self.width], np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "Forest":
        """A forest from what :meth:`arrays` gave, as numpy or Arrow arrays, safe to evaluate whoever wrote them.

        Raises:
            ModelError: an array is missing, of another type or out of range, or a tree has no end.
        """
        if lacking := sorted(field.name for field in fields(cls) if field.name not in arrays):
            raise ModelError(f"The forest lacks {', '.join(lacking)}; train it again.")
        kind, width = (_flat(name, arrays[name], np.int64) for name in ("kind", "width"))
        parts = {name: _flat(name, arrays[name], dtype) for name, dtype in TYPES.items()}
        if len(kind) != 1 or kind[0] not in set(Kind) or len(width) != 1:
            raise ModelError("The forest does not say of which kind it is; train it again.")
        nodes, values = len(parts["feature"]), len(parts["value"])
        each = values // max(nodes, 1) or 1
        if values != nodes * each:
            raise ModelError("The forest's values do not fit its nodes; train it again.")
        parts["value"] = parts["value"].reshape(nodes, each)
        return cls(Kind(int(kind[0])), int(width[0]), **parts).checked()

    def checked(self) -> "Forest":
        """The forest itself, if every row's way through it stays inside and ends.

        Raises:
            ModelError: it does not.
        """
        for why, fine in _rules(self):
            if not fine:
                raise ModelError(f"The forest {why}; train it again.")
        return self


_BARE = Forest(
    Kind.ISOLATION_FOREST,
    0,
    **{name: np.zeros(0, dtype) for name, dtype in TYPES.items()}
    | {"roots": np.zeros(1, np.int64), "value": np.zeros((0, 1)), "base": np.zeros(1)},
)


def _rules(forest: Forest) -> Iterator[tuple[str, bool]]:
    """What may be wrong with it, and whether that is fine; each supposes those before."""
    trees, count, roots = len(forest.output), len(forest.feature), forest.roots
    alike = (forest.threshold, forest.left, forest.right, forest.missing_left, forest.value)
    yield "has arrays of different lengths", all(len(one) == count for one in alike)
    inside = len(roots) == trees + 1 and roots[0] == 0 and roots[-1] == count
    yield "has trees that do not fit its nodes", bool(inside and (np.diff(roots) > 0).all())
    yield "looks at features that it has not", bool(((forest.feature >= LEAF) & (forest.feature < forest.width)).all())
    sizes = np.diff(roots)
    own = np.arange(count) - np.repeat(roots[:-1], sizes)
    inner = forest.feature != LEAF
    yield (
        "has trees without an end",
        all(
            bool(((own < child) & (child < np.repeat(sizes, sizes)))[inner].all())
            for child in (forest.left, forest.right)
        ),
    )
    last = len(forest.base) - forest.value.shape[1]
    yield "adds to outputs that it has not", bool(((forest.output >= 0) & (forest.output <= last)).all())
    finite = np.isfinite(forest.value).all() and np.isfinite(forest.base).all()
    yield "holds values that are no numbers", bool(finite and not np.isnan(forest.threshold).any())
    if forest.kind is Kind.ISOLATION_FOREST:
        yield "is no isolation forest", forest.value.shape[1] == len(forest.base) == 1 and forest.base[0] == 0
        yield "has paths that are not positive", bool((forest.value[~inner] > 0).all())


def _flat(name: str, given: object, dtype: type[np.generic]) -> NDArray[Any]:
    """One dimension of that type, without loss.

    Raises:
        ModelError: it is something else.
    """
    array = np.asarray(given)
    wanted = np.dtype(dtype)
    fits = array.ndim == 1 and array.dtype.kind == wanted.kind
    if not fits or (wanted.kind == "i" and (array != array.astype(wanted)).any()):
        raise ModelError(f"The forest's {name} is not a list of {wanted}; train it again.")
    return np.ascontiguousarray(array, wanted)


def _finished(kind: Kind, sums: Floats) -> Floats:
    if kind is Kind.ISOLATION_FOREST:
        return np.asarray(-(2.0**-sums))
    if kind is Kind.RANDOM_FOREST:
        return sums
    logits = np.hstack([np.zeros_like(sums), sums]) if sums.shape[1] == 1 else sums
    power = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(power / power.sum(axis=1, keepdims=True))


def _random_forest(model: Any) -> Forest:
    trees = [one.tree_ for one in model.estimators_]
    values = [tree.value[:, 0, :] / tree.value[:, 0, :].sum(axis=1, keepdims=True) / len(trees) for tree in trees]
    return _of_trees(Kind.RANDOM_FOREST, model.n_features_in_, trees, values)


def _isolation_forest(model: Any) -> Forest:
    trees = [one.tree_ for one in model.estimators_]
    usual = float(path(np.array([model.max_samples_]))[0]) * len(trees)
    if usual == 0:
        raise ModelError("An isolation forest of one row a tree tells nothing; train it on more rows.")
    paths = [tree.compute_node_depths() + path(tree.n_node_samples) - 1 for tree in trees]
    packed = _of_trees(Kind.ISOLATION_FOREST, model.n_features_in_, trees, [one[:, None] / usual for one in paths])
    # a tree that was grown on some of the features numbers them by itself
    chosen = np.concatenate([own[tree.feature] for own, tree in zip(model.estimators_features_, trees, strict=True)])
    return replace(packed, feature=np.where(packed.feature == LEAF, LEAF, chosen).astype(np.int32)).checked()


def path(rows: NDArray[np.int64]) -> Floats:
    """Mean length of the paths of a search tree of so many rows that ends without a find (Liu et al. 2008, eq. 1)."""
    many = np.maximum(rows, 3).astype(np.float64)
    usual = 2 * (np.log(many - 1) + np.euler_gamma) - 2 * (many - 1) / many
    return np.where(rows > 2, usual, (rows == 2).astype(np.float64))  # noqa: PLR2004 - with two rows it is 1


def _of_trees(kind: Kind, width: int, trees: Sequence[Any], values: Sequence[Floats]) -> Forest:
    """From scikit-learn's ``Tree`` objects and what their nodes are worth, shape (nodes, w) each."""
    leaf = np.concatenate([tree.children_left for tree in trees]) < 0
    return Forest(
        kind,
        width,
        roots=np.concatenate([[0], np.cumsum([tree.node_count for tree in trees])]).astype(np.int64),
        output=np.zeros(len(trees), np.int32),
        feature=np.where(leaf, LEAF, np.concatenate([tree.feature for tree in trees])).astype(np.int32),
        threshold=np.where(leaf, 0.0, np.concatenate([tree.threshold for tree in trees])),
        left=np.where(leaf, 0, np.concatenate([tree.children_left for tree in trees])).astype(np.int32),
        right=np.where(leaf, 0, np.concatenate([tree.children_right for tree in trees])).astype(np.int32),
        missing_left=np.concatenate([tree.missing_go_to_left for tree in trees]).astype(bool) & ~leaf,
        value=np.where(leaf[:, None], np.concatenate(values), 0.0),
        base=np.zeros(values[0].shape[1]),
    ).checked()


def _gradient_boosting(model: Any) -> Forest:
    rounds = model._predictors  # noqa: SLF001 - scikit-learn gives them in no other way; the tests hold us to its results
    trees = [tree.nodes for each in rounds for tree in each]
    nodes = np.concatenate(trees)
    leaf = nodes["is_leaf"].astype(bool)
    return Forest(
        Kind.GRADIENT_BOOSTING,
        model.n_features_in_,
        roots=np.concatenate([[0], np.cumsum([len(tree) for tree in trees])]).astype(np.int64),
        output=np.concatenate([np.arange(len(each)) for each in rounds]).astype(np.int32),
        feature=np.where(leaf, LEAF, nodes["feature_idx"]).astype(np.int32),
        threshold=np.where(leaf, 0.0, nodes["num_threshold"]),
        left=np.where(leaf, 0, nodes["left"]).astype(np.int32),
        right=np.where(leaf, 0, nodes["right"]).astype(np.int32),
        missing_left=nodes["missing_go_to_left"].astype(bool) & ~leaf,
        value=np.where(leaf, nodes["value"], 0.0)[:, None],
        base=np.asarray(model._baseline_prediction, np.float64).ravel(),  # noqa: SLF001 - as above
    ).checked()


@compiled
def _add(  # noqa: PLR0913, PLR0917 - a loop over columns takes columns
    rows: Floats, roots: NDArray[np.int64], output: Numbers, nodes: tuple[Numbers, Floats, Numbers, Numbers],
    missing_left: Flags, value: Floats, sums: Floats,
) -> None:  # fmt: skip
    """Add to each row of ``sums`` what its leaves are worth, tree by tree."""
    feature, threshold, left, right = nodes
    for tree in range(len(output)):
        root = roots[tree]
        for row in range(len(rows)):
            node = root
            while feature[node] >= 0:
                seen = rows[row, feature[node]]
                goes_left = missing_left[node] if np.isnan(seen) else seen <= threshold[node]
                node = root + (left[node] if goes_left else right[node])
            for column in range(value.shape[1]):
                sums[row, output[tree] + column] += value[node, column]
