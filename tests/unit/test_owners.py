"""When an epoch ends."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from faust.types import TP

from stream.app import scoring
from stream.contracts import Topics
from stream.kafka import Broker
from stream.message import Message, Output
from stream.owners import Owner, Owners, WorkerSpec
from stream.partition import StreamSpec
from stream.records import Records

PLACE = TP("sensor.readings", 0)


class Core:
    """Gives a score for every record, and an alert for those that say so."""

    reliving = False
    floor = open_windows = 0

    def __init__(self) -> None:
        self.topic, self.number = PLACE.topic, 0
        self.counts = Counter[str]()
        self.next_offset = 0

    def feed(self, records: Records) -> list[Output]:
        self.next_offset = int(records.offsets[-1]) + 1
        self.counts["alerts"] += sum(value == b"alert" for value in records.values)
        return [Message("device.scores", None, value or b"") for value in records.values]

    def checkpoint(self) -> list[Message]:
        return []


class Way:
    """Remembers what went out."""

    def __init__(self) -> None:
        self.sent: list[list[Output]] = []

    def open(self, stop: threading.Event) -> None: ...

    def send(self, outputs: Sequence[Output], _: Sequence[Output]) -> None:
        self.sent.append(list(outputs))

    def close(self) -> None: ...


def record(offset: int, value: bytes) -> Records:
    return Records(PLACE.topic, 0, np.array([offset]), np.array([0]), [None], [value], [()])


async def fed(*values: bytes, ended_s: float) -> list[list[Output]]:
    """What is out once these have been fed, so long after the last epoch ended."""
    worker = WorkerSpec(epoch_s=3_600.0)
    owners = Owners(Broker("127.0.0.1:1"), scoring(Topics(), StreamSpec()), worker)
    core: Any = Core()
    way = Way()
    now = time.monotonic()
    owner = owners._owned[PLACE] = Owner(core, way, heard=now, ended=now - ended_s)  # noqa: SLF001
    owner.told = len(values)  # progress alone ends no epoch here
    for offset, value in enumerate(values):
        await owners.feed(owners.arrive(record(offset, value)))
        if owner.commit:
            await owner.commit
    return way.sent


@pytest.fixture(autouse=True)
def _slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, the test is over before the next alert may end an epoch."""
    monkeypatch.setattr("stream.owners._ALARM_S", 600.0)


@pytest.mark.parametrize(("last", "epochs"), [(b"calm", 0), (b"alert", 1)])
def test_an_alert_does_not_wait_for_its_epoch(last: bytes, epochs: int) -> None:
    assert len(asyncio.run(fed(b"calm", last, ended_s=601))) == epochs


def test_alerts_in_a_row_share_an_epoch() -> None:
    sent = asyncio.run(fed(b"alert", b"alert", b"alert", ended_s=601))

    assert [len(epoch) for epoch in sent] == [1]


def test_nothing_is_taken_in_past_a_run_that_was_lost_on_its_way() -> None:
    way, asked = Way(), []

    async def lose_one() -> Owner:
        owners = Owners(Broker("127.0.0.1:1"), scoring(Topics(), StreamSpec()), WorkerSpec(epoch_s=3_600.0))
        owners.fenced = lambda: asked.append("rejoin")
        core: Any = Core()
        owner = owners._owned[PLACE] = Owner(core, way, heard=time.monotonic())  # noqa: SLF001
        first, _, third, fourth = [owners.arrive(record(offset, b"%d" % offset)) for offset in range(4)]
        for fetch in (first, third, fourth):
            await owners.feed(fetch)
        await owners.revoke([PLACE])
        return owner

    owner = asyncio.run(lose_one())

    assert owner.core.next_offset == 1
    assert [[message.value for message in epoch if isinstance(message, Message)] for epoch in way.sent] == [[b"0"]]
    assert asked == ["rejoin"]
