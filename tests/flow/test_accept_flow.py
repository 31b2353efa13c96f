"""An operator's word, through the core: shifts accepted once, in order, whatever crashes; faults on top found again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.fit import TrainSpec
from scorers.fleet import Fleet
from scorers.levels import typical
from scorers.statistics import Floats
from scorers.train import fit_fleet
from stream.alert import AlertSpec
from stream.contracts import Acceptance, Level, Reason, Topics
from stream.message import Message, singly
from stream.partition import Partition, Source, StreamSpec
from stream.readings import READINGS
from stream.records import ACCEPTANCE, Headers, Records
from stream.state import recall
from stream.window import WindowSpec
from tests.lives import committed
from tests.simulator import READINGS as EACH
from tests.simulator import Device, summarise

START = 1_700_000_000_000
SIZE = EACH * 1000
SPEC = StreamSpec(window=WindowSpec(SIZE, SIZE, 0, 60_000), alert=AlertSpec())
TOPICS = Topics()
SHIFT = 6.0
"""In spreads of a metric."""


@dataclass
class Log:
    """A partition's log, as it grows second by second."""

    values: list[bytes] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)
    second: int = 0

    def readings(self, **devices: Floats) -> None:
        """Readings of devices at the same time, shape (seconds, metrics) each."""
        for rows in zip(*devices.values(), strict=True):
            for name, row in zip(devices, rows, strict=True):
                metrics = {f"metric{number}": float(value) for number, value in enumerate(row)}
                reading = {"device_id": name, "ts": START + self.second * 1000, "values": metrics}
                self._add(name, json.dumps(reading).encode(), ())
            self.second += 1

    def say(self, device: str, word: Acceptance | bytes) -> None:
        text = word if isinstance(word, bytes) else msgspec.json.encode(word)
        self._add(device, b"", [(ACCEPTANCE, text)])

    def _add(self, key: str, value: bytes, headers: Headers) -> None:
        self.keys.append(key.encode())
        self.values.append(value)
        self.headers.append(headers)

    @property
    def records(self) -> Records:
        count = len(self.values)
        stamps = np.full(count, START + self.second * 1000)
        return Records("readings", 0, np.arange(count), stamps, [*self.keys], [*self.values], [*self.headers])


def fleet_of(devices: dict[str, Device], windows: int = 200, version: str = "v1") -> Fleet:
    statistics = {name: summarise(device.readings(windows)) for name, device in devices.items()}
    return Fleet.of(fit_fleet(statistics, TrainSpec()).models, version)


def moved(device: Device, windows: int, by: float = SHIFT) -> Floats:
    """Readings after metric 0 has shifted."""
    values = device.readings(windows)
    values[:, 0] += by * device.spread[0]
    return values


def born(fleet: Fleet) -> Partition:
    partition = Partition(Source("readings", READINGS), 0, SPEC, TOPICS)
    partition.use(fleet)
    return partition


def told(fleet: Fleet, log: Log) -> list[Message]:
    return [*singly(born(fleet).feed(log.records))]


def of(messages: list[Message], topic: str) -> list[Any]:
    return [json.loads(message.value) for message in messages if message.topic == topic]


def refusals(messages: list[Message]) -> list[tuple[str, str]]:
    heads = [dict(message.headers) for message in messages if message.topic == TOPICS.rejects]
    return [(head["tw_reason"].decode(), head["tw_detail"].decode()) for head in heads]


def remembered(partition: Partition) -> Any:
    records = [(message.key or b"", message.value) for message in partition.checkpoint()]
    return recall(partition.scope, 0, records).devices


@pytest.fixture(scope="module")
def fleet_and_log() -> tuple[Fleet, Log]:
    """Two devices whose metric 0 shifts for good; of one it is accepted, and a fault comes on top later."""
    devices = {"a": Device(1), "b": Device(2)}
    fleet = fleet_of(devices)
    a, b, log = devices["a"], devices["b"], Log()
    log.readings(a=a.readings(20), b=b.readings(20))
    log.readings(a=moved(a, 8), b=moved(b, 8))
    log.say("a", Acceptance(note="new setpoint"))
    log.readings(a=moved(a, 60), b=moved(b, 60))
    log.readings(a=moved(a, 8, 2 * SHIFT), b=moved(b, 8))
    log.readings(a=moved(a, 8), b=moved(b, 8))
    return fleet, log


