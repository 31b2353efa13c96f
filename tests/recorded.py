"""Folders that look like those of published recordings, with few rows."""

from pathlib import Path

import numpy as np
import pandas as pd


def servers(folder: Path) -> Path:
    """A folder that looks like ASD: one server whose second metric leaves its level once, and why."""
    chance = np.random.default_rng(5)
    for split, rows in (("train", 600), ("test", 400)):
        odd = (np.arange(rows) >= 300) & (np.arange(rows) < 340) & (split == "test")
        values = chance.normal(0.5, 0.02, (rows, 3)) + 0.4 * odd[:, None] * np.array([0, 1, 0])
        frame = pd.DataFrame({"t": np.arange(rows), "m00": values[:, 0], "m01": values[:, 1], "m02": values[:, 2]})
        (frame if split == "train" else frame.assign(label=odd.astype(int))).to_parquet(
            folder / f"omi-1_{split}.parquet"
        )
    (folder / "interpretation_omi-1.txt").write_text("300-339:2")
    return folder


def cloud(folder: Path, rows: int = 900) -> Path:
    """A folder that looks like Microsoft's: a series by the hour with an event, one by the minute without."""
    chance, frames = np.random.default_rng(3), []
    for name, step, height in (("app/a.csv", 3_600, 12.0), ("app/b.csv", 60, 0.0)):
        odd = (np.arange(rows) >= 700) & (np.arange(rows) < 730) & (height > 0)
        stamps = pd.Timestamp("2020-01-01") + pd.to_timedelta(step * np.arange(rows), unit="s")
        value = chance.normal(50, 1, rows) + height * odd
        frames.append(pd.DataFrame({"file": name, "timestamp": stamps, "value": value, "label": odd.astype(np.int8)}))
    pd.concat(frames).to_parquet(folder / "mscloud.parquet")
    return folder
