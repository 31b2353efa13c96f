"""Verdicts and labels in, detection figures out; counts of several recordings add up."""

from dataclasses import dataclass

import numpy as np

from scorers.statistics import Flags


@dataclass(frozen=True, slots=True)
class Confusion:
    """Point-wise counts; sum those of all recordings before asking for rates (SKAB's protocol).

    >>> counts = confusion(np.array([True, False]), np.array([True, True])) + Confusion(true_negative=2)
    >>> counts.f1, counts.false_alarm_percent, counts.missed_percent
    (0.6666666666666666, 0.0, 50.0)
    """

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_negative: int = 0

    def __add__(self, other: "Confusion") -> "Confusion":
        return Confusion(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
            self.true_negative + other.true_negative,
        )

    @property
    def f1(self) -> float:
        """TP / (TP + (FN + FP) / 2); 0 without a true positive."""
        return _ratio(self.true_positive, self.true_positive + (self.false_negative + self.false_positive) / 2)

    @property
    def false_alarm_percent(self) -> float:
        """FAR: FP / (FP + TN), in percent."""
        return 100 * _ratio(self.false_positive, self.false_positive + self.true_negative)

    @property
    def missed_percent(self) -> float:
        """MAR: FN / (FN + TP), in percent."""
        return 100 * _ratio(self.false_negative, self.false_negative + self.true_positive)


def confusion(flagged: Flags, anomalous: Flags) -> Confusion:
    """Counts of points flagged against points labelled, both of shape (n,)."""
    return Confusion(
        int((flagged & anomalous).sum()),
        int((flagged & ~anomalous).sum()),
        int((~flagged & anomalous).sum()),
        int((~flagged & ~anomalous).sum()),
    )


def event_recall(flagged: Flags, anomalous: Flags) -> float:
    """Share of the labelled events, runs of anomalous points, with at least one point flagged; NaN without events.

    >>> event_recall(np.array([1, 0, 0, 0], bool), np.array([1, 1, 0, 1], bool))
    0.5
    """
    events = runs(anomalous)
    return sum(bool(flagged[first:last].any()) for first, last in events) / len(events) if events else float("nan")


def runs(flags: Flags) -> list[tuple[int, int]]:
    """Where flags begin to be true, and where they no longer are.

    >>> runs(np.array([0, 1, 1, 0, 1], bool))
    [(1, 3), (4, 5)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