def test_an_accepted_shift_resolves_the_alert_with_a_reason_and_is_calm_from_then_on(
    fleet_and_log: tuple[Fleet, Log],
) -> None:
    messages = told(*fleet_and_log)
    alerts = of(messages, TOPICS.alerts)
    mine, other = ([alert for alert in alerts if alert["device_id"] == name] for name in "ab")
    (level,) = mine[1]["accepted"]["levels"].items()

    assert [alert["state"] for alert in mine] == ["firing", "resolved", "firing", "resolved"]
    assert [alert["state"] for alert in other] == ["firing"]
    assert mine[1]["accepted"]["note"] == "new setpoint"
    assert mine[1]["at"] == mine[1]["accepted"]["at"] <= START + 28 * SIZE
    assert mine[3]["accepted"] is None
    assert level[0] == "metric0"
    spread = Device(1).spread[0]
    assert level[1]["now"] - level[1]["before"] == pytest.approx(SHIFT * spread, abs=0.4 * spread)
    # a fault of the same size on top is found as soon as the shift was
    assert mine[2]["since"] - (START + 88 * SIZE) <= SIZE
    scores = [score for score in of(messages, TOPICS.scores) if score["device_id"] == "a"]
    calm = [score for score in scores if START + 28 * SIZE <= score["window_start"] < START + 88 * SIZE]
    assert sum(score["anomaly"] for score in calm) <= 1


def test_people_read_what_was_measured_and_what_is_typical_now(fleet_and_log: tuple[Fleet, Log]) -> None:
    fleet, log = fleet_and_log
    messages = told(fleet, log)
    accepted = next(alert["accepted"] for alert in of(messages, TOPICS.alerts) if alert["accepted"])
    now = accepted["levels"]["metric0"]["now"]
    fault = [
        score
        for score in of(messages, TOPICS.scores)
        if score["device_id"] == "a" and START + 89 * SIZE <= score["window_start"] < START + 95 * SIZE
    ]

    for score in fault:
        cause = next(one for one in score["contributors"] if one["feature"] == "metric0.mean")
        assert cause["actual"] == score["metrics"]["metric0"]["mean"]
        assert cause["typical"] == pytest.approx(now)
    assert len(fault) == 6


def live(fleet: Fleet, log: Log, lengths: Iterator[int], fates: Iterator[str]) -> list[str]:
    return sorted(repr(message) for message in committed(lambda: born(fleet), log.records, lengths, fates))


@settings(max_examples=8)
@given(seed=st.integers(0, 10_000), longest=st.sampled_from([30, 100, 700]))
def test_batches_and_crashes_change_no_bit_of_it(fleet_and_log: tuple[Fleet, Log], seed: int, longest: int) -> None:
    fleet, log = fleet_and_log
    random = Random(seed)
    lengths = iter(lambda: random.randint(1, longest), 0)
    fates = iter(lambda: random.choice(["commit", "commit", "crash", "on", "on"]), "")

    assert live(fleet, log, lengths, fates) == sorted(map(repr, told(fleet, log)))


def test_without_a_shift_nothing_changes_by_a_bit(fleet_and_log: tuple[Fleet, Log]) -> None:
    """Of the device that nobody spoke of."""
    fleet, log = fleet_and_log
    silent = Log([*log.values], [*log.keys], [() for _ in log.headers], log.second)
    spoken, unspoken = ([m.value for m in told(fleet, one) if m.key == b"b"] for one in (log, silent))

    assert sorted(spoken) == sorted(value for value in unspoken if value)


@pytest.fixture
def odd() -> tuple[Fleet, Log, Device]:
    """A device whose alert is firing."""
    device = Device(4)
    fleet, log = fleet_of({"a": device}), Log()
    log.readings(a=device.readings(10))
    log.readings(a=moved(device, 6))
    return fleet, log, device


def test_a_shift_that_is_taken_back_is_odd_again(odd: tuple[Fleet, Log, Device]) -> None:
    fleet, log, device = odd
    log.say("a", Acceptance())
    log.readings(a=moved(device, 6))
    log.say("a", Acceptance(revoke=True))
    log.readings(a=moved(device, 6))
    partition = born(fleet)
    alerts = of([*singly(partition.feed(log.records))], TOPICS.alerts)

    assert [alert["state"] for alert in alerts] == ["firing", "resolved", "firing"]
    assert remembered(partition)["a"].accepted is None
    assert partition.counts["acceptances"] == 2


