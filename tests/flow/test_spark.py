"""Training and scoring on Spark give what they give here, and what kills its process is lost alone."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scorers import pack
from scorers.apart import apart
from scorers.errors import UnavailableError
from sinks.compare import compare
from tests import batches
from tests.flow.test_training import killed_and_gone_on_with, write
from tests.simulator import Device
from tidewatch.batch.run import Request, prepare, score
from tidewatch.engines import Engine
from tidewatch.groups import Settings
from tidewatch.servers import JAVA, java_version
from tidewatch.settings import load, override
from tidewatch.training import Order, train

needs_java = pytest.mark.skipif(java_version() < JAVA, reason=f"Spark needs Java {JAVA}")


def settings(folder: Path, name: str, **more: Any) -> Settings:
    changes = {
        "models.registry": "",
        "models.folder": folder / name,
        "worker.fleet": folder / f"{name}.arrow",
        "parquet.folder": folder / "parquet",
        "spark.master": "local[2]",
        "spark.log": folder / "spark.log",
    }
    return override(load({}, environ={}), changes | more).settings


def test_what_kills_its_child_is_lost_alone() -> None:
    def square(number: int) -> int:
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number

    assert list(apart([1, 2, 3, 4], square, lambda number: -number)) == [1, 4, -3, 16]


@needs_java
def test_spark_trains_what_is_trained_here(tmp_path: Path) -> None:
    windows = {f"pump-{seed}": Device(seed, 3).windows(80) for seed in range(6)}
    absurd = Device(7, 2).windows(80)
    absurd.mean[::2] = absurd.min[::2] = absurd.max[::2] = 1e308
    absurd.std[:] = 1e308
    write(tmp_path / "parquet", windows | {"new": Device(9, 3).windows(5), "absurd": absurd})
    here, there = settings(tmp_path, "here"), settings(tmp_path, "there")

    ours = train(here, Order(here.parquet.folder, here.worker.fleet, workers=2))
    theirs = train(there, Order(there.parquet.folder, there.worker.fleet, workers=1, engine=Engine.SPARK))

    same = [name for name in ours.results.column_names if name not in {"started", "seconds"}]
    assert theirs.results.select(same).to_pylist() == ours.results.select(same).to_pylist()
    one, other = pack.load(here.worker.fleet), pack.load(there.worker.fleet)
    for device in one.devices:
        left, right = one.only({device}).groups[0], other.only({device}).groups[0]
        assert all(np.array_equal(getattr(left, name), getattr(right, name), equal_nan=True) for name in pack.SHAPES)


@needs_java
def test_a_training_whose_driver_is_killed_is_gone_on_with(tmp_path: Path) -> None:
    killed_and_gone_on_with(settings(tmp_path, "killed", **{"spark.master": "local[1]"}), "--engine", "spark")


@needs_java
def test_spark_scores_what_is_scored_here(tmp_path: Path) -> None:
    current = batches.settings(tmp_path, **{"spark.master": "local[2]", "spark.log": tmp_path / "spark.log"})
    batches.train(current)
    source = batches.write(tmp_path / "in", batches.readings(), files=3)
    for engine in Engine:
        request = Request(str(source), str(tmp_path / engine))
        assert score(current, request, prepare(current, request).id, workers=1, engine=engine).failures == 0

    assert compare(tmp_path / "local", tmp_path / "spark", tolerance=1e-9).same


def test_a_master_that_is_away_is_told_of(tmp_path: Path) -> None:
    write(tmp_path / "parquet", {"pump": Device(1, 3).windows(80)})
    away = settings(tmp_path, "away", **{"spark.master": "spark://127.0.0.1:1"})

    with pytest.raises(UnavailableError, match=r"correct spark\.master"):
        train(away, Order(away.parquet.folder, away.worker.fleet, engine=Engine.SPARK))
