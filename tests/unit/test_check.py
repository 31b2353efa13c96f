import numpy as np
import pytest

from scorers.check import CheckSpec, check
from scorers.errors import ConfigError, ModelError
from scorers.fit import TrainSpec, fit_device
from scorers.fleet import Fleet
from scorers.statistics import Statistics
from tests.simulator import Device

SPEC = CheckSpec()
HOUR_MS = 3_600_000


@pytest.fixture
def windows() -> Statistics:
    return Device(1, 3).windows(100)


def test_healthy_windows_pass(windows: Statistics) -> None:
    check(windows, np.arange(100), SPEC)


def test_a_mean_beyond_its_maximum_is_refused(windows: Statistics) -> None:
    windows.max[7, 1] = windows.mean[7, 1] - 1

    with pytest.raises(ModelError, match=r"metric1 has a mean that is not between .*, in 1 windows"):
        check(windows, np.arange(100), SPEC)


def test_negative_counts_and_deviations_are_refused(windows: Statistics) -> None:
    windows.std[3, 0] = -1.0
    with pytest.raises(ModelError, match="metric0 has a negative standard deviation"):
        check(windows, np.arange(100), SPEC)

    windows.count[3, 2] = -1
    with pytest.raises(ModelError, match="metric2 has a negative count"):
        check(windows, np.arange(100), SPEC)


def test_means_that_are_missing_too_often_are_refused(windows: Statistics) -> None:
    windows.mean[:30, 2] = np.nan

    with pytest.raises(ModelError, match="metric2 has no finite mean in 30% of its windows; at most 20%"):
        check(windows, np.arange(100), SPEC)
    check(windows, np.arange(100), CheckSpec(max_missing=0.5))


def test_a_history_that_is_too_short_is_refused(windows: Statistics) -> None:
    ends = np.linspace(0, 5 * HOUR_MS, 100).astype(np.int64)

    with pytest.raises(ModelError, match=r"cover 5\.0 hours; record 6"):
        check(windows, ends, CheckSpec(min_hours=6))
    check(windows, ends, CheckSpec(min_hours=5))


def test_a_metric_that_has_moved_far_is_refused(windows: Statistics) -> None:
    before = Fleet.of({"pump": fit_device(windows, np.arange(100), TrainSpec())}, "v")
    moved = Device(1, 3).windows(100)
    for name in ("mean", "min", "max", "last"):
        getattr(moved, name)[:, 1] += 60 * windows.mean[:, 1].std()

    check(windows, np.arange(100), SPEC, "pump", before)
    check(moved, np.arange(100), SPEC, "unknown", before)
    check(moved, np.arange(100), CheckSpec(max_shift=0), "pump", before)
    with pytest.raises(ModelError, match=r"metric1 has moved by \d+ standard deviations .* training.max_shift=0"):
        check(moved, np.arange(100), SPEC, "pump", before)


def test_absurd_specs_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.max_missing"):
        CheckSpec(max_missing=2)
