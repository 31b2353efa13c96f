"""The stream's own core fed by hand, without Kafka: what a reading costs against how many come at a time."""

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from bench.job import Job
from producers.batch import Batch
from scorers.fleet import Fleet
from scorers.model import DeviceModel
from stream.app import sources
from stream.contracts import Topics
from stream.partition import Partition, StreamSpec
from stream.records import Records
from stream.texts import Texts

TURNS = 3
"""The fastest counts; the first one has compiled nothing, for a turn unrecorded comes before."""
_TOPICS = Topics()


def records(batch: Batch, topic: str, offset: int) -> Records:
    """A batch as it comes off a partition, written when it was measured."""
    count = len(batch)
    return Records(
        topic, 0, np.arange(offset, offset + count), batch.ts,
        Texts.of(list(batch.keys)), Texts.of(list(batch.values)), [()] * count,
    )  # fmt: skip


def batches(job: Job, models: Mapping[str, DeviceModel] | None, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """For each size: readings a second of CPU, when the job's readings come so many at a time."""
    fleet = Fleet.of({name: models[name] for name in job.names}, "bench") if models else None
    whole = joined(job.batches())
    seconds(runs(whole, sizes[-1]), fleet)
    return [_row(whole, size, fleet) for size in sizes]


def runs(whole: Batch, size: int) -> list[Records]:
    """The same records, so many at a time; the last run may be shorter."""
    return [
        records(Batch(whole.keys[at : at + size], whole.values[at : at + size], whole.ts[at : at + size]),
                _TOPICS.readings, at)
        for at in range(0, len(whole), size)
    ]  # fmt: skip


def _row(whole: Batch, size: int, fleet: Fleet | None) -> dict[str, Any]:
    fed = runs(whole, size)
    least = min(seconds(fed, fleet) for _ in range(TURNS))
    return {
        "at": size,
        "readings": len(whole),
        "readings_per_s": round(len(whole) / least),
        "us_per_reading": round(least / len(whole) * 1e6, 2),
    }


def seconds(fed: Sequence[Records], fleet: Fleet | None) -> float:
    """CPU of this thread for feeding a new core."""
    core = Partition(sources(_TOPICS)[0], 0, StreamSpec(), _TOPICS)
    if fleet:
        core.use(fleet)
    began = time.thread_time()
    for run in fed:
        core.feed(run)
    return time.thread_time() - began


def joined(parts: Iterable[Batch]) -> Batch:
    """All of them in one."""
    whole = list(parts)
    return Batch(
        list(chain.from_iterable(part.keys for part in whole)),
        list(chain.from_iterable(part.values for part in whole)),
        np.concatenate([part.ts for part in whole]),
    )