def test_one_metric_of_several_is_taken_back() -> None:
    device = Device(8)
    fleet, log = fleet_of({"a": device}), Log()
    two = np.array([SHIFT, -SHIFT, 0, 0, 0, 0]) * device.spread
    log.readings(a=device.readings(5))
    log.readings(a=device.readings(6) + two)
    log.say("a", Acceptance(note="both"))
    log.say("a", Acceptance(metrics=["metric1"], revoke=True))
    log.say("a", Acceptance(metrics=["metric5"], revoke=True))
    partition = born(fleet)
    messages = [*singly(partition.feed(log.records))]
    kept = remembered(partition)["a"].accepted

    assert of(messages, TOPICS.alerts)[-1]["accepted"]["levels"].keys() == {"metric0", "metric1"}
    assert (kept.levels.keys(), kept.note) == ({"metric0"}, "both")
    assert refusals(messages) == [("not_accepted", "no shift of 'metric5' is in force; those of metric0 are")]


def test_a_second_shift_is_accepted_on_top_of_the_first(odd: tuple[Fleet, Log, Device]) -> None:
    fleet, log, device = odd
    log.say("a", Acceptance())
    log.readings(a=moved(device, 6))
    log.readings(a=moved(device, 6, -SHIFT))
    log.say("a", Acceptance())
    log.readings(a=moved(device, 30, -SHIFT))
    partition = born(fleet)
    messages = [*singly(partition.feed(log.records))]
    first, second = (alert["accepted"] for alert in of(messages, TOPICS.alerts) if alert["accepted"])
    late = [score for score in of(messages, TOPICS.scores) if score["window_start"] >= START + 30 * SIZE]

    assert second["levels"]["metric0"]["before"] == first["levels"]["metric0"]["before"]
    assert (
        second["levels"]["metric0"]["now"] < second["levels"]["metric0"]["before"] < first["levels"]["metric0"]["now"]
    )
    assert not any(score["anomaly"] for score in late)


def test_given_levels_are_accepted_without_an_alert(odd: tuple[Fleet, Log, Device]) -> None:
    fleet, _, device = odd
    log = Log()
    log.readings(a=device.readings(3))
    group, model = fleet.locate(0)
    levels = dict(zip(group.metrics, typical(group, model).tolist(), strict=True))
    levels["metric0"] += SHIFT * float(device.spread[0])
    log.say("a", Acceptance(levels=levels))
    log.readings(a=moved(device, 10))
    partition = born(fleet)
    messages = [*singly(partition.feed(log.records))]

    assert of(messages, TOPICS.alerts) == []
    assert [*remembered(partition)["a"].accepted.levels] == ["metric0"]


def test_said_twice_it_is_done_once(odd: tuple[Fleet, Log, Device]) -> None:
    fleet, log, _ = odd
    log.say("a", Acceptance())
    log.say("a", Acceptance())
    messages = told(fleet, log)

    assert [alert["state"] for alert in of(messages, TOPICS.alerts)] == ["firing", "resolved"]
    assert refusals(messages) == [("not_accepted", "no alert of the device is firing")]


@pytest.mark.parametrize(
    ("device", "word", "reason", "detail"),
    [
        ("a", b"{", Reason.MALFORMED, "no use"),
        ("a", b'{"metric": ["metric0"]}', Reason.MALFORMED, "unknown field"),
        ("a", b'{"levels": {"metric0": 1e200}}', Reason.NOT_FINITE, "not finite"),
        ("a", b'{"note": "%s"}' % (b"x" * 2000), Reason.TOO_LARGE, "1000 characters"),
        ("stranger", b"{}", Reason.NOT_ACCEPTED, "no device of this name"),
        ("quiet", b"{}", Reason.NOT_ACCEPTED, "no alert"),
        ("quiet", b'{"levels": {"metric0": 1}}', Reason.NOT_ACCEPTED, "no model"),
        ("a", b'{"revoke": true}', Reason.NOT_ACCEPTED, "no shift"),
        ("a", b'{"metrics": ["metric9"]}', Reason.NOT_ACCEPTED, "metric9"),
    ],
)
def test_what_cannot_be_accepted_is_rejected_with_a_reason(
    odd: tuple[Fleet, Log, Device], device: str, word: bytes, reason: Reason, detail: str
) -> None:
    fleet, log, _ = odd
    log.readings(a=moved(Device(4), 1), quiet=Device(9).readings(1))
    log.say(device, word)
    messages = told(fleet, log)
    ((found, why),) = refusals(messages)

    assert found == reason
    assert detail in why
    assert not any(alert["accepted"] for alert in of(messages, TOPICS.alerts))


