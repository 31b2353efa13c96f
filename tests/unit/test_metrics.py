import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from scorers.metrics import Confusion, confusion, event_recall


def test_rates_of_pooled_recordings_equal_scikit_learn_on_all_of_them() -> None:
    random = np.random.default_rng(0)
    flagged, anomalous = random.random((2, 5, 400)) < [[[0.2]], [[0.3]]]

    pooled = sum((confusion(*recording) for recording in zip(flagged, anomalous, strict=True)), Confusion())
    true_negative, false_positive, false_negative, true_positive = confusion_matrix(
        anomalous.ravel(), flagged.ravel()
    ).ravel()

    assert pooled.f1 == pytest.approx(f1_score(anomalous.ravel(), flagged.ravel()))
    assert pooled.false_alarm_percent == pytest.approx(100 * false_positive / (false_positive + true_negative))
    assert pooled.missed_percent == pytest.approx(100 * false_negative / (false_negative + true_positive))


def test_rates_without_labels_are_zero() -> None:
    assert (Confusion().f1, Confusion().false_alarm_percent, Confusion().missed_percent) == (0, 0, 0)


def test_an_event_counts_once_however_often_it_is_flagged() -> None:
    #  labels   . A A . A A A . A
    #  flagged  F . F . . . . . F
    anomalous = np.array([0, 1, 1, 0, 1, 1, 1, 0, 1], bool)
    flagged = np.array([1, 0, 1, 0, 0, 0, 0, 0, 1], bool)

    assert event_recall(flagged, anomalous) == pytest.approx(2 / 3)


@pytest.mark.parametrize("length", [0, 4])
def test_event_recall_without_events_is_not_a_number(length: int) -> None:
    assert math.isnan(event_recall(np.zeros(length, bool), np.zeros(length, bool)))
