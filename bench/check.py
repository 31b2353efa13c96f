"""Are the windows right? All are there once, and a sample equals what pandas makes of the same readings."""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import pandas as pd
from confluent_kafka import Message, TopicPartition

from bench.arena import Arena
from bench.job import SIZE_MS, START, TICKS, Job
from bench.runners.base import Runner
from scorers.errors import ModelError
from scorers.statistics import Ints
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
    """How many carry a verdict of a model."""
    sampled: int
    """Windows compared with pandas."""
    worst: float
    """Largest relative difference found."""


class Statistics(msgspec.Struct):
    """What a window says of a metric."""

    count: int
    mean: float
    std: float
    min: float
    max: float
    last: float


class Window(msgspec.Struct):
    """What every runner's record must hold; the rest is its own."""

    device_id: str
    window_start: int
    metrics: dict[str, Statistics]
    decision: float | None = None


def check(arena: Arena, runner: Runner) -> Check:
    """Compare what is in the scores topic with the job.

    Raises:
        ModelError: windows are missing (where the runner had the time to make them), doubled, unscored or wrong.
    """
    job = arena.job
    devices = np.random.default_rng(job.seed).choice(job.devices, min(SAMPLE, job.devices), replace=False)
    sampled = {job.names[device] for device in devices}
    seen: set[tuple[str, int]] = set()
    sample: list[Window] = []
    count = scored = 0
    decode = msgspec.json.Decoder(Window).decode
    for message in committed(arena, arena.topics.scores):
        score = decode(message.value() or b"")
        count += 1
        scored += score.decision is not None
        seen.add((score.device_id, score.window_start))
        if score.device_id in sampled:
            sample.append(score)
    due = count if runner.patience_s and 0 < count < job.results else job.results
    if not count == len(seen) == due or (runner.scores and scored != count):
        raise ModelError(
            f"{runner.title}: {due} windows are due; {count} came, {len(seen)} of them different, {scored} scored."
        )
    if _gaps(sample):
        raise ModelError(f"{runner.title}: windows are missing between others of the same device.")
    worst = _worst(_found(sample), _expected(job, devices), whole=due == job.results)
    if not worst <= TOLERANCE:
        raise ModelError(f"{runner.title}: windows differ from pandas by {worst:g}, more than {TOLERANCE:g}.")
    return Check(count, scored, len(sample), worst)


def committed(arena: Arena, topic: str) -> Iterator[Message]:
    """Every committed record of a topic, to its end as it is now."""
    last = ends(arena.broker, [topic])
    reader = consumer(arena.broker, "bench-check", enable_partition_eof=True)
    reader.assign([TopicPartition(*place, 0) for place in last])
    left = len(last)
    try:
        while left:
            for message in reader.consume(10_000, _WAIT_S):
                if message.error():
                    left -= 1
                else:
                    yield message
    finally:
        reader.close()


def _gaps(sample: list[Window]) -> bool:
    """Whether a device lacks a window before its last one: a runner that was stopped has made the first so many."""
    starts: dict[str, list[int]] = {}
    for window in sample:
        starts.setdefault(window.device_id, []).append(window.window_start)
    return any(sorted(own) != list(range(START, START + len(own) * SIZE_MS, SIZE_MS)) for own in starts.values())


def _found(sample: list[Window]) -> pd.DataFrame:
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


def _worst(found: pd.DataFrame, expected: pd.DataFrame, *, whole: bool) -> float:
    """The largest relative difference; infinite where a window is not in both."""
    if (whole and len(found) != len(expected)) or not found.index.isin(expected.index).all():
        return float("inf")
    there = expected.loc[found.index]
    return float(((found - there).abs() / there.abs()).to_numpy().max())
