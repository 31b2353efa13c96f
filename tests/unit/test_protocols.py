"""Judging by events: what counts as found, as false, and as explained."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from producers.recordings import Cause, apart, causes, named
from stream.alert import AlertSpec
from tidewatch.protocols import alarms, average_precision, firing, judge_events, mean

DAY_ROWS = 1440
MINUTE_MS = 60_000
EACH = dict.fromkeys("abc", MINUTE_MS)


def judged(label: str, flagged: str, device: str = "a", top: list[str] | None = None) -> pd.DataFrame:
    """Rows of a device: ``X`` is labelled, and flagged; the severity follows the flags."""
    flags = np.array([mark == "X" for mark in flagged])
    return pd.DataFrame({
        "device": device,
        "label": [int(mark == "X") for mark in label],
        "scored": True,
        "anomaly": flags,
        "severity": np.where(flags, 80.0, 10.0),
        "top": [top or []] * len(flags),
    })  # fmt: skip


def test_an_alert_fires_at_k_of_n_and_until_the_last_odd_window_has_passed() -> None:
    flagged = np.array([mark == "X" for mark in "..X.X......X..."])

    assert "".join("X" if row else "." for row in firing(flagged, AlertSpec(2, 3))) == "....XXX........"


def test_events_are_found_by_alerts_and_alerts_outside_of_all_are_false() -> None:
    rows = judged("..XXXX....XXXX....", "...XXX..........XX")
    result = judge_events(rows, 18, AlertSpec(2, 3), {}, EACH)

    assert result.event_recall == 0.5
    assert result.false_alerts_per_day == pytest.approx(DAY_ROWS / 18)
    assert result.f1 == pytest.approx(3 / (3 + (5 + 2) / 2))
    assert (result.windows, result.scored, result.rows) == (18, 18, 18)
    assert math.isnan(result.hit3)


def test_a_delay_runs_from_an_events_first_row_to_the_first_at_which_an_alert_fires() -> None:
    #        late by 2       missed    fires on       false
    label = "..XXXXX.........XXXX......XXX........"
    fired = "....XXXX.................XX......XXX."
    rows, events = (np.array([mark == "X" for mark in row]) for row in (fired, label))
    found = alarms(rows, events, 3_600_000)

    assert (found.events, found.delays, found.false) == (3, (2, 0), 1)
    assert found.recall == pytest.approx(2 / 3)
    assert found.days == pytest.approx(len(label) / 24)


def test_delays_are_pooled_and_a_week_has_seven_days() -> None:
    rows = pd.concat([judged("XXXX........", "..XX........", "a"), judged("XXXX........", "XX......XX..", "b")])
    result = judge_events(rows, 24, AlertSpec(2, 3), {}, {"a": MINUTE_MS, "b": 60 * MINUTE_MS})

    assert result.median_delay_rows == 2  # 3 and 1: two odd windows make an alert
    assert result.false_alerts_per_day == pytest.approx((0 + 1 / (12 / 24)) / 2)
    assert result.false_alerts_per_week == pytest.approx(7 * result.false_alerts_per_day)


def test_a_device_without_events_counts_for_false_alarms_alone() -> None:
    calm, faulty = judged("............", "XX..........", "a"), judged("XX..........", "XX..........", "b")
    result = judge_events(pd.concat([calm, faulty]), 24, AlertSpec(2, 3), {}, EACH)
    nothing = judge_events(calm, 12, AlertSpec(2, 3), {}, EACH)

    assert (result.ap, result.f1, result.event_recall) == (1, 1, 1)
    assert result.false_alerts_per_day == pytest.approx(DAY_ROWS / 12 / 2)
    assert all(map(math.isnan, (nothing.ap, nothing.f1, nothing.event_recall, nothing.median_delay_rows)))
    assert math.isnan(average_precision(np.zeros(3, np.bool_), np.ones(3)))
    assert math.isnan(mean([]))


def test_figures_are_means_over_devices_that_have_them() -> None:
    rows = pd.concat([judged("XX..", "XX..", "a"), judged("XX..", "....", "b"), judged("XX..", "XX..", "c")])
    result = judge_events(rows, 12, AlertSpec(1, 1), {}, EACH)

    assert result.event_recall == pytest.approx(2 / 3)
    assert result.f1 == pytest.approx(2 / 3)
    assert result.ap == pytest.approx((1 + 0.5 + 1) / 3)


def test_an_event_is_explained_if_its_oddest_window_names_one_of_its_metrics() -> None:
    rows = judged("XXX.XXX", "X...X..", top=["cpu", "load"])
    known = {"a": [Cause(0, 2, frozenset({"load", "disk"})), Cause(4, 6, frozenset({"disk"}))]}

    assert judge_events(rows, 7, AlertSpec(1, 1), known, EACH).hit3 == 0.5


def test_a_row_without_a_verdict_is_healthy_and_least_odd() -> None:
    rows = judged("XX..", "XX..").astype({"scored": object, "anomaly": object, "top": object})
    for name in ("scored", "anomaly", "severity", "top"):
        rows.loc[0, name] = np.nan  # as a merge leaves it
    result = judge_events(rows, 4, AlertSpec(1, 1), {"a": [Cause(0, 0, frozenset({"cpu"}))]}, EACH)

    assert result.scored == 3
    assert result.hit3 == 0


@pytest.fixture
def machines(tmp_path: Path) -> Path:
    """A folder that looks like that of the benchmark, with two machines of two metrics."""
    folder = tmp_path / "smd"
    folder.mkdir()
    for machine in ("machine-1-1", "machine-2-1"):
        for split, rows in (("train", 4), ("test", 5)):
            frame = pd.DataFrame({"t": np.arange(rows, dtype=np.int32), "cpu": 0.5, "load": 0.25})
            (frame if split == "train" else frame.assign(label=0)).to_parquet(folder / f"{machine}_{split}.parquet")
    (folder / "interpretation_label.csv").write_text(
        'machine,start,end,dims_1based\nmachine-2-1,1,3,"1,2"\nmachine-2-1,4,4,2\n'
    )
    return folder


def test_causes_are_named_by_metric_and_device(machines: Path) -> None:
    assert causes(named("smd", machines)) == {
        "smd-machine-1-1": [],
        "smd-machine-2-1": [Cause(1, 3, frozenset({"cpu", "load"})), Cause(4, 4, frozenset({"load"}))],
    }


def test_causes_may_have_a_file_for_each_device(machines: Path) -> None:
    (machines / "interpretation_label.csv").unlink()
    (machines / "interpretation_machine-2-1.txt").write_text("1-3:1,2\n4-4:2")  # without an end of line, as published

    assert causes(named("asd", machines)) == {
        "asd-machine-2-1": [Cause(1, 3, frozenset({"cpu", "load"})), Cause(4, 4, frozenset({"load"}))]
    }


def test_a_recording_of_files_by_device_comes_apart(machines: Path) -> None:
    found = [[part.path.name for part in own.parts] for own in apart(named("smd", machines))]

    assert found == [
        ["machine-1-1_train.parquet", "machine-1-1_test.parquet"],
        ["machine-2-1_train.parquet", "machine-2-1_test.parquet"],
    ]
