"""Recorded statistics in, models out: every device on its own, all of them in parallel.

Input is what the Parquet sink writes: one row per device, window and metric under ``statistics/date=.../``.
"""

import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from threadpoolctl import threadpool_limits

from scorers.errors import InputError, ModelError
from scorers.fit import TrainSpec, fit_device
from scorers.model import DeviceModel
from scorers.statistics import BLOCKS, Ints, Statistics

TASK_ROWS = 100_000
"""About so many rows go to a process at once."""

Progress = Callable[[int, int], None]
"""Called with devices done and devices in all."""


@dataclass(frozen=True, slots=True)
class Period:
    """Which windows to train on; epoch ms, half-open, by window end."""

    since: int | None = None
    until: int | None = None
    excluded: tuple[tuple[int, int], ...] = ()
    """Intervals to leave out, such as known faults."""


@dataclass(frozen=True, slots=True)
class Result:
    """How training went for one device."""

    device: str
    status: Literal["trained", "refused", "failed"]
    """``refused``: its data gives no sound model. ``failed``: something unexpected."""
    windows: int
    """Windows used, or found where there is no model."""
    reason: str = ""
    """Why there is no model."""
    support_vectors: int = 0
    false_alarm_rate: float | None = None
    """Share of held-out windows flagged."""


@dataclass(frozen=True, slots=True)
class Training:
    """Models by device, and one result for every device, whether it has a model or not."""

    models: dict[str, DeviceModel] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)

    def add(self, result: Result, model: DeviceModel | None) -> None:
        """Take in one device."""
        self.results.append(result)
        if model is not None:
            self.models[result.device] = model


def fit_fleet(
    blocks: Mapping[str, Statistics], spec: TrainSpec, window_end: Mapping[str, Ints] | None = None
) -> Training:
    """Train on windows in memory, by device, oldest first; without ``window_end`` they lie before all that comes."""
    training = Training()
    with threadpool_limits(1, user_api="blas"):
        for device, statistics in blocks.items():
            ends = np.arange(len(statistics)) if window_end is None else window_end[device]
            training.add(*_attempt(device, statistics, ends, spec))
    return training


def train(
    source: Path | ds.Dataset,
    spec: TrainSpec,
    *,
    period: Period | None = None,
    workers: int = 1,
    progress: Progress = lambda _, __: None,
) -> Training:
    """Train a model for every device found in ``source``.

    Args:
        source: window statistics, or a folder of Parquet files; names that start with ``_`` or ``.`` are ignored.
        spec: how to train.
        period: which windows; all by default.
        workers: processes. With more than one the calling script needs its ``__main__`` guard.
        progress: called as devices are done.

    Raises:
        InputError: no files, or files that are not statistics.
        ModelError: a training process died.
    """
    training = Training()
    with tempfile.TemporaryDirectory() as spill, duckdb.connect(config={"temp_directory": spill}) as database:
        try:
            total, tables = _read(database, source, period or Period())
            for outcome in _spread(tables, spec, workers):
                for result, model in outcome:
                    training.add(result, model)
                progress(len(training.results), total)
        except duckdb.Error as error:
            raise InputError(
                f"{_named(source)} does not hold window statistics ({error}); name a folder the Parquet sink wrote."
            ) from error
        except BrokenProcessPool as error:
            raise ModelError(
                "A training process was killed, most likely for want of memory; use fewer workers."
            ) from error
    return training


Outcome = tuple[Result, DeviceModel | None]


def _read(
    database: duckdb.DuckDBPyConnection, source: Path | ds.Dataset, period: Period
) -> tuple[int, Iterator[pa.Table]]:
    """How many devices there are, and their rows in tables of whole devices."""
    files = _files(source)
    if not files:
        raise InputError(
            f"There are no Parquet files under {_named(source)}; let the Parquet sink write some, or name its folder."
        )
    if isinstance(source, Path):
        origin, params = "read_parquet($files, hive_partitioning = false)", {"files": files}
    else:
        database.register("source", source)
        origin, params = "source", {}
    chosen = f"FROM {origin} WHERE {_filter(period)}"
    counted = database.execute(f"SELECT count(DISTINCT device_id) {chosen}", params).fetchall()
    columns = f"device_id, epoch_ms(window_end) AS window_end, metric, {', '.join(BLOCKS)}"
    rows = database.sql(f"SELECT {columns} {chosen} ORDER BY device_id", params=params)
    return counted[0][0], _whole(rows.to_arrow_reader(TASK_ROWS))


