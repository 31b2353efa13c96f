from dataclasses import replace

import numpy as np
import pytest

from scorers.contest import COST, FEWEST, NOBODY, Contest, Side, ballot, contest, later
from scorers.fit import TrainSpec, fit_device
from scorers.fleet import Fleet
from scorers.statistics import Statistics, concat
from tests.simulator import Device


def fleet(windows: Statistics, spec: TrainSpec | None = None) -> Fleet:
    return Fleet.of({"pump": fit_device(windows, np.arange(len(windows)), spec or TrainSpec())}, "v")


def test_a_fleet_is_no_better_than_itself() -> None:
    device = Device(1, 4)
    one = fleet(device.windows(200))

    found = contest((one, one), "pump", device.windows(60), None, seen=False)

    assert (found.gain, found.agreement) == (0.0, 1.0)
    assert not ballot([found]).won


def test_a_model_trained_among_faults_loses() -> None:
    device = Device(2, 4)
    healthy, level, noise = device.windows(200), device.faulty("level_shift", 40), device.faulty("noise_burst", 40)
    champion, challenger = fleet(healthy), fleet(concat([healthy, level, noise]))

    found = contest((champion, challenger), "pump", device.windows(120), None, seen=False)

    assert found.challenger.detection < found.champion.detection
    assert found.gain < 0


def test_a_model_that_cries_wolf_loses() -> None:
    device = Device(3, 4)
    windows = device.windows(300)
    champion, challenger = fleet(windows), fleet(windows, TrainSpec(false_alarm_rate=0.2))

    found = contest((champion, challenger), "pump", device.windows(400), None, seen=False)

    assert found.challenger.false_alarms > 0.1 > found.champion.false_alarms
    assert found.gain < 0


def test_any_sound_model_is_better_than_none() -> None:
    device = Device(4, 4)

    found = contest((Fleet.empty(), fleet(device.windows(200))), "pump", device.windows(60), None, seen=False)

    assert found.champion == NOBODY
    assert found.gain > 0


def test_faults_that_are_known_are_what_is_to_be_found() -> None:
    device = Device(5, 4)
    one = fleet(device.windows(200))

    found = contest((one, one), "pump", device.windows(40), device.faulty("level_shift", 10), seen=False)

    assert found.champion.detection == 1.0


# windows      0 1 2 3 4 5 6 7 8 9 ... 99
# trained on   ─────────────────────┐ gap ┌──── held out
def test_the_latest_windows_are_held_out_with_a_gap_before_them() -> None:
    before, held_out, seen = later(np.arange(100), 0.3, until=-1, gap=5)

    assert (before.max(), held_out.min(), held_out.max(), seen) == (64, 70, 99, False)


def test_windows_that_the_champion_has_seen_are_left_out_where_enough_others_are_there() -> None:
    assert later(np.arange(100), 0.3, until=75, gap=0)[1].min() == 76
    _, held_out, seen = later(np.arange(100), 0.3, until=99 - FEWEST + 1, gap=0)
    assert (held_out.min(), seen) == (70, True)


def test_a_ballot_is_the_mean_over_devices() -> None:
    good = Contest(50, Side(0.01, 0.8), Side(0.0, 0.8), 0.9, seen=False)
    bad = replace(good, challenger=Side(0.01, 0.75))

    found = ballot([good, good, bad])

    assert (found.devices, found.better, found.worse, found.won) == (3, 2, 1, True)
    assert found.gain == pytest.approx((2 * 0.01 * COST - 0.05) / 3)
    assert not ballot([]).won