@pytest.mark.parametrize("key", [None, b"", b"\xff\xfe", b"x" * 10_000])
def test_any_key_of_a_word_is_a_device_that_is_known_or_not(odd: tuple[Fleet, Log, Device], key: bytes | None) -> None:
    fleet, log, _ = odd
    log.say("a", Acceptance())
    records = log.records
    records.keys[-1] = key  # type: ignore[index]  # a list here
    messages = [*singly(born(fleet).feed(records))]

    assert refusals(messages) == [("not_accepted", "no device of this name was ever heard in this partition")]


def test_an_alert_about_no_level_is_not_accepted() -> None:
    device = Device(6)
    fleet, log = fleet_of({"a": device}), Log()
    log.readings(a=device.readings(5))
    values = device.readings(6)
    values[:, 0] += 8 * device.spread[0] * np.resize([1, -1], len(values))
    log.readings(a=values)
    log.say("a", Acceptance())

    assert "no level has moved" in refusals(told(fleet, log))[0][1]


def test_too_early_the_level_is_not_known_yet(odd: tuple[Fleet, Log, Device]) -> None:
    fleet, _, device = odd
    log = Log()
    log.readings(a=device.readings(5))
    log.readings(a=moved(device, 2))
    hasty = Partition(Source("readings", READINGS), 0, StreamSpec(window=SPEC.window, alert=AlertSpec(1, 1, 0)), TOPICS)
    hasty.use(fleet)
    log.say("a", Acceptance())

    assert "one more window" in refusals([*singly(hasty.feed(log.records))])[0][1]


@pytest.mark.parametrize("mark", [None, b"", b"\xff", b"[]", b"null", b"{}" * 3, b'{"levels": {"metric0": "x"}}'])
def test_any_bytes_for_a_word_are_refused_and_stop_nothing(mark: bytes | None, odd: tuple[Fleet, Log, Device]) -> None:
    fleet, log, device = odd
    log.headers[-1], log.values[-1] = [(ACCEPTANCE, mark)], b""
    log.readings(a=moved(device, 3))
    messages = told(fleet, log)

    assert len(refusals(messages)) == 1
    assert len(of(messages, TOPICS.scores)) == 18


def test_a_model_that_has_learned_the_new_level_makes_the_shift_void(odd: tuple[Fleet, Log, Device]) -> None:
    fleet, log, device = odd
    log.say("a", Acceptance())
    partition = born(fleet)
    partition.feed(log.records)
    kept = remembered(partition)["a"].accepted
    learned = Fleet.of(fit_fleet({"a": summarise(moved(device, 200))}, TrainSpec()).models, "v3")
    partition.use(learned)
    gone = remembered(partition)["a"].accepted
    partition.use(fleet)
    before = log.second
    log.readings(a=moved(device, 6))
    messages = [*singly(partition.feed(log.records.since(partition.next_offset)))]

    assert kept is not None
    assert gone is None
    # void for good: the old model is odd again
    assert [s["anomaly"] for s in of(messages, TOPICS.scores) if s["window_start"] >= START + before * 1000] == [
        True
    ] * 5


def test_a_shift_survives_a_model_that_has_not_learned_it(odd: tuple[Fleet, Log, Device]) -> None:
    fleet, log, device = odd
    log.say("a", Acceptance())
    log.readings(a=moved(device, 3))
    partition = born(fleet)
    partition.feed(log.records)
    partition.use(fleet_of({"a": device}, version="v2"))
    log.readings(a=moved(device, 20))
    messages = [*singly(partition.feed(log.records.since(partition.next_offset)))]
    scores = of(messages, TOPICS.scores)

    assert {score["model_version"] for score in scores} == {"v2"}
    assert sum(score["anomaly"] for score in scores) <= 1
    assert remembered(partition)["a"].accepted.levels["metric0"] != Level(0, 0)
