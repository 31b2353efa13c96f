"""The recording of three devices with five sensors each, whose published models flag 38 % of what is in range.

Values are uniform in a range of their own, gaps irregular; one model a sensor, as those published are.
"""

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from sinks.read import dataset
from tidewatch.cli import app

RANGES = ((10, 15), (30, 40), (60, 65), (80, 85), (100, 110))
GAPS = {5: 0.38, 10: 0.24, 15: 0.15, 20: 0.09, 25: 0.06, 30: 0.04, 45: 0.02, 60: 0.01, 105: 0.01}
START = 1_535_497_205
TRAINED, JUDGED = 280, 1_000
"""Readings of each sensor."""
ODD, NEAR = 0.1, 0.05
"""Share of those judged that are out of range, by 5 to 100 % of it."""


def record(path: Path) -> dict[tuple[str, int], bool]:
    """Write the recording; which windows hold a reading that is out of range, by device and start."""
    random = np.random.default_rng(5)
    rows, odd = [], {}
    for device in range(1, 4):
        for sensor, (low, high) in enumerate(RANGES, 1):
            weights = np.array([*GAPS.values()])
            moments = START + np.cumsum(random.choice([*GAPS], TRAINED + JUDGED, p=weights / weights.sum()))
            values = random.uniform(low, high, len(moments))
            outside = (np.arange(len(moments)) >= TRAINED) & (random.random(len(moments)) < ODD)
            far = random.uniform(NEAR, 1.0, len(moments)) * (high - low)
            values = np.where(outside, np.where(random.random(len(moments)) < 0.5, low - far, high + far), values)
            for moment, value, out in zip(moments.tolist(), values.tolist(), outside.tolist(), strict=True):
                stamp = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                rows.append((stamp, device, sensor, round(value, 6)))
                odd[f"{device}/{sensor}", moment // 5 * 5_000] = out
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("TS", "Device", "Sensor", "Value"))
        writer.writerows(sorted(rows))
    return odd


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The windows after those trained on, with what is true of each."""
    monkeypatch.chdir(tmp_path)
    odd = record(tmp_path / "readings.csv")
    settings = {"window.size_s": 5, "training.false_alarm_rate": 0.015, "models.registry": "", "training.types": ""}
    flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    source = ["--in", "readings.csv", "--device", "Device,Sensor", "--workers", "1"]
    starts = {name: sorted(start for own, start in odd if own == name) for name, _ in odd}
    until = datetime.fromtimestamp(min(own[TRAINED] for own in starts.values()) / 1000, UTC).isoformat()
    for words in (
        ["score", *source, "--out", "windows", "--fleet", "none"],
        ["train", "--statistics", "windows", "--until", until, "--workers", "1", "--json"],
        ["score", *source, "--out", "scored"],
    ):
        result = CliRunner().invoke(app, [*flags, *words])
        assert result.exit_code == 0, result.output
    trained = json.loads(CliRunner().invoke(app, [*flags, "jobs", "list", "--json"]).stdout)
    assert {job["state"] for job in trained} == {"done"}
    found = dataset(tmp_path / "scored", "predictions").to_table(["device_id", "window_start", "anomaly", "state"])
    frame: pd.DataFrame = found.to_pandas()
    frame["start"] = frame.window_start.astype("datetime64[ms, UTC]").astype("int64")
    frame["odd"] = [odd[key] for key in zip(frame.device_id, frame.start, strict=True)]
    later = [start >= starts[name][TRAINED] for name, start in zip(frame.device_id, frame.start, strict=True)]
    return frame.loc[later]


def test_what_is_in_range_is_seldom_flagged_and_what_is_not_nearly_always(judged: pd.DataFrame) -> None:
    by_model = judged.groupby(["odd", "device_id"]).anomaly.mean()
    flagged, found = judged[~judged.odd].anomaly.mean(), judged[judged.odd].anomaly.mean()
    print(f"in range flagged {flagged:.4f} (at most {by_model[False].max():.4f} by a model), found {found:.4f}")  # noqa: T201

    assert (judged.state == "scored").all()
    assert judged.device_id.nunique() == 15
    assert flagged <= 0.02
    assert by_model[False].max() <= 0.05
    assert found >= 0.99
