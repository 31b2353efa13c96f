"""An operator's word on real Kafka: said during an alert, with workers killed around it, it counts once, for good."""

import json
import random
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scorers.pack import save
from stream.contracts import Topics
from stream.kafka import Broker
from tests.live.support import (
    PROJECT,
    Emitted,
    Recording,
    Sent,
    Site,
    Worker,
    drained,
    emitted,
    eventually,
    expected,
    finish,
    read,
    reading,
    send,
    trained,
)

DEVICES = Recording(seconds=0)
FLEET = trained(DEVICES)
SHIFT = 8.0
"""Of the temperature of dev-1, in its own unit and as many standard deviations."""


@pytest.fixture
def site(kafka: Broker, topics: Topics, tmp_path: Path) -> Site:
    site = Site(kafka, topics, tmp_path)
    save(FLEET, site.fleet, created=DEVICES.end)
    return site


def readings(begin: int, end: int, shift: float) -> Iterator[Sent]:
    """What all devices send from second to second, four times each."""
    chance = random.Random(begin)
    for tick in range(4 * begin, 4 * end):
        for number in range(DEVICES.devices):
            values = {"pressure": chance.gauss(3, 0.1), "temperature": chance.gauss(70, 1) + shift * (number == 1)}
            yield reading(f"dev-{number}", DEVICES.start + 250 * tick, values)


def accept(site: Site, *words: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and answers."""
    command = site.command("accept", *words, "--json")
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout or "[]")


def alerts(site: Site, device: str = "dev-1") -> list[dict[str, Any]]:
    found = [json.loads(message.value() or b"") for message in read(site.broker, [site.topics.alerts])]
    return sorted((alert for alert in found if alert["device_id"] == device), key=lambda alert: alert["at"])


def firing(site: Site) -> bool:
    return [alert["state"] for alert in alerts(site)] == ["firing"]


def late(found: list[Emitted], second: int) -> list[dict[str, Any]]:
    """Scores of dev-1's windows that begin then or later."""
    scores = [json.loads(value) for topic, key, value, _ in found if topic.endswith("scores") and key == b"dev-1"]
    return [score for score in scores if score["window_start"] >= DEVICES.start + 1000 * second]


def test_said_during_an_alert_it_outlives_a_killed_worker_and_counts_once(site: Site) -> None:
    with Worker(site) as first:
        send(site, readings(0, 20, 0.0))
        send(site, readings(20, 60, SHIFT))
        eventually(lambda: firing(site), "the shift is told", [first])
        code, (answer,) = accept(site, "dev-1", "--note", "new setpoint")
        first.end(signal.SIGKILL, 10)
    listed = accept(site, "--list")[1]
    with Worker(site) as second:
        send(site, readings(60, 120, SHIFT))
        send(site, readings(120, 150, 2 * SHIFT))
        finish(site, replace(DEVICES, seconds=150))
        eventually(lambda: drained(site, site.topics.readings), "the group is done with every reading", [second])
    found = emitted(site)
    told = alerts(site)
    level = answer["accepted"]["levels"]["temperature"]

    assert found == expected(site, FLEET)
    assert (code, answer["outcome"]) == (0, "accepted")
    assert level["now"] - level["before"] == pytest.approx(SHIFT, abs=1)
    assert [one["accepted"] for one in listed] == [answer["accepted"]]
    assert [alert["state"] for alert in told] == ["firing", "resolved", "firing"]
    assert told[1]["accepted"] == answer["accepted"]
    calm = [score for score in late(found, 65) if score["window_end"] <= DEVICES.start + 120_000]
    assert len(calm) >= 10
    assert not any(score["anomaly"] for score in calm)


def test_said_while_no_worker_runs_it_is_taken_up_by_the_next_one(site: Site) -> None:
    with Worker(site) as first:
        send(site, readings(0, 20, 0.0))
        send(site, readings(20, 60, SHIFT))
        eventually(lambda: firing(site), "the shift is told", [first])
        first.end(signal.SIGKILL, 10)
    code, (answer,) = accept(site, "dev-1", "--wait", "0")
    send(site, readings(60, 90, SHIFT))
    finish(site, replace(DEVICES, seconds=90))
    with Worker(site) as second:
        eventually(lambda: drained(site, site.topics.readings), "the group is done with every reading", [second])

    assert (code, answer["outcome"]) == (4, "pending")
    assert emitted(site) == expected(site, FLEET)
    assert [alert["state"] for alert in alerts(site)] == ["firing", "resolved"]
    assert alerts(site)[1]["accepted"]["levels"].keys() == {"temperature"}
