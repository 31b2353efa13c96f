"""The fleet in force changes while a worker runs: every window comes out once, scored by one version or another."""

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scorers.statistics import Statistics
from stream.contracts import Score, Topics
from stream.kafka import Broker
from tests.flow.test_training import write
from tests.live.support import Recording, Site, Worker, drained, eventually, expected, finish, read, send
from tests.simulator import summarise
from tidewatch.groups import Settings
from tidewatch.registry import Registry
from tidewatch.settings import load, override
from tidewatch.training import Order, train

SWAPS = 6


@pytest.fixture
def site(kafka: Broker, topics: Topics, tmp_path: Path) -> Site:
    return Site(kafka, topics, tmp_path)


def history(recording: Recording, seed: int) -> dict[str, Statistics]:
    """Windows of what every device of a recording measures."""
    values = np.random.default_rng(seed).normal([3, 70], [0.1, 1], (4_000, 2))
    block = summarise(values, 20)
    named = Statistics(
        ("pressure", "temperature"), block.count, block.mean, block.std, block.min, block.max, block.last
    )
    return {f"dev-{number}": named for number in range(recording.devices)}


def scores(site: Site) -> list[Score]:
    return [msgspec.json.decode(one.value() or b"", type=Score) for one in read(site.broker, [site.topics.scores])]


def settings_of(site: Site) -> Settings:
    changes = {
        "models.registry": f"sqlite:///{site.folder}/mlflow.db",
        "models.folder": site.folder / "models",
        "models.follow": "champion",
        "models.follow_s": 0.2,
        "worker.fleet": site.fleet,
        "parquet.folder": site.folder / "parquet",
    }
    return override(load({}, environ={}), changes).settings


@pytest.mark.parametrize("follows", [False, True], ids=["the file", "the alias"])
def test_no_window_is_lost_or_scored_twice_across_swaps(
    site: Site, follows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording, settings = Recording(seconds=60), settings_of(site)
    order = Order(settings.parquet.folder, site.folder / "trained.arrow", workers=1, force=True)
    runs = []
    for seed in (1, 2):
        write(settings.parquet.folder, history(recording, seed), 1000 * seed)
        runs.append(train(settings, order).run)
    registry = Registry(settings.models)
    if follows:
        for name in ("follow", "follow_s"):
            monkeypatch.setenv(f"TIDEWATCH_MODELS__{name.upper()}", str(getattr(settings.models, name)))
        monkeypatch.setenv("TIDEWATCH_MODELS__REGISTRY", settings.models.registry.get_secret_value())

    def promote(number: int) -> None:
        version = registry.version(str(number % 2 + 1))
        registry.promote(version)
        if not follows:
            registry.fetch(version, site.fleet)

    promote(0)
    with Worker(site) as worker:
        for number, part in enumerate(np.array_split(np.arange(len(recording.sent)), SWAPS)):
            if number:
                promote(number)
                eventually(lambda: in_force(worker) == runs[number % 2], "the fleet in force", [worker])  # noqa: B023
            before = len(scores(site))
            send(site, [recording.sent[place] for place in part])
            eventually(lambda: len(scores(site)) > before, "windows come out", [worker])  # noqa: B023
        finish(site, recording)
        eventually(lambda: drained(site, site.topics.readings), "the group is done", [worker])
    found = scores(site)
    undisturbed = [
        msgspec.json.decode(value, type=Score) for topic, _, value, _ in expected(site) if topic == site.topics.scores
    ]

    assert sorted(map(window, found)) == sorted(map(window, undisturbed))
    assert {one.model_version for one in found} == set(runs)


def window(score: Score) -> tuple[str, int, int, int]:
    return score.device_id, score.window_start, score.window_end, score.count


def in_force(worker: Worker) -> str:
    return str(["", *re.findall(r"fleet (\S+) with \d+ devices is in force", worker.log)][-1])
