"""The second stage: the runs of one shard of devices through the core of the stream, to staged files.

Readings are fed in order of event time, each stamped as if it had arrived when it was measured. Then no reading is
late, none waits to be believed, and what a partition shares between devices, its clock, decides only when windows come
out and not what is in them: any cut of the devices gives the same rows.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from producers.batch import ReadingEncoder
from producers.columns import Rows, pivot
from producers.replay import Stream, merge
from scorers import pack
from scorers.fleet import Fleet
from stream.decode import LATEST
from stream.partition import Partition, Source
from stream.readings import READINGS
from stream.records import PUNCTUATION, Records
from tidewatch.batch import spool
from tidewatch.batch.output import Staged
from tidewatch.batch.spec import Kind, Plan, Result
from tidewatch.batch.windows import names, windows
from tidewatch.jobs import Cancelled

Runs = Sequence[dict[str, Any]]
"""What the first stage made for a shard, in the order of files and rows: path, first time, metrics."""
Some = Collection[str] | None
"""Some devices of a shard; None: all."""

READING_ROWS = 64
"""The fewest rows of a run that are in memory together."""


def score(plan: Plan, task: tuple[int, Runs, bool]) -> Result:
    """Score one shard; its staged files, and a row for each device.

    Where something unexpected happens the shard is done again in halves, down to the devices that it happens with:
    those have failed, and the others are scored.

    Raises:
        OSError: the disk is full, say.
        Cancelled: the job is to stop.
    """
    shard, runs, narrow = task
    fleet = Fleet.empty() if plan.fleet is None else pack.load(plan.fleet)
    result: Result = {"files": [], "devices": {}, "reasons": {}, "failed": {}}
    _attempt(plan, (shard, runs, narrow), fleet, None, result)
    return result


def _attempt(plan: Plan, task: tuple[int, Runs, bool], fleet: Fleet, some: Some, result: Result) -> None:
    staged = Staged(plan, task[0], result.get("next", 0))
    try:
        for outputs in _outputs(plan, task, fleet, some):
            plan.check()
            staged.take(outputs)
        staged.close()
    except (OSError, Cancelled):
        raise
    except Exception as error:  # noqa: BLE001 - one device must never stop the others
        staged.discard()
        devices = sorted(some if some is not None else _devices(plan, task))
        if len(devices) <= 1:
            result["failed"] |= dict.fromkeys(devices, f"{type(error).__name__}: {error}")
            return
        half = len(devices) // 2
        for part in (devices[:half], devices[half:]):
            _attempt(plan, task, fleet, frozenset(part), result)
        return
    result["files"] += staged.files
    result["devices"] |= {device: dict(about) for device, about in staged.devices.items()}
    result["next"] = staged.after
    result["reasons"] = dict(Counter(result["reasons"]) + staged.rejects)


def _outputs(plan: Plan, task: tuple[int, Runs, bool], fleet: Fleet, some: Some) -> Iterator[Any]:
    shard, runs, narrow = task
    if plan.kind is Kind.STATISTICS:
        yield from windows(plan, runs, fleet, some)
        return
    partition = Partition(Source(plan.topics.readings, READINGS), shard, plan.stream, plan.topics)
    partition.use(fleet)
    for records in _records(plan, shard, _readings(plan, runs, some, narrow=narrow)):
        yield partition.feed(records)


def _readings(plan: Plan, runs: Runs, some: Some, *, narrow: bool) -> Iterator[tuple[Rows, tuple[str, ...]]]:
    """The readings of a shard in order of time, and their metrics."""
    metrics = tuple(dict.fromkeys(name for run in runs for name in run["metrics"]))
    place = {name: column for column, name in enumerate(metrics)}
    each = plan.memory // max(1, len(runs) * (8 * len(metrics) + spool.ROW_BYTES))
    size = min(spool.SLICE, max(READING_ROWS, each))
    streams = [
        Stream(run["first"], _some(spool.unpack(plan.work / run["path"], run["metrics"], place, size), some))
        for run in runs
    ]
    for rows in merge(streams):
        whole = pivot(rows) if narrow else rows
        for low in range(0, len(whole), spool.SLICE):
            yield whole.take(slice(low, low + spool.SLICE)), metrics


def _some(chunks: Iterator[Rows], some: Some) -> Iterator[Rows]:
    if some is None:
        yield from chunks
        return
    for rows in chunks:
        yield rows.take(np.fromiter((device in some for device in rows.device), np.bool_, len(rows)))


def _records(plan: Plan, shard: int, chunks: Iterator[tuple[Rows, tuple[str, ...]]]) -> Iterator[Records]:
    """Readings as a partition would hold them, and the punctuation that ends them."""
    topic, at, encoder = plan.topics.readings, 0, ReadingEncoder(())
    for rows, metrics in chunks:
        if encoder.metrics != metrics:
            encoder = ReadingEncoder(metrics)
        devices = rows.device.tolist()
        count = len(devices)
        values = encoder.encode(devices, rows.ts, rows.matrix)
        keys = [device.encode() for device in devices]
        arrival = np.minimum(rows.ts, plan.asof)
        yield Records(topic, shard, np.arange(at, at + count), arrival, keys, values, [()] * count)
        at += count
    mark = [(PUNCTUATION, str(LATEST).encode())]
    yield Records(topic, shard, np.array([at]), np.array([plan.asof]), [None], [None], [mark])


def _devices(plan: Plan, task: tuple[int, Runs, bool]) -> set[str]:
    """Every device of a shard."""
    _, runs, narrow = task
    if plan.kind is Kind.STATISTICS:
        return names(plan, runs)
    return {device for rows, _ in _readings(plan, runs, None, narrow=narrow) for device in rows.device.tolist()}
