"""A device that comes after training: its type's model judges at once, its own after the next training."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers import naming
from scorers.fit import TrainSpec
from scorers.fleet import Fleet
from scorers.lend import fit_type
from scorers.train import fit_fleet
from stream.contracts import Topics
from stream.partition import Partition, Source, StreamSpec
from stream.readings import READINGS
from stream.records import Records
from stream.window import WindowSpec
from tests.simulator import READINGS as EACH
from tests.simulator import summarise
from tests.unit.test_lend import member

START, WINDOW = 1_700_000_000_000, EACH * 1_000
SPEC = StreamSpec(window=WindowSpec(WINDOW, WINDOW, 0, 60_000))
LIVE = 40


@pytest.fixture(scope="module")
def fleets() -> tuple[Fleet, Fleet]:
    """Before the new device is known, and after."""
    known = {f"pump-{seed}": member(seed).windows(60) for seed in range(6)}
    types = {"pump": fit_type({name: (block, np.arange(60)) for name, block in known.items()}, TrainSpec())}
    after = known | {"pump-9": summarise(member(9).readings(60))}
    return (
        Fleet.of(fit_fleet(known, TrainSpec()).models, "v1", types, naming.DEFAULT),
        Fleet.of(fit_fleet(after, TrainSpec()).models, "v2", types, naming.DEFAULT),
    )


@pytest.fixture(scope="module")
def log() -> Records:
    """A known pump, a new one, and something of no type."""
    values = []
    for name, seed in (("pump-1", 1), ("pump-9", 9), ("gate", 20)):
        for second, row in enumerate(member(seed).readings(LIVE)):
            metrics = {f"metric{number}": float(value) for number, value in enumerate(row)}
            reading = {"device_id": name, "ts": START + second * 1_000, "values": metrics}
            values.append((second, json.dumps(reading).encode()))
    values.sort(key=lambda value: value[0])
    count, stamps = len(values), np.array([START + second * 1_000 for second, _ in values])
    return Records("readings", 0, np.arange(count), stamps, [None] * count, [text for _, text in values], [()] * count)


def scores(fleets: tuple[Fleet, Fleet], log: Records, cuts: Iterable[int], swap: int) -> list[dict[str, Any]]:
    """Of a life in which batches end at ``cuts``, and the second fleet comes into force at ``swap``."""
    partition = Partition(Source("readings", READINGS), 0, SPEC, Topics())
    partition.use(fleets[0])
    found, begin = [], 0
    for end in sorted({*cuts, swap, len(log)}):
        if begin == swap:
            partition.use(fleets[1])
        found += [message for output in partition.feed(log.part(begin, end)) for message in output_messages(output)]
        begin = end
    return [record for record in map(json.loads, found) if "window_start" in record]


def output_messages(output: Any) -> list[bytes]:
    messages = [output] if hasattr(output, "value") else list(output)
    return [message.value for message in messages]


def test_a_new_device_is_judged_at_once_and_by_its_own_model_after_the_next_training(
    fleets: tuple[Fleet, Fleet], log: Records
) -> None:
    swap = len(log) // 2
    told = scores(fleets, log, [], swap)
    new = [score for score in told if score["device_id"] == "pump-9"]
    turn = [score["model"] for score in new].index("own")

    assert [score["model"] for score in new] == ["type"] * turn + ["own"] * (len(new) - turn)
    assert 0 < turn < len(new)
    assert {score["model_version"] for score in new[:turn]} == {"v1"}
    assert {score["model_version"] for score in new[turn:]} == {"v2"}
    assert [score["window_start"] for score in new] == [START + number * WINDOW for number in range(len(new))]
    assert len(new) >= LIVE - 1
    assert all(0 < score["confidence"] <= 1 for score in new)
    assert sum(score["anomaly"] for score in new) <= 1


def test_devices_with_models_and_those_of_no_type_are_as_they_were(fleets: tuple[Fleet, Fleet], log: Records) -> None:
    told = scores(fleets, log, [], len(log))

    assert {score["model"] for score in told if score["device_id"] == "pump-1"} == {"own"}
    assert {(s["state"], s["model"], s["confidence"]) for s in told if s["device_id"] == "gate"} == {
        ("learning", None, None)
    }


@given(cuts=st.lists(st.integers(1, 3 * LIVE * EACH - 1), max_size=6))
@settings(max_examples=15)
def test_any_batching_gives_a_new_device_the_same_scores(
    fleets: tuple[Fleet, Fleet], log: Records, cuts: list[int]
) -> None:
    def in_order(cuts: list[int]) -> list[str]:
        return sorted(json.dumps(score) for score in scores(fleets, log, cuts, len(log)))

    assert in_order(cuts) == in_order([])
