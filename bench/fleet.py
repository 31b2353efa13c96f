"""A trained fleet for the job's devices: what came before it, through the stream's own core, to models."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from bench.core import records
from bench.job import PAST, PROFILES, START, Job
from scorers import pack
from scorers.errors import ModelError
from scorers.fit import TrainSpec
from scorers.fleet import Fleet
from scorers.model import DeviceModel
from scorers.statistics import BLOCKS, Floats, Statistics
from scorers.train import fit_fleet
from stream.app import sources
from stream.contracts import Score, Topics
from stream.message import singly
from stream.partition import Partition, StreamSpec

WINDOWS = 60
"""Windows each model is trained on."""


def train(job: Job, path: Path, past: Path) -> None:
    """Write a fleet with a model for every device, and what the peers train theirs on, as a numpy array.

    Raises:
        ModelError: a device got none.
    """
    windows = _windows(job)
    save(_fit(windows), job, path)
    np.save(past, np.array([_features(own) for _, own in sorted(windows.items())]))


def models(job: Job) -> Mapping[str, DeviceModel]:
    """A model for each profile of the job's devices, by the name of the first device that has it.

    Raises:
        ModelError: a device got none.
    """
    return _fit(_windows(job))


def save(profiles: Mapping[str, DeviceModel], job: Job, path: Path) -> None:
    """Write a fleet in which every device of the job has the model of its profile."""
    names = job.names
    own = {name: profiles[names[number % PROFILES]] for number, name in enumerate(names)}
    pack.save(Fleet.of(own, "bench"), path, created=START)


def _fit(windows: Mapping[str, Statistics]) -> Mapping[str, DeviceModel]:
    training = fit_fleet(windows, TrainSpec())
    refused = next((result for result in training.results if result.status != "trained"), None)
    if refused:
        raise ModelError(f"{refused.device} got no model ({refused.reason}); change the job's seed.")
    return training.models


def _windows(job: Job) -> dict[str, Statistics]:
    """The statistics of the windows of each profile's first device, oldest first; the last ones stay open."""
    job = replace(job, devices=min(job.devices, PROFILES))
    topics, scores = Topics(), defaultdict[str, list[Score]](list)
    source = sources(topics)[job.sessions]
    partition = Partition(source, 0, StreamSpec(), topics)
    for batch in job.batches(PAST, WINDOWS + 1):
        for message in singly(partition.feed(records(batch, source.topic, partition.next_offset))):
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