def _files(source: Path | ds.Dataset) -> list[str]:
    if isinstance(source, Path):
        return [str(file) for file in sorted(source.rglob("*.parquet")) if not _hidden(file.relative_to(source))]
    return list(source.files)


def _named(source: Path | ds.Dataset) -> str:
    return str(source) if isinstance(source, Path) else "The statistics table"


def _hidden(path: Path) -> bool:
    return any(part.startswith(("_", ".")) for part in path.parts)


def _filter(period: Period) -> str:
    """A condition on ``window_end``."""
    terms = ["true"]
    terms += [f"epoch_ms(window_end) >= {int(period.since)}"] if period.since is not None else []
    terms += [f"epoch_ms(window_end) < {int(period.until)}"] if period.until is not None else []
    terms += [f"NOT epoch_ms(window_end) BETWEEN {int(since)} AND {int(until) - 1}" for since, until in period.excluded]
    return " AND ".join(terms)


def _whole(batches: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Tables that end where a device ends, from batches sorted by device."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        start = _last_device(batch)
        if start:
            yield pa.Table.from_batches([*held, batch.slice(0, start)])
            held = []
        elif held and held[-1]["device_id"][-1] != batch["device_id"][0]:
            yield pa.Table.from_batches(held)
            held = []
        held.append(batch.slice(start))
    if held:
        yield pa.Table.from_batches(held)


def _last_device(batch: pa.RecordBatch) -> int:
    """The row at which the last device of a sorted batch begins."""
    return int(pc.index(batch["device_id"], batch["device_id"][-1]).as_py())


def _spread(tables: Iterator[pa.Table], spec: TrainSpec, workers: int) -> Iterator[list[Outcome]]:
    """Outcomes of every table, in order; only a few tables are in memory at a time."""
    if workers == 1:
        with threadpool_limits(1, user_api="blas"):
            yield from (_fit(table, spec) for table in tables)
        return
    waiting: deque[Future[list[Outcome]]] = deque()
    with ProcessPoolExecutor(workers, get_context("spawn"), _single_threaded) as pool:
        for table in tables:
            waiting.append(pool.submit(_fit, table, spec))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _single_threaded() -> None:
    """Processes share the cores already; threads below them would only fight."""
    import_module("sklearn.svm")  # brings a BLAS of its own, to be limited too
    threadpool_limits(1, user_api="blas")


def _fit(table: pa.Table, spec: TrainSpec) -> list[Outcome]:
    """Outcomes of the devices of one table, which is sorted by device."""
    ends = pc.run_end_encode(table["device_id"].combine_chunks())
    edges = [0, *ends.run_ends.to_pylist()]
    outcomes = []
    for device, first, last in zip(ends.values.to_pylist(), edges, edges[1:], strict=False):
        outcomes.append(_attempt(device, *_windows(table.slice(first, last - first)), spec))
    return outcomes


def _windows(rows: pa.Table) -> tuple[Statistics, Ints]:
    """One device's long rows as statistics, with the end of each window."""
    ends, window = np.unique(rows["window_end"].to_numpy(), return_inverse=True)
    metrics = rows["metric"].combine_chunks().dictionary_encode()
    place = window, metrics.indices.to_numpy()
    blocks: dict[str, Any] = {}
    for name in BLOCKS:
        blank: Any = np.int64(0) if name == "count" else np.nan
        blocks[name] = np.full((len(ends), len(metrics.dictionary)), blank)
        blocks[name][place] = rows[name].to_numpy()
    return Statistics(tuple(metrics.dictionary.to_pylist()), **blocks), ends


def _attempt(device: str, statistics: Statistics, window_end: Ints, spec: TrainSpec) -> Outcome:
    """Train one device; whatever happens stays with this device."""
    try:
        model = fit_device(statistics, window_end, spec)
    except ModelError as error:
        return Result(device, "refused", len(statistics), str(error)), None
    except Exception as error:  # noqa: BLE001  # one device must never stop the others
        return Result(device, "failed", len(statistics), f"{type(error).__name__}: {error}"), None
    vectors = len(model.kernel.coefs)
    return Result(device, "trained", model.windows, "", vectors, model.false_alarm_rate), model
