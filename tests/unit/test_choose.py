import numpy as np
import pytest

from scorers.choose import MARGIN, Candidate, choose, grid
from scorers.errors import ModelError
from scorers.fit import Detector, TrainSpec, fit_device
from scorers.statistics import Statistics
from tests.simulator import Device

SPEC = TrainSpec()


def test_the_grid_begins_with_what_the_spec_says() -> None:
    spec = TrainSpec(detector=Detector.MAHALANOBIS)

    first, *others = grid(spec)

    assert first == Candidate(Detector.MAHALANOBIS)
    assert first not in others
    assert {one.detector for one in others} >= set(Detector) - {Detector.MAHALANOBIS}


def test_what_is_nearly_as_good_leaves_the_first_in_place() -> None:
    windows = Device(1, 4).windows(200)

    alike = [Candidate(Detector.ONE_CLASS_SVM, gamma=gamma) for gamma in (0.1, 0.09, 0.11)]

    spec, tried = choose(windows, np.arange(200), SPEC, alike)

    assert max(one.detection or 0 for one in tried) <= (tried[0].detection or 0) + MARGIN
    assert spec.gamma == 0.1


def test_a_worse_first_gives_way() -> None:
    blind, whole = Candidate(Detector.ONE_CLASS_SVM, levels=True), Candidate(Detector.ONE_CLASS_SVM)

    spec, (first, second) = choose(Device(2, 4).windows(200), np.arange(200), SPEC, (blind, whole))

    assert (first.detection or 0) < (second.detection or 0) - MARGIN
    assert not spec.levels


def test_labelled_windows_decide_where_there_are_some() -> None:
    device = Device(3, 4)
    healthy, noisy = device.windows(300), device.faulty("noise_burst", 20)
    blind, whole = Candidate(Detector.ONE_CLASS_SVM, levels=True), Candidate(Detector.ONE_CLASS_SVM)

    _, (first, second) = choose(healthy, np.arange(300), SPEC, (blind, whole), noisy)

    assert (second.detection or 0) > 0.9 > (first.detection or 0)


def test_a_model_of_levels_does_not_see_noise() -> None:
    device = Device(4, 3)
    model = fit_device(device.windows(200), np.arange(200), TrainSpec(levels=True))

    shaped = np.zeros((2, 15))
    shaped[1, 1] = 100.0  # log std of the first metric
    near, far = model.space.whiten(shaped + model.space.center)[0], model.space.whiten(shaped + model.space.center)[1]

    assert (near == far).all()


def test_too_few_windows_are_refused() -> None:
    with pytest.raises(ModelError, match="too few"):
        choose(Device(1).windows(5), np.arange(5), SPEC, grid(SPEC))


def test_no_sound_candidate_is_refused() -> None:
    windows: Statistics = Device(1).windows(60)

    with pytest.raises(ModelError, match="No candidate"):
        choose(windows, np.arange(60), SPEC, (Candidate(Detector.ONE_CLASS_SVM, gamma=1e6),))
