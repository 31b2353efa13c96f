"""Recorded statistics to a fleet that is compared, registered, put in force and taken back."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from pydantic import SecretStr
from typer.testing import CliRunner

from scorers import pack
from scorers.errors import ConfigError, FleetFileError, InputError, ModelError, UnavailableError
from scorers.fleet import Fleet
from scorers.statistics import BLOCKS, Statistics, concat
from sinks.table import STATISTICS
from tests.simulator import Device
from tidewatch.cli import app
from tidewatch.follower import Follower
from tidewatch.groups import Settings
from tidewatch.registry import Registry
from tidewatch.runs import Run
from tidewatch.settings import load, override
from tidewatch.training import Order, told, train

STEP_MS = 600_000
START = 1_700_000_000_000 // 86_400_000 * 86_400_000


def write(folder: Path, devices: dict[str, Statistics], first: int = 0) -> None:
    """As the Parquet sink does: window after window, all in one file."""
    parts = []
    for device, statistics in devices.items():
        window, metric = np.nonzero(statistics.count)
        start = START + (first + window) * STEP_MS
        columns: dict[str, Any] = {
            "device_id": [device] * len(window),
            "source": ["sensor.readings"] * len(window),
            "window_start": pa.array(start, pa.timestamp("ms", "UTC")),
            "window_end": pa.array(start + STEP_MS, pa.timestamp("ms", "UTC")),
            "metric": np.array(statistics.metrics, object)[metric],
            "median": pa.nulls(len(window), pa.float64()),
            "sum": np.zeros(len(window)),
            "kafka_partition": np.zeros(len(window), np.int32),
            "kafka_offset": np.arange(len(window)),
        }
        columns |= {name: getattr(statistics, name)[window, metric] for name in BLOCKS}
        parts.append(pa.table(columns, schema=STATISTICS))
    path = folder / "statistics" / "date=2023-11-14"
    path.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.concat_tables(parts), path / f"device.scores-0-{first:020d}-{first + 999:020d}.parquet")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    changes = {
        "models.registry": f"sqlite:///{tmp_path}/mlflow.db",
        "models.folder": tmp_path / "models",
        "worker.fleet": tmp_path / "fleet.arrow",
        "parquet.folder": tmp_path / "parquet",
    }
    return override(load({}, environ={}), changes).settings


def order(settings: Settings, **more: Any) -> Order:
    return Order(settings.parquet.folder, settings.worker.fleet, workers=1, **more)


def in_force(settings: Settings) -> str:
    return pack.load(settings.worker.fleet).version


def without_registry(settings: Settings) -> Settings:
    return settings.model_copy(update={"models": settings.models.model_copy(update={"registry": SecretStr("")})})


def test_champions_come_and_go(settings: Settings) -> None:
    devices = [Device(seed, 3) for seed in range(4)]
    names = [f"pump-{seed}" for seed in range(4)]
    write(settings.parquet.folder, {name: device.windows(120) for name, device in zip(names, devices, strict=True)})

    first = train(settings, order(settings))
    assert (first.promoted, first.why, dict(first.counts)) == (True, "there was no fleet in force", {"trained": 4})
    assert in_force(settings) == first.run

    faulty = {
        name: concat([device.faulty(kind, 100) for kind in ("level_shift", "noise_burst")] + [device.windows(150)])
        for name, device in zip(names, devices, strict=True)
    }
    write(settings.parquet.folder, faulty, 1000)
    worse = train(settings, order(settings))
    assert worse.ballot
    assert (worse.promoted, worse.ballot.won, worse.ballot.devices) == (False, False, 4)
    assert worse.ballot.challenger.detection < worse.ballot.champion.detection
    assert in_force(settings) == first.run

    registry = Registry(settings.models)
    assert [(one.number, one.aliases) for one in registry.versions()] == [(2, ("challenger",)), (1, ("champion",))]
    registry.promote(registry.version("challenger"))
    assert [(one.number, one.aliases) for one in registry.versions()] == [(2, ("champion",)), (1, ())]
    assert registry.rollback().number == 1
    with pytest.raises(InputError, match="was in force before"):
        registry.rollback()
    with pytest.raises(ConfigError, match="in force"):
        registry.delete(registry.version("champion"))
    registry.delete(registry.version("v2"))
    with pytest.raises(InputError, match="there is champion, 1"):
        registry.version("2")

    forced = train(settings, order(settings, force=True))
    assert (forced.promoted, in_force(settings)) == (True, forced.run)
    assert "forced" in forced.why
    plainly = json.loads(json.dumps(told(forced, settings.worker.fleet)))
    assert plainly["contest"]["won"] is False


def test_mlflow_tells_of_a_training(settings: Settings, tmp_path: Path) -> None:
    write(settings.parquet.folder, {"pump": Device(1, 3).windows(120), "new": Device(2, 3).windows(5)})

    trained = train(settings, order(settings))

    client = MlflowClient(settings.models.registry.get_secret_value())
    run_id = client.get_model_version_by_alias("fleet", "champion").run_id
    assert run_id
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", trained.run)
    assert (run.data.metrics["devices_trained"], run.data.metrics["devices_refused"]) == (1, 1)
    assert run.data.params["train.detector"] == "one_class_svm"
    assert run.data.tags["tidewatch.fleet"] == trained.run
    assert len(client.get_metric_history(run_id, "devices_done")) == 2
    kept = {one.path for one in client.list_artifacts(run_id)}
    assert kept == {
        "fleet",
        "results.parquet",
        "run.json",
        "requirements.txt",
        "scores.png",
        "flagged.png",
        "held_out.png",
    }
    held = Path(client.download_artifacts(run_id, "fleet", str(tmp_path)))
    assert {one.name for one in held.iterdir()} == {"MLmodel", "fleet.arrow", "typical.parquet", "input_example.json"}
    assert pack.load(held / "fleet.arrow").devices == ("pump",)
    assert [row["metric"] for row in json.loads((held / "input_example.json").read_text())] == [
        "metric0", "metric1", "metric2"
    ]  # fmt: skip


def test_a_device_without_a_new_model_keeps_the_one_it_had(settings: Settings) -> None:
    pump, gone = Device(1, 3), Device(2, 3)
    write(settings.parquet.folder, {"pump": pump.windows(120), "moved": gone.windows(120)})
    train(settings, order(settings))
    moved = gone.windows(400)
    for name in ("mean", "min", "max", "last"):
        getattr(moved, name)[:, 0] += 1000.0
    write(settings.parquet.folder, {"pump": pump.windows(400), "moved": moved}, 1000)

    again = train(settings, order(settings, force=True))

    assert (again.kept, dict(again.counts)) == (["moved"], {"trained": 1, "refused": 1})
    assert set(pack.load(settings.worker.fleet).devices) == {"pump", "moved"}


def test_a_type_without_a_new_model_lends_the_one_it_had(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = without_registry(settings)
    write(settings.parquet.folder, {f"pump-{number}": Device(number, 3).windows(120) for number in range(6)})
    first = train(settings, order(settings))
    before = pack.load(settings.worker.fleet)

    def broken(*_: object) -> None:
        raise RuntimeError("no types today")

    monkeypatch.setattr("scorers.panel.fit_type", broken)
    again = train(settings, order(settings, force=True))
    after = pack.load(settings.worker.fleet)

    assert (first.kept_types, again.kept_types, [of.status for of in again.types]) == ((), ("pump",), ["failed"])
    assert (after.version, after.rule, after.types) == (again.run, before.rule, ("pump",))
    windows = Device(9, 3).windows(5)
    scores = [one.score(one.assign(["pump-new"]).repeat(5), windows).score for one in (before, after)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert told(again, settings.worker.fleet)["types"][0]["kept"] is True


def test_the_champion_is_read_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = without_registry(settings)
    write(settings.parquet.folder, {"pump": Device(1, 3).windows(120)})
    train(settings, order(settings))
    read: list[Path] = []
    whole = pack.load

    def counted(path: Path) -> Fleet:
        read.append(path)
        return whole(path)

    monkeypatch.setattr(pack, "load", counted)
    train(settings, order(settings))

    assert read.count(settings.worker.fleet) == 1


def test_a_training_that_was_cut_off_is_gone_on_with(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"pump-{number}" for number in range(9)]
    write(settings.parquet.folder, {name: Device(number, 3).windows(80) for number, name in enumerate(names)})
    monkeypatch.setattr("scorers.source.TASK_ROWS", 500)
    kept = Run.keep
    trained: list[str] = []

    def keep(run: Any, outcomes: Any) -> None:
        if len(trained) >= 4:
            raise KeyboardInterrupt
        kept(run, outcomes)
        trained.extend(result.device for result, _ in outcomes)

    monkeypatch.setattr(Run, "keep", keep)
    with pytest.raises(KeyboardInterrupt):
        train(settings, order(settings))
    before = list(trained)

    def goes_on(run: Any, outcomes: Any) -> None:
        kept(run, outcomes)
        trained.extend(result.device for result, _ in outcomes)

    monkeypatch.setattr(Run, "keep", goes_on)

    found = train(settings, order(settings))

    assert 4 <= len(before) < 9
    assert sorted(trained) == names
    assert found.results["device"].to_pylist() == names
    assert not list((settings.models.folder / "runs").iterdir())


def test_a_training_that_is_killed_is_gone_on_with(settings: Settings) -> None:
    killed_and_gone_on_with(settings, "--workers", "2")


def killed_and_gone_on_with(settings: Settings, *words: str) -> None:
    """A training that is killed when some devices are done, and the same command again."""
    names = [f"pump-{number:03d}" for number in range(300)]
    windows = Device(1, 3).windows(400)
    write(settings.parquet.folder, dict.fromkeys(names, windows))
    flags = [f"--set={name}={value}" for name, value in _plainly(settings).items()]
    command = [sys.executable, "-m", "tidewatch", *flags, "train", *words, "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as first:
        deadline = time.monotonic() + 120
        while not list(settings.models.folder.glob("runs/*/tasks/*.parquet")):
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(first.pid, signal.SIGKILL)
    lots = list(settings.models.folder.glob("runs/*/tasks/*.parquet"))
    done = {name for lot in lots for name in pq.read_table(lot)["device"].to_pylist()}
    assert not settings.worker.fleet.exists()

    second = subprocess.run(command, capture_output=True, text=True, check=True)

    assert f"{len(done)} devices are done" in second.stderr
    rows = json.loads(second.stdout)["results"]
    assert [row["device"] for row in rows] == names
    began = max(row["started"] for row in rows if row["device"] in done)
    assert all(row["started"] > began for row in rows if row["device"] not in done)
    assert len(pack.load(settings.worker.fleet)) == 300


def _plainly(settings: Settings) -> dict[str, Any]:
    """What the settings of these tests have of their own."""
    return {
        "models.registry": settings.models.registry.get_secret_value(),
        "models.folder": settings.models.folder,
        "worker.fleet": settings.worker.fleet,
        "parquet.folder": settings.parquet.folder,
        "spark.master": settings.spark.master,
        "spark.log": settings.spark.log,
    }


def test_a_run_with_other_data_is_not_gone_on_with(settings: Settings) -> None:
    write(settings.parquet.folder, {"pump": Device(1, 3).windows(20)})
    settings.models.folder.mkdir()
    (settings.models.folder / "runs" / "mine").mkdir(parents=True)
    facts = {"started": 0, "source": "elsewhere", "asked": {}, "plan": {}, "engine": "local"}
    (settings.models.folder / "runs" / "mine" / "run.json").write_text(json.dumps(facts))

    with pytest.raises(ConfigError, match="begun with another source"):
        train(settings, order(settings, name="mine"))
    with pytest.raises(ConfigError, match="cannot be named"):
        train(settings, order(settings, name="../mine"))


def test_nothing_to_train_on_says_why(settings: Settings) -> None:
    write(settings.parquet.folder, {"pump": Device(1, 3).windows(20)})

    with pytest.raises(ModelError, match="mostly because 20 windows are too few"):
        train(settings, order(settings))
    assert not list((settings.models.folder / "runs").iterdir())


def test_without_a_registry_the_file_is_all_there_is(settings: Settings) -> None:
    plain = without_registry(settings)
    write(settings.parquet.folder, {"pump": Device(1, 3).windows(120)})

    trained = train(plain, order(plain))

    assert (trained.version, in_force(plain)) == (None, trained.run)


def test_known_faults_are_not_trained_on(settings: Settings) -> None:
    device = Device(1, 3)
    write(settings.parquet.folder, {"pump": concat([device.windows(120), device.faulty("noise_burst", 80)])})
    spans = ((START + 120 * STEP_MS, START + 200 * STEP_MS),)

    told_so = train(settings, order(settings, labels={"pump": spans}))

    assert told_so.results["windows"].to_pylist() == [120]


def test_a_registry_that_is_away_is_told_of(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "torn.db").write_bytes(b"this is no database")
    away = settings.models.model_copy(update={"registry": SecretStr(f"sqlite:///{tmp_path}/torn.db")})

    with pytest.raises(UnavailableError, match=r"models\.registry"):
        Registry(away)


def test_a_follower_fetches_what_its_alias_names(settings: Settings, tmp_path: Path) -> None:
    write(settings.parquet.folder, {"pump": Device(1, 3).windows(120)})
    models = settings.models.model_copy(update={"follow": "champion"})
    target = tmp_path / "elsewhere" / "fleet.arrow"
    follower = Follower(models, target)
    follower.look()
    assert not target.exists()

    first = train(settings, order(settings))
    follower.look()
    assert pack.load(target).version == first.run

    forced = train(settings, replace(order(settings), force=True))
    follower.look()
    assert pack.load(target).version == forced.run


def test_two_versions_are_compared_on_recorded_windows(settings: Settings) -> None:
    write(settings.parquet.folder, {"pump": Device(1, 3).windows(120)})
    for _ in range(2):
        train(settings, replace(order(settings), force=True))
    models, recorded = settings.models, str(settings.parquet.folder)
    places = {"models.registry": models.registry.get_secret_value(), "models.folder": models.folder}
    flags = [word for name, value in places.items() for word in ("--set", f"{name}={value}")]
    words = ["models", "compare", "1", "2", "--statistics", recorded]
    shown, found = (CliRunner().invoke(app, [*flags, *words, *more]) for more in ((), ("--json",)))

    assert (shown.exit_code, found.exit_code) == (0, 0)
    assert "agreement 1.0000" in shown.stdout
    compared = json.loads(found.stdout)
    assert (compared["champion"]["false_alarms"], compared["devices_seen"]) == (
        compared["challenger"]["false_alarms"],
        1,
    )
    assert [one["device"] for one in compared["results"]] == ["pump"]


def test_a_fleet_that_was_tampered_with_is_not_installed(settings: Settings) -> None:
    write(settings.parquet.folder, {"pump": Device(1, 3).windows(120)})
    trained = train(settings, order(settings))
    registry = Registry(settings.models)
    (stored,) = settings.models.folder.glob("artifacts/**/fleet.arrow")
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.write_bytes(content)

    with pytest.raises(FleetFileError, match="changed after it was written"):
        registry.fetch(registry.version("champion"), settings.worker.fleet)
    assert in_force(settings) == trained.run
