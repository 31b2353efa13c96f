"""Which levels have moved, and by how much: what was shifted, and not what the load of the day did."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers import levels
from scorers.fit import Detector, TrainSpec
from scorers.fleet import Fleet
from scorers.group import Group
from scorers.statistics import Flags, Floats
from scorers.train import fit_fleet
from tests.simulator import Device, summarise

NONE = np.zeros(6, np.bool_)
WINDOWS = 30


def trained(device: Device, detector: Detector = Detector.ONE_CLASS_SVM) -> tuple[Fleet, Group]:
    statistics = summarise(device.readings(300))
    fleet = Fleet.of(fit_fleet({"a": statistics}, TrainSpec(detector=detector)).models, "v1")
    return fleet, fleet.locate(0)[0]


def lies(device: Device, moved: Floats, windows: int = WINDOWS) -> Floats:
    """Where a device's windows lie once its levels have moved by so many spreads."""
    return np.asarray(summarise(device.readings(windows) + moved * device.spread).mean.mean(axis=0))


def off(device: Device, group: Group, level: Floats, named: Flags = NONE) -> Floats:
    """In spreads."""
    return np.asarray(levels.shift(group, 0, level, named) / device.spread)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 30),
    moved=st.lists(st.sampled_from([0.0, 0.0, 6.0, -4.0, 15.0]), min_size=6, max_size=6).filter(
        lambda moved: 1 <= np.count_nonzero(moved) <= 2
    ),
)
def test_a_shift_of_few_metrics_is_told_from_the_load_of_the_day(seed: int, moved: list[float]) -> None:
    device = Device(seed, memory=0.99)
    _, group = trained(device)

    assert off(device, group, lies(device, np.array(moved))) == pytest.approx(moved, abs=0.35)


@pytest.mark.parametrize("detector", list(Detector))
def test_every_detector_tells_it(detector: Detector) -> None:
    device, moved = Device(3), np.array([0, 0, 6.0, 0, 0, 0])
    _, group = trained(device, detector)

    assert off(device, group, lies(device, moved)) == pytest.approx(moved, abs=0.6)


def test_all_levels_shift_where_no_few_explain_it() -> None:
    device = Device(5)
    _, group = trained(device)
    level = lies(device, np.full(6, 6.0))

    assert level - levels.shift(group, 0, level, NONE) == pytest.approx(levels.typical(group, 0))


def test_healthy_levels_have_not_moved() -> None:
    device = Device(7)
    _, group = trained(device)

    assert not off(device, group, lies(device, np.zeros(6))).any()


def test_only_named_metrics_shift_and_no_less_for_that_another_does() -> None:
    device, moved, named = Device(9), np.array([6.0, 6, 0, 0, 0, 0]), NONE.copy()
    _, group = trained(device)
    named[1] = True

    assert off(device, group, lies(device, moved), named) == pytest.approx([0, 6, 0, 0, 0, 0], abs=0.2)


def test_a_metric_that_was_not_heard_has_not_moved() -> None:
    device = Device(11)
    _, group = trained(device)
    level = lies(device, np.array([6.0, 0, 0, 0, 0, 0]))
    level[3] = np.nan

    assert off(device, group, level) == pytest.approx([6, 0, 0, 0, 0, 0], abs=0.3)


def test_a_level_far_beyond_training_is_odd_until_its_shift_is_taken_off() -> None:
    device = Device(13)
    _, group = trained(device)
    level = lies(device, np.array([0, 40.0, 0, 0, 0, 0]))

    assert levels.odd(group, 0, level)
    assert not levels.odd(group, 0, level - levels.shift(group, 0, level, NONE))


@pytest.mark.parametrize("seed", range(3))
def test_at_its_new_level_a_device_is_calm_and_its_faults_are_found(seed: int) -> None:
    device = Device(seed, memory=0.9)
    fleet, group = trained(device)
    moved = np.array([6.0, 0, 0, 0, 0, 0]) * device.spread
    shift = levels.shift(group, 0, lies(device, moved / device.spread), NONE)

    def odd(values: Floats) -> Flags:
        windows = summarise(values)
        lowered = {kind: getattr(windows, kind) - shift for kind in ("mean", "min", "max")}
        return fleet.score(np.zeros(len(windows), np.int64), replace(windows, **lowered)).anomaly

    fault = device.readings(20) + moved
    fault[:, 0] += 6 * device.spread[0]

    assert odd(device.readings(300) + moved).mean() < 0.03
    assert odd(fault).mean() > 0.9
    assert odd(device.readings(20)).mean() > 0.9  # the level before is no longer typical
