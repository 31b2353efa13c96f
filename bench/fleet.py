"""A trained fleet for the job's devices: what came before it, through the stream's own core, to models."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from bench.job import PAST, PROFILES, START, Job
from scorers import pack
from scorers.errors import ModelError
from scorers.fit import TrainSpec
from scorers.fleet import Fleet
from scorers.statistics import BLOCKS, Floats, Statistics
from scorers.train import fit_fleet
from stream.app import sources
from stream.contracts import Score, Topics
from stream.message import singly
from stream.partition import Partition, StreamSpec
from stream.records import Records

WINDOWS = 60
"""Windows each model is trained on."""


def train(job: Job, path: Path, past: Path) -> None:
    """Write a fleet with a model for every device, and what the peers train theirs on, as a numpy array.

    Raises:
        ModelError: a device got none.
    """
    profiles = replace(job, devices=min(job.devices, PROFILES))
    windows = _windows(profiles)
    training = fit_fleet(windows, TrainSpec())
    refused = next((result for result in training.results if result.status != "trained"), None)
    if refused:
        raise ModelError(f"{refused.device} got no model ({refused.reason}); change the job's seed.")
    models = {name: training.models[profiles.names[number % profiles.devices]] for number, name in enumerate(job.names)}
    pack.save(Fleet.of(models, "bench"), path, created=START)
    np.save(past, np.array([_features(windows[name]) for name in profiles.names]))


def _windows(job: Job) -> dict[str, Statistics]:
    """The statistics of each device's windows, oldest first; the last ones stay open."""
    topics, scores = Topics(), defaultdict[str, list[Score]](list)
    partition = Partition(sources(topics)[0], 0, StreamSpec(), topics)
    for batch in job.batches(PAST, WINDOWS + 1):
        start, count = partition.next_offset, len(batch)
        records = Records(
            topics.readings, 0, np.arange(start, start + count), batch.ts,
            list(batch.keys), list(batch.values), [()] * count,
        )  # fmt: skip
        for message in singly(partition.feed(records)):
            score = msgspec.json.decode(message.value, type=Score)
            scores[score.device_id].append(score)
    return {device: _statistics(job, rows) for device, rows in scores.items()}


def _statistics(job: Job, rows: list[Score]) -> Statistics:
    metrics = job.metric_names
    blocks = {
        name: np.array([[getattr(row.metrics[metric], name) for metric in metrics] for row in rows]) for name in BLOCKS
    }
    return Statistics(tuple(metrics), **blocks)


def _features(windows: Statistics) -> Floats:
    """Mean, std, min and max of each metric, shape ``(windows, 4 * metrics)``."""
    columns = np.stack([windows.mean, windows.std, windows.min, windows.max], axis=2)
    features: Floats = columns.reshape(len(columns), -1)
    return features
