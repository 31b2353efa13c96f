"""Are the windows right? All are there once, and a sample equals what pandas makes of the same readings."""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import pandas as pd
from confluent_kafka import TopicPartition

from bench.arena import Arena
from bench.job import SIZE_MS, TICKS, Job
from scorers.errors import ModelError
from scorers.statistics import Ints
from stream.contracts import Score
from stream.kafka import consumer
from tidewatch.tail import ends

SAMPLE = 10
"""Devices compared with pandas."""
STATISTICS = ("count", "mean", "std", "min", "max", "last")
TOLERANCE = 1e-9
_WAIT_S = 0.2


@dataclass(frozen=True, slots=True)
class Check:
    """What was compared."""

    windows: int
    scored: int
    sampled: int
    """Windows compared with pandas."""
    worst: float
    """Largest relative difference found."""


def check(arena: Arena) -> Check:
    """Compare what is in the scores topic with the job.

    Raises:
        ModelError: windows are missing, doubled, unscored or wrong.
    """
    job = arena.job
    devices = np.random.default_rng(job.seed).choice(job.devices, min(SAMPLE, job.devices), replace=False)
    sampled = {job.names[device] for device in devices}
    seen: set[tuple[str, int]] = set()
    sample: list[Score] = []
    count = scored = 0
    for score in _scores(arena):
        count += 1
        scored += score.state == "scored"
        seen.add((score.device_id, score.window_start))
        if score.device_id in sampled:
            sample.append(score)
    if not count == len(seen) == scored == job.results:
        raise ModelError(
            f"{job.results} windows are due; {count} came, {len(seen)} of them different, {scored} scored."
        )
    worst = _worst(_found(sample), _expected(job, devices))
    if not worst <= TOLERANCE:
        raise ModelError(f"Windows differ from pandas by {worst:g}, more than {TOLERANCE:g}.")
    return Check(count, scored, len(sample), worst)


def _scores(arena: Arena) -> Iterator[Score]:
    """Every committed record of the scores topic."""
    decode = msgspec.json.Decoder(Score).decode
    last = ends(arena.broker, [arena.topics.scores])
    reader = consumer(arena.broker, "bench-check", enable_partition_eof=True)
    reader.assign([TopicPartition(*place, 0) for place in last])
    left = len(last)
    try:
        while left:
            for message in reader.consume(10_000, _WAIT_S):
                if message.error():
                    left -= 1
                else:
                    yield decode(message.value() or b"")
    finally:
        reader.close()


def _found(sample: list[Score]) -> pd.DataFrame:
    rows = [
        (score.device_id, score.window_start, metric, *(getattr(one, name) for name in STATISTICS))
        for score in sample
        for metric, one in score.metrics.items()
    ]
    return pd.DataFrame(rows, columns=["device", "window", "metric", *STATISTICS]).set_index(
        ["device", "window", "metric"]
    )


def _expected(job: Job, devices: Ints) -> pd.DataFrame:
    long = _readings(job, devices).melt(["device", "ts"], var_name="metric").sort_values("ts", kind="stable")
    long["window"] = long["ts"] // SIZE_MS * SIZE_MS
    return long.groupby(["device", "window", "metric"])["value"].agg(list(STATISTICS))


def _readings(job: Job, devices: Ints) -> pd.DataFrame:
    """The readings of some devices: device, ts, a column a metric."""
    names, parts = np.array(job.names)[devices], []
    for window in range(job.windows):
        block = job.block(window)
        part = pd.DataFrame(block.cube[:, devices].reshape(-1, job.metrics), columns=job.metric_names)
        parts.append(part.assign(device=np.tile(names, TICKS), ts=block.ts[:, devices].ravel()))
    return pd.concat(parts, ignore_index=True)


def _worst(found: pd.DataFrame, expected: pd.DataFrame) -> float:
    """The largest relative difference; infinite where a window is not in both."""
    if len(found) != len(expected) or not found.index.isin(expected.index).all():
        return float("inf")
    there = expected.loc[found.index]
    return float(((found - there).abs() / there.abs()).to_numpy().max())
