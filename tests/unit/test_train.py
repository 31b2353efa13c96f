from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from scorers.crew import Pool
from scorers.errors import InputError
from scorers.fit import TrainSpec
from scorers.period import Period
from scorers.statistics import BLOCKS, Statistics
from scorers.train import Training, fit_fleet, train
from tests.simulator import Device

SPEC = TrainSpec()
WINDOW_MS = 10_000


def long(device: str, statistics: Statistics, first: int = 0) -> pa.Table:
    """One row per window and metric, as the Parquet sink writes them; absent metrics have no row."""
    window, metric = np.nonzero(statistics.count)
    end = (first + window + 1) * WINDOW_MS
    rows = {
        "device_id": pa.array([device] * len(window)),
        "source": pa.array(["sensor.readings"] * len(window)),
        "window_start": pa.array(end - WINDOW_MS, pa.timestamp("ms", "UTC")),
        "window_end": pa.array(end, pa.timestamp("ms", "UTC")),
        "metric": pa.array(np.array(statistics.metrics, dtype=object)[metric]),
        "median": pa.nulls(len(window), pa.float64()),
    }
    return pa.table(rows | {name: pa.array(getattr(statistics, name)[window, metric]) for name in BLOCKS})


def write(root: Path, name: str, *tables: pa.Table, date: str = "2024-01-01") -> None:
    folder = root / f"date={date}"
    folder.mkdir(parents=True, exist_ok=True)
    whole = pa.concat_tables(tables)
    pq.write_table(whole.take(np.random.default_rng(0).permutation(len(whole))), folder / name)


@pytest.fixture
def blocks() -> dict[str, Statistics]:
    return {f"pump-{seed}": Device(seed, 2 + seed % 3).windows(60) for seed in range(6)}


def by_device(training: Training) -> dict[str, str]:
    return {result.device: result.status for result in training.results}


def test_training_from_files_equals_training_in_memory(tmp_path: Path, blocks: dict[str, Statistics]) -> None:
    for part, rows in enumerate((np.arange(20), np.arange(20, 60))):
        tables = [long(device, block.take(rows), rows[0]) for device, block in blocks.items()]
        write(tmp_path, f"{part}.parquet", *tables, date=f"2024-01-0{part + 1}")

    found = train(tmp_path, SPEC)
    expected = fit_fleet(blocks, SPEC, dict.fromkeys(blocks, WINDOW_MS * np.arange(1, 61)))

    assert found.results == expected.results
    for device, model in expected.models.items():
        assert found.models[device].reach == pytest.approx(model.reach, rel=1e-9)
        assert found.models[device].metrics == model.metrics


def test_more_processes_give_the_same_models(tmp_path: Path, blocks: dict[str, Statistics]) -> None:
    write(tmp_path, "0.parquet", *(long(device, block) for device, block in blocks.items()))
    seen: list[tuple[int, int]] = []

    alone = train(tmp_path, SPEC)
    with Pool(2) as pool:
        together = train(tmp_path, SPEC, pool=pool, progress=lambda *step: seen.append(step))

    assert together.results == alone.results
    assert [model.reach for model in together.models.values()] == [model.reach for model in alone.models.values()]
    assert seen[-1] == (6, 6)


def test_a_bad_device_does_not_stop_the_others(tmp_path: Path, blocks: dict[str, Statistics]) -> None:
    absurd = Device(7, 2).windows(60)
    absurd.mean[::2] = absurd.min[::2] = absurd.max[::2] = 1e308
    absurd.std[:] = 1e308
    write(tmp_path, "0.parquet", *(long(device, block) for device, block in blocks.items()))
    write(tmp_path, "1.parquet", long("new", Device(8).windows(5)), long("absurd", absurd))

    training = train(tmp_path, SPEC)

    assert by_device(training) == dict.fromkeys(blocks, "trained") | {"new": "refused", "absurd": "failed"}
    assert set(training.models) == set(blocks)
    assert {result.device: result.reason for result in training.results}["new"] == (
        "5 windows are too few for a model; collect 30."
    )


def test_only_the_period_asked_for_is_used(tmp_path: Path) -> None:
    write(tmp_path, "0.parquet", long("pump", Device(0).windows(100)))
    period = Period(since=10 * WINDOW_MS, until=90 * WINDOW_MS, excluded=((20 * WINDOW_MS, 30 * WINDOW_MS),))

    (result,) = train(tmp_path, SPEC, period=period).results

    assert (result.status, result.windows) == ("trained", 70)


def test_unfinished_files_are_ignored(tmp_path: Path, blocks: dict[str, Statistics]) -> None:
    write(tmp_path, "0.parquet", long("pump", blocks["pump-0"]))
    for name in (".0.parquet", "_0.parquet"):
        (tmp_path / "date=2024-01-01" / name).write_bytes(b"half a file")

    assert by_device(train(tmp_path, SPEC)) == {"pump": "trained"}


def test_a_folder_without_files_is_refused_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no Parquet files"):
        train(tmp_path / "nowhere", SPEC)


@pytest.mark.parametrize("content", [b"junk", None])
def test_files_that_are_no_statistics_are_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is None:
        pq.write_table(pa.table({"x": [1]}), tmp_path / "0.parquet")
    else:
        (tmp_path / "0.parquet").write_bytes(content)

    with pytest.raises(InputError, match="Parquet sink"):
        train(tmp_path, SPEC)


def test_training_from_a_dataset_equals_training_from_its_files(tmp_path: Path, blocks: dict[str, Statistics]) -> None:
    write(tmp_path, "all.parquet", *(long(device, block) for device, block in blocks.items()))
    rows = ds.dataset(tmp_path, format="parquet")

    assert train(rows, SPEC).results == train(tmp_path, SPEC).results


def test_a_dataset_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There are no Parquet files under The dataset"):
        train(ds.dataset(tmp_path, format="parquet"), SPEC)
