"""Hours of servers that a forecaster can learn: a day's course, quiet weekends, noise, and some that are missing."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scorers.forecast.calendar import FeatureSpec
from scorers.forecast.features import features
from scorers.forecast.schema import HOUR_MS, HOURS, LOADS, UNIT

START = 1_704_067_200_000
"""Monday 2024-01-01, UTC."""
DAY_MS = 24 * HOUR_MS
SPEC = FeatureSpec("UTC", START)


def hours(servers: int = 6, days: int = 21, *, seed: int = 1) -> pa.Table:
    """``HOURS`` of servers named ``10.0.0.n``, of loads around the published thresholds."""
    random = np.random.default_rng(seed)
    count = 24 * days
    clock = np.arange(count)
    parts = []
    for number in range(servers):
        course = 1 + 0.7 * np.cos((clock % 24 - 14) / 24 * 2 * np.pi)
        quiet = np.where(clock // 24 % 7 >= 5, 0.4, 1.0)
        size = 60 * 2.2 ** (number % 4)
        load = size * course * quiet * np.exp(random.normal(0, 0.15, count))
        peak = np.round(load * UNIT).astype(np.int64)
        known = random.random(count) > 0.02
        columns = [[f"10.0.0.{number}"] * count, START + clock * HOUR_MS, np.full(count, 20)]
        table = pa.table(columns + [peak // (1 + at) for at in range(len(LOADS))], schema=HOURS)
        parts.append(table.filter(pa.array(known)))
    return pa.concat_tables(parts)


def targets(servers: list[str], since: int, count: int) -> pa.Table:
    """So many hours from ``since`` (epoch ms) of each server."""
    clock = since + np.arange(count, dtype=np.int64) * HOUR_MS
    names = np.repeat(np.array(servers, object), count)
    return pa.table({"server": pa.array(names, pa.string()), "hour": np.tile(clock, len(servers))})


def rows(known: pa.Table) -> pa.Table:
    """``FEATURES`` of the hours known."""
    return features(known, known.select(["server", "hour"]), SPEC)


def folder(path: Path, known: pa.Table, spec: FeatureSpec = SPEC) -> Path:
    """What `tidewatch load etl` leaves behind of such hours."""
    for name, table in (("hours", known), ("features", features(known, known.select(["server", "hour"]), spec))):
        (path / name).mkdir(parents=True)
        pq.write_table(table, path / name / "all.parquet")
    (path / "etl.json").write_text(json.dumps({"format": 1, "spec": asdict(spec)}))
    return path
