"""Models of types from recorded files: who is asked, which windows, and what becomes of it."""

from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest

from scorers.crew import Pool
from scorers.fit import TrainSpec
from scorers.lend import fit_type
from scorers.panel import MOST, TypeSpec, panels, train_types
from scorers.period import Period
from scorers.statistics import Statistics
from scorers.train import Result, Training, train
from tests.unit.test_lend import member
from tests.unit.test_train import WINDOW_MS, long, write

SPEC = TrainSpec()
TYPES = TypeSpec()


def result(device: str, windows: int = 60, status: str = "trained") -> Result:
    return Result(device, status, windows)  # type: ignore[arg-type]  # one of three


@pytest.fixture
def blocks() -> dict[str, Statistics]:
    pumps = {f"pump-{seed}": member(seed).windows(60) for seed in range(6)}
    return pumps | {f"fan-{seed}": member(seed + 50).windows(40) for seed in range(5)}


def trained(
    source: Path | ds.Dataset, spec: TrainSpec = SPEC, pool: Pool | None = None, period: Period | None = None
) -> Training:
    training = train(source, spec, period=period)
    train_types(source, training, spec, TYPES, pool=pool, period=period)
    return training


def test_types_with_devices_enough_get_a_model(tmp_path: Path, blocks: dict[str, Statistics]) -> None:
    few = {f"valve-{seed}": member(seed).windows(60) for seed in range(4)}
    write(tmp_path, "0.parquet", *(long(device, block) for device, block in (blocks | few).items()))

    training = trained(tmp_path)

    assert set(training.types) == {"fan", "pump"}
    assert [(r.device, r.status, r.windows) for r in training.type_results] == [
        ("fan", "trained", 200), ("pump", "trained", 360),
    ]  # fmt: skip


def test_files_give_the_model_that_memory_gives(tmp_path: Path, blocks: dict[str, Statistics]) -> None:
    write(tmp_path, "0.parquet", *(long(device, block) for device, block in blocks.items()))
    pumps = {name: (block, np.arange(60)) for name, block in blocks.items() if name.startswith("pump")}

    assert trained(tmp_path).types["pump"].reach == pytest.approx(fit_type(pumps, SPEC).reach, rel=1e-9)


def test_more_processes_and_a_dataset_give_the_same(tmp_path: Path, blocks: dict[str, Statistics]) -> None:
    write(tmp_path, "all.parquet", *(long(device, block) for device, block in blocks.items()))

    one = trained(tmp_path)
    with Pool(2) as pool:
        other = trained(ds.dataset(tmp_path, format="parquet"), pool=pool)

    assert one.type_results == other.type_results
    assert {name: model.reach for name, model in one.types.items()} == {
        name: model.reach for name, model in other.types.items()
    }


def test_only_some_recent_windows_are_read_evenly(tmp_path: Path) -> None:
    write(tmp_path, "0.parquet", *(long(f"pump-{seed}", member(seed).windows(200)) for seed in range(5)))
    spec = TrainSpec(max_windows=100)

    (found,) = trained(tmp_path, spec).type_results

    assert (found.status, found.windows) == ("trained", 100)


def test_only_the_period_is_used(tmp_path: Path) -> None:
    write(tmp_path, "0.parquet", *(long(f"pump-{seed}", member(seed).windows(100)) for seed in range(5)))

    (found,) = trained(tmp_path, period=Period(since=10 * WINDOW_MS, until=60 * WINDOW_MS)).type_results

    assert found.windows == 250


def test_devices_too_new_for_a_model_of_their_own_make_their_types(tmp_path: Path) -> None:
    write(tmp_path, "0.parquet", *(long(f"pump-{seed}", member(seed).windows(12)) for seed in range(8)))

    training = trained(tmp_path)

    assert training.models == {}
    assert set(training.types) == {"pump"}


def test_a_type_that_cannot_be_trained_does_not_stop_the_others(tmp_path: Path, blocks: dict[str, Statistics]) -> None:
    apart = {f"odd-{seed}": member(seed).windows(60) for seed in range(5)}
    for number, block in enumerate(apart.values()):
        object.__setattr__(block, "metrics", tuple(f"{number}{name}" for name in block.metrics))
    write(tmp_path, "0.parquet", *(long(device, block) for device, block in (blocks | apart).items()))

    training = trained(tmp_path)

    assert {r.device: r.status for r in training.type_results} == {
        "fan": "trained",
        "odd": "refused",
        "pump": "trained",
    }
    assert set(training.types) == {"fan", "pump"}


def test_panels_are_bounded_and_follow_from_ids_alone() -> None:
    results = [result(f"pump-{number}") for number in range(300)]
    one, other = panels(results, TYPES, 30), panels(results[::-1], TYPES, 30)

    assert one == other
    assert len(one["pump"]) == MOST


def test_devices_with_unsound_data_or_hardly_any_are_on_no_panel() -> None:
    results = [result(f"pump-{number}") for number in range(5)]
    results += [result("pump-7", 60, "failed"), result("pump-8", 60, "refused"), result("pump-9", 3, "refused")]
    results += [result("pump-6", 10, "refused")]

    assert panels(results, TYPES, 30) == {"pump": ["pump-0", "pump-1", "pump-2", "pump-3", "pump-4", "pump-6"]}


def test_without_a_rule_there_are_no_types(tmp_path: Path, blocks: dict[str, Statistics]) -> None:
    write(tmp_path, "0.parquet", *(long(device, block) for device, block in blocks.items()))
    training = train(tmp_path, SPEC)
    train_types(tmp_path, training, SPEC, TypeSpec(rule=""))

    assert (training.types, training.type_results) == ({}, [])
