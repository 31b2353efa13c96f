"""How good forecasts of classes are: the published figures, figures by class, and what probabilities are worth."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scorers.forecast.labels import CLASSES, Floats, Ints

BINS = 10
"""Of equal width, for reliability."""
EIGHT = ("accuracy", "precision", "recall", "f1")
"""The published figures, each for training and for test; the last three weighted by the rows of each class."""


@dataclass(frozen=True, slots=True)
class Figures:
    """How forecasts did on some rows. Shares are from 0 to 1; NaN where there are no rows."""

    rows: int
    accuracy: float
    precision: float
    """Mean over classes, weighted by their rows; so are the next two."""
    recall: float
    f1: float
    macro_f1: float
    """Mean over the classes that occur, each counting the same."""
    rps: float
    """Ranked probability score (Epstein 1969), from 0 for perfect to 1: two classes off costs more than one."""
    brier: float
    """Brier's score over all classes (Brier 1950), from 0 to 2."""
    ece: float
    """Expected calibration error of the class named (Guo et al. 2017)."""
    confusion: Ints
    """Rows by true class and named class, shape (3, 3)."""
    by_class: Floats
    """Precision, recall and F1 of each class, shape (3, 3); NaN for a class that does not occur."""
    reliability: Floats
    """Rows, mean probability and share right of the class named, by bins of its probability, shape (10, 3)."""

    def told(self) -> dict[str, float]:
        """The single numbers by name."""
        plain = {name: getattr(self, name) for name in (*EIGHT, "macro_f1", "rps", "brier", "ece")}
        kinds = ("precision", "recall", "f1")
        for number, name in enumerate(CLASSES):
            plain |= {f"{kind}_{name}": float(self.by_class[number, at]) for at, kind in enumerate(kinds)}
        return plain


def named(probabilities: Floats) -> Ints:
    """The likeliest class of each row, shape (n,); the lower where two are as likely."""
    return np.asarray(probabilities.argmax(axis=1), np.int64)


def figures(truth: Ints, probabilities: Floats) -> Figures:
    """Judge forecasts.

    Args:
        truth: true classes, shape (n,), from 0 to 2.
        probabilities: of each class, shape (n, 3).
    """
    guess, count = named(probabilities), len(CLASSES)
    confusion = np.bincount(count * truth + guess, minlength=count**2).reshape(count, count)
    support = confusion.sum(axis=1)
    by_class = _by_class(confusion)
    weight = support / support.sum() if len(truth) else np.full(count, np.nan)
    weighted = (weight[:, None] * np.nan_to_num(by_class)).sum(axis=0)
    occurring = support + confusion.sum(axis=0) > 0
    outcome = np.eye(count)[truth]
    reliability = _reliability(probabilities.max(axis=1, initial=0.0), guess == truth)
    return Figures(
        rows=len(truth),
        accuracy=_mean(guess == truth),
        precision=float(weighted[0]),
        recall=float(weighted[1]),
        f1=float(weighted[2]),
        macro_f1=_mean(np.nan_to_num(by_class[occurring, 2])),
        rps=_mean(ranked(truth, probabilities)),
        brier=_mean(((probabilities - outcome) ** 2).sum(axis=1)),
        ece=_ece(reliability),
        confusion=confusion,
        by_class=np.where(occurring[:, None], by_class, np.nan),
        reliability=reliability,
    )


def ranked(truth: Ints, probabilities: Floats) -> Floats:
    """The ranked probability score of each row, shape (n,): squared differences of what is heaped up, halved."""
    heaped = np.cumsum(probabilities, axis=1)[:, :-1]
    outcome = truth[:, None] <= np.arange(len(CLASSES) - 1)
    return np.asarray(((heaped - outcome) ** 2).mean(axis=1))


def better(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether both accuracy and macro-F1 are higher."""
    return all(one[name] > other[name] for name in ("accuracy", "macro_f1"))


def _by_class(confusion: Ints) -> Floats:
    """Precision, recall, F1 of each class; 0 where one is not defined, as scikit-learn has it."""
    right = np.diag(confusion)
    said, true = confusion.sum(axis=0), confusion.sum(axis=1)
    columns = [right / np.maximum(said, 1), right / np.maximum(true, 1), 2 * right / np.maximum(said + true, 1)]
    return np.stack(columns, axis=1)


def _reliability(confidence: Floats, right: Floats) -> Floats:
    place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    rows = np.bincount(place, minlength=BINS)
    sums = [np.bincount(place, weights, BINS) for weights in (confidence, right.astype(np.float64))]
    with np.errstate(invalid="ignore"):
        said, came = (total / np.where(rows, rows, np.nan) for total in sums)
    return np.stack([rows, said, came], axis=1)


def _ece(reliability: Floats) -> float:
    rows, said, came = reliability.T
    return float(np.nansum(rows * np.abs(said - came)) / rows.sum()) if rows.any() else float("nan")


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
