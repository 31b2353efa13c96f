"""A type's model: what it knows of a device that it has never seen."""

from dataclasses import replace

import numpy as np
import pytest

from scorers.errors import ModelError
from scorers.fit import TrainSpec
from scorers.fleet import Fleet
from scorers.lend import fit_type
from scorers.model import DeviceModel
from scorers.statistics import Ints, Statistics
from scorers.verdicts import Verdicts
from tests.simulator import FAULTS, READINGS, Device, summarise

SPEC = TrainSpec()
LEVELS = 50.0 * np.arange(1, 7)


def member(seed: int, offset: float = 0.01) -> Device:
    """A device of one type: alike but for its levels, which differ by a third of a spread (0.03), or by more."""
    device = Device(seed)
    device.level = np.asarray(LEVELS * (1 + offset * np.random.default_rng(seed + 1_000).standard_normal(len(LEVELS))))
    device.spread, device.gain = np.asarray(0.03 * LEVELS), np.array([1.0, -1.0, 1.0, 1.0, -1.0, 1.0])
    return device


def seen(device: Device, windows: int) -> tuple[Statistics, Ints]:
    return device.windows(windows), np.arange(windows)


def learned(devices: int, windows: int = 60, spec: TrainSpec = SPEC, *, offset: float = 0.01) -> DeviceModel:
    return fit_type({f"pump-{seed}": seen(member(seed, offset), windows) for seed in range(devices)}, spec)


def judge(model: DeviceModel, statistics: Statistics) -> Verdicts:
    fleet = Fleet.of({}, "v1", {"pump": model}, "^(?P<type>pump)")
    return fleet.score(fleet.assign(["pump-new"]).repeat(len(statistics)), statistics)


@pytest.mark.parametrize("offset", [0.01, 0.1])
@pytest.mark.parametrize("devices", [5, 20])
def test_new_devices_raise_few_false_alarms(devices: int, offset: float) -> None:
    model = learned(devices, offset=offset)
    flagged = [judge(model, member(seed, offset).windows(100)).anomaly.mean() for seed in range(100, 140)]

    assert np.mean(flagged) <= 5 * SPEC.false_alarm_rate


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_new_device_are_found(fault: str) -> None:
    model = learned(20)
    found = [judge(model, member(seed).faulty(fault, 10)).anomaly.mean() for seed in range(100, 112)]

    assert np.mean(found) >= 0.7


@pytest.mark.parametrize("fault", ["spike", "dropout", "noise_burst"])
def test_faults_that_leave_the_level_are_found_where_devices_differ_by_more_than_a_fault(fault: str) -> None:
    model = learned(20, offset=0.2)
    found = [judge(model, member(seed, 0.2).faulty(fault, 10)).anomaly.mean() for seed in range(100, 112)]

    assert np.mean(found) >= 0.7


def test_more_devices_make_it_surer() -> None:
    assert learned(5).confidence < learned(40).confidence <= 1


def test_the_order_of_devices_does_not_matter() -> None:
    devices = {f"pump-{seed}": seen(member(seed), 40) for seed in range(8)}
    spec = replace(SPEC, max_windows=200)

    one, other = fit_type(devices, spec), fit_type(dict(reversed(devices.items())), spec)
    windows = member(50).windows(20)

    assert one.windows == other.windows == 200
    np.testing.assert_allclose(judge(one, windows).severity, judge(other, windows).severity, rtol=1e-6)


def test_windows_are_chosen_evenly_among_devices() -> None:
    model = learned(10, windows=300, spec=replace(SPEC, max_windows=400))

    assert model.windows == 400


def test_a_metric_that_few_devices_have_is_not_modelled() -> None:
    devices = {f"pump-{seed}": seen(member(seed), 40) for seed in range(6)}
    values = member(0).readings(40)
    devices["pump-0"] = summarise(np.hstack([values, values[:, :1]])), np.arange(40)

    assert fit_type(devices, SPEC).metrics == member(0).windows(1).metrics


def test_a_constant_metric_does_not_explode() -> None:
    def flat(seed: int) -> Statistics:
        values = member(seed).readings(40)
        values[:, 0] = 7.0
        return summarise(values)

    model = fit_type({f"pump-{seed}": (flat(seed), np.arange(40)) for seed in range(8)}, SPEC)

    assert judge(model, flat(20)).anomaly.mean() <= 0.05


def test_a_metric_that_is_gone_is_told_of() -> None:
    model = learned(10)
    values = member(30).readings(5)
    values[:, 2] = np.nan
    verdicts = judge(model, summarise(values))

    assert verdicts.anomaly.all()
    assert {verdicts.names[at] for at in verdicts.feature[:, 0]} == {"metric2.count"}
    assert (verdicts.actual[:, 0] == 0).all()
    assert verdicts.typical[:, 0] == pytest.approx(READINGS)


def test_a_device_that_shares_no_metric_with_its_type_is_learning() -> None:
    verdicts = judge(learned(5), member(30).windows(3).align(["other", "metric0"]).align(["other"]))

    assert not verdicts.scored.any()
    assert not verdicts.anomaly.any()


@pytest.mark.parametrize(
    ("devices", "reason"),
    [
        ({}, "0 devices are too few for a type; 3 are needed"),
        ({str(seed): seen(member(seed), 2) for seed in range(4)}, "8 windows are too few for a model; collect 30"),
    ],
)
def test_too_little_is_refused(devices: dict[str, tuple[Statistics, Ints]], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        fit_type(devices, SPEC)


def test_devices_without_a_common_metric_are_no_type() -> None:
    def alone(seed: int) -> Statistics:
        return Statistics(
            (f"m{seed}",), *(getattr(member(seed).windows(20), kind)[:, :1] for kind in ("count", "mean", "std")),
            *(getattr(member(seed).windows(20), kind)[:, :1] for kind in ("min", "max", "last")),
        )  # fmt: skip

    with pytest.raises(ModelError, match="no metric in common"):
        fit_type({str(seed): (alone(seed), np.arange(20)) for seed in range(4)}, SPEC)


def test_a_budget_of_alerts_sets_its_limit_too() -> None:
    reach = [learned(8, spec=TrainSpec(alerts=alerts)).reach for alerts in (0.02, 0.0005)]

    assert reach[0] < reach[1]
