"""Limits that follow, through the core: a fleet, crashes at any place, the same scores to the last bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

import numpy as np
import pytest

from scorers.fit import TrainSpec
from scorers.fleet import Fleet
from scorers.follow import FollowSpec
from scorers.train import fit_fleet
from stream.alert import AlertSpec
from stream.contracts import Topics
from stream.partition import Partition, Source, StreamSpec
from stream.readings import READINGS
from stream.records import Records
from stream.window import WindowSpec
from tests.lives import committed
from tests.simulator import READINGS as EACH
from tests.simulator import Device, summarise

TRAINED, LIVE, START = 200, 150, 1_700_000_000_000
SPEC = StreamSpec(
    window=WindowSpec(EACH * 1000, EACH * 1000, 0, 60_000),
    alert=AlertSpec(),
    follow=FollowSpec(warmup=30),
)
DEVICES = ("a", "b", "c")


@pytest.fixture(scope="module")
def fleet_and_log() -> tuple[Fleet, Records]:
    """Models of three devices, and what they send after that."""
    devices = {name: Device(seed) for seed, name in enumerate(DEVICES)}
    models = fit_fleet({name: summarise(device.readings(TRAINED)) for name, device in devices.items()}, TrainSpec())
    values = []
    for name, device in devices.items():
        readings = device.readings(LIVE)
        readings[-300:-60] += 1.5 * device.spread  # a shift that training's limit may not know from a busy day
        for second, row in enumerate(readings):
            metrics = {f"metric{number}": float(value) for number, value in enumerate(row)}
            values.append((second, json.dumps({"device_id": name, "ts": START + second * 1000, "values": metrics})))
    values.sort(key=lambda value: value[0])
    count = len(values)
    stamps = np.array([START + second * 1000 for second, _ in values])
    log = Records(
        "readings", 0, np.arange(count), stamps, [None] * count, [text.encode() for _, text in values], [()] * count
    )
    return Fleet.of(models.models, "v1"), log


def live(fleet: Fleet, log: Records, fates: Iterator[str]) -> list[bytes]:
    """Every message of a life with crashes and commits."""

    def born() -> Partition:
        partition = Partition(Source("readings", READINGS), 0, SPEC, Topics())
        partition.use(fleet)
        return partition

    random = Random(3)
    return [message.value for message in committed(born, log, iter(lambda: random.randint(1, 400), 0), fates)]


def test_limits_that_follow_survive_any_crash_to_the_last_bit(fleet_and_log: tuple[Fleet, Records]) -> None:
    fleet, log = fleet_and_log
    random = Random(5)
    calm = live(fleet, log, iter(lambda: "commit", ""))
    harmed = live(fleet, log, iter(lambda: random.choice(["commit", "crash", "on"]), ""))

    assert sorted(harmed) == sorted(calm)


def test_an_alert_is_called_by_what_was_wrong_whatever_crashes(fleet_and_log: tuple[Fleet, Records]) -> None:
    fleet, log = fleet_and_log
    random = Random(7)
    harmed = [json.loads(text) for text in live(fleet, log, iter(lambda: random.choice(["commit", "crash", "on"]), ""))]
    shift = START + (LIVE - 30) * EACH * 1000
    alerts = [record for record in harmed if "alert_id" in record and record["at"] > shift]

    assert {alert["behaviour"] for alert in alerts} <= {"level", "broken_correlation"}
    assert all(alert["metric"] for alert in alerts)
    assert {alert["state"] for alert in alerts} == {"firing", "resolved"}


def test_limits_follow_in_the_stream(fleet_and_log: tuple[Fleet, Records]) -> None:
    fleet, log = fleet_and_log
    records = [json.loads(value) for value in live(fleet, log, iter(lambda: "commit", ""))]
    scores = [record for record in records if "window_start" in record]
    shift = START + (LIVE - 30) * EACH * 1000
    late = [score for score in scores if score["window_start"] > shift]
    early = [score for score in scores if score["window_end"] <= shift]
    past = [score for score in early if score["anomaly"]]

    assert len(late) + len(early) > len(DEVICES) * (LIVE - 5)
    assert np.mean([score["anomaly"] for score in late]) > 0.5
    assert len(past) < 0.03 * len(early)
