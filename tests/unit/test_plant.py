import numpy as np
import pytest

from scorers.plant import KINDS, plant
from scorers.statistics import BLOCKS, Flags, Statistics
from tests.simulator import Device


def changed(before: Statistics, after: Statistics) -> Flags:
    """Which cells differ in anything, shape (n, m)."""
    differ = [~np.isclose(getattr(before, name), getattr(after, name), equal_nan=True) for name in BLOCKS]
    return np.asarray(np.any(differ, axis=0))


def test_every_window_has_one_fault_in_one_metric() -> None:
    healthy = Device(1, 4).windows(240)

    faulty, kind = plant(healthy)

    assert (changed(healthy, faulty).sum(axis=1) == 1).all()
    assert (np.bincount(kind, minlength=len(KINDS)) == 40).all()


def test_the_windows_given_stay_as_they_are() -> None:
    healthy = Device(1, 4).windows(60)
    before = {name: getattr(healthy, name).copy() for name in BLOCKS}

    plant(healthy)

    assert all((getattr(healthy, name) == values).all() for name, values in before.items())


@pytest.mark.parametrize("metrics", [1, 3])
def test_planted_windows_are_ones_that_readings_may_have(metrics: int) -> None:
    faulty, _ = plant(Device(2, metrics).windows(120))
    heard = faulty.count > 0

    assert (faulty.min <= faulty.mean + 1e-9)[heard].all()
    assert (faulty.mean <= faulty.max + 1e-9)[heard].all()
    assert (faulty.std[heard] >= 0).all()


def test_a_device_of_one_metric_keeps_sending_it() -> None:
    faulty, kind = plant(Device(2, 1).windows(60))

    assert (faulty.count > 0).all()
    assert kind.max() < KINDS.index("dropout")


def test_windows_without_readings_stay_without() -> None:
    healthy = Device(3, 2).windows(24)
    for name in BLOCKS:
        getattr(healthy, name)[:, 1] = 0 if name == "count" else np.nan

    faulty, _ = plant(healthy)

    assert (faulty.count[:, 1] == 0).all()
