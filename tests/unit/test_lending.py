"""``tidewatch train`` from a folder of the Parquet sink to a fleet file, and what it says."""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from scorers import pack
from scorers.statistics import BLOCKS
from sinks.base import Batch, Source
from sinks.parquet import ParquetSink, ParquetSpec
from stream.contracts import MetricStatistics, Score
from tests.compaction import HERE
from tests.laws.sink_kit import NOW, TOPICS
from tests.unit.test_lend import member
from tidewatch.cli import main

START, WINDOW = 1_700_000_000_000, 10_000


def recorded(folder: Path, windows: dict[str, int]) -> None:
    """Fill a folder as the sink would, with so many windows of each device."""
    scores = []
    for seed, (device, count) in enumerate(windows.items()):
        block = member(seed).windows(count)
        for row in range(count):
            metrics = {
                name: MetricStatistics(*(getattr(block, kind)[row, at].item() for kind in BLOCKS))
                for at, name in enumerate(block.metrics)
            }
            start = START + row * WINDOW
            scores.append(Score(device, "sensors", start, start + WINDOW, 10, metrics, "learning"))
    source = Source(TOPICS.scores, 3)
    sink = ParquetSink(ParquetSpec(folder), TOPICS)
    sink.bind(HERE)
    sink.resume(source)
    sink.write(Batch(source, range(len(scores)), [msgspec.json.encode(score) for score in scores]))
    sink.flush(NOW, force=True)
    sink.close()


def trained(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    """What the whole program says."""
    alone = ["--set", "models.registry=", "--set", f"models.folder={folder / 'models'}"]
    place = ["--statistics", str(folder), "--fleet", str(folder / "fleet")]
    monkeypatch.setattr(sys, "argv", ["tidewatch", *alone, *options, "train", *place, "--workers", "1", "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    return json.loads(capsys.readouterr().out)


def test_training_lends_new_devices_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(tmp_path, {**{f"pump-{seed}": 60 for seed in range(5)}, "pump-9": 12, "gate": 12})

    told = trained(tmp_path, monkeypatch, capsys)

    fleet = pack.load(tmp_path / "fleet")
    assert (told["trained"], told["refused"]) == (5, 2)
    assert [(of["type"], of["status"]) for of in told["types"]] == [("pump", "trained")]
    assert np.flatnonzero(fleet.assign(["pump-9", "pump-1000", "gate", "pump-1"]) >= 0).tolist() == [0, 1, 3]
    assert np.flatnonzero(fleet.index(["pump-9", "pump-1000", "gate", "pump-1"]) >= 0).tolist() == [3]


def test_devices_all_new_are_lent_what_they_have_in_common(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(tmp_path, {f"pump-{seed}": 12 for seed in range(8)})

    trained(tmp_path, monkeypatch, capsys)

    assert (pack.load(tmp_path / "fleet").devices, pack.load(tmp_path / "fleet").types) == ((), ("pump",))


def test_without_types_new_devices_have_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(tmp_path, {f"pump-{seed}": 60 for seed in range(5)})

    trained(tmp_path, monkeypatch, capsys, "--set", "training.types=")

    assert pack.load(tmp_path / "fleet").assign(["pump-9", "pump-1"]).tolist() == [-1, 1]
