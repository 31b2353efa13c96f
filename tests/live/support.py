"""What live tests share: a recording, workers as processes, what the core makes of the log, what came out."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition

from producers.publish import Target, punctuate
from scorers.fit import TrainSpec
from scorers.fleet import Fleet
from scorers.train import fit_fleet
from stream.app import sources
from stream.contracts import Topics
from stream.kafka import Broker, Setting, consumer, producer
from stream.message import singly
from stream.partition import Partition, StreamSpec
from stream.records import Records
from stream.window import WindowSpec
from tests.simulator import summarise

PROJECT = Path(__file__).parents[2]
PARTITIONS = 4
WINDOW = WindowSpec(size_ms=5_000, hop_ms=5_000, grace_ms=1_000, idle_ms=60_000)
HOUR_MS = 3_600_000
PATIENCE_S = 60.0
WAKING = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
TETHER = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
"""Ends a worker with the test that started it, even where that is killed."""

Sent = tuple[bytes, bytes]
"""Key and value of a record."""
Emitted = tuple[str, bytes | None, bytes, tuple[tuple[str, bytes], ...]]
"""Topic, key, value and headers of a record that came out."""


@dataclass(frozen=True, slots=True)
class Site:
    """One installation of a test: a broker, topics nobody else uses, a folder."""

    broker: Broker
    topics: Topics
    folder: Path
    window: WindowSpec = WINDOW

    @property
    def prefix(self) -> str:
        """What its topics begin with; it names the group too."""
        return self.topics.scores.removesuffix(Topics().scores)

    @property
    def app(self) -> str:
        """The consumer group of its workers."""
        return f"{self.prefix}worker"

    @property
    def fleet(self) -> Path:
        """Where its workers look for models."""
        return self.folder / "fleet.arrow"

    def command(self, *words: str) -> list[str]:
        """``tidewatch`` with the settings of this installation."""
        settings = {
            "topics.prefix": self.prefix,
            "topics.partitions": PARTITIONS,
            "worker.app": self.app,
            "worker.fleet": self.fleet,
            "worker.epoch_s": 0.2,
            "window.size_s": self.window.size_ms / 1000,
            "window.hop_s": self.window.hop_ms / 1000,
            "window.grace_s": self.window.grace_ms / 1000,
            "window.idle_s": self.window.idle_ms / 1000,
        }
        flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        return [sys.executable, "-m", "tidewatch", "--kafka", self.broker.bootstrap, *flags, *words]


class Worker:
    """A ``tidewatch worker``, or another command, of its own process, killed at the end at the latest."""

    def __init__(self, site: Site, *flags: str, command: Sequence[str] = ("worker",)) -> None:
        self._log = site.folder / f"worker-{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*TETHER, *site.command(*command, "--log", "INFO", *flags)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=PROJECT,
                env=os.environ | {"LOG_LEVEL": "INFO"},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def end(self, how: signal.Signals, within_s: float) -> int:
        """Send a signal; the exit code."""
        self._process.send_signal(how)
        return self._process.wait(within_s)

    def freeze(self) -> None:
        """Stop it where it is, as a machine does that is out of breath."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after ``freeze``."""
        self._process.send_signal(signal.SIGCONT)

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text("utf-8", errors="replace")

    @property
    def partitions(self) -> int:
        """How many partitions it took over when it was last given any."""
        return int(([0, *re.findall(r"took over (\d+) partitions", self.log)])[-1])

    @property
    def peak_mb(self) -> float:
        """The most memory it has had, in MB (1e6 bytes)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text("ascii")
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None


def eventually(
    fact: Callable[[], bool], what: str, workers: Sequence[Worker] = (), within_s: float = PATIENCE_S
) -> None:
    """Poll until ``fact`` holds.

    Raises:
        AssertionError: it did not in time, or no worker is left; the ends of the workers' logs are told.
    """
    deadline = time.monotonic() + within_s
    while not fact():
        if time.monotonic() > deadline or (workers and not any(worker.alive for worker in workers)):
            logs = "\n".join(worker.log[-3_000:] for worker in workers)
            raise AssertionError(f"{what}: not within {within_s:g} s\n{logs}")
        time.sleep(0.05)


# --- in ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Recording:
    """Readings of a small fleet with all that goes wrong in the field, seeded; about a minute and a half long."""

    seed: int = 7
    devices: int = 12
    seconds: int = 90
    start: int = 1_700_000_000_000
    """Epoch ms."""
    sent: list[Sent] = field(init=False)

    def __post_init__(self) -> None:
        self.sent = list(self._records(random.Random(self.seed)))

    @property
    def end(self) -> int:
        """No reading is later; epoch ms."""
        return self.start + (self.seconds + 1) * 1000

    def _records(self, chance: random.Random) -> Iterator[Sent]:
        for tick in range(self.seconds * 4):
            for number in range(self.devices):
                # one device goes quiet, to be closed by the clock of its partition
                if number == 0 and tick > 40:
                    continue
                yield from self._moment(chance, f"dev-{number}", tick)

    def _moment(self, chance: random.Random, device: str, tick: int) -> Iterator[Sent]:
        ts = self.start + 250 * tick - chance.choice([0, 0, 0, 300, 900])
        values = {"pressure": chance.gauss(3, 0.1), "temperature": chance.gauss(70, 1)}
        good = reading(device, ts, values)
        yield good
        key, fate = good[0], chance.random()
        if fate < 0.005:
            yield good
        elif fate < 0.015:
            yield key, chance.choice([b"junk", b"{}", b"", good[1][:-1], b'{"device_id": 7}', b"x" * 300_000, b"[1]"])
        elif fate < 0.020:
            yield reading(device, ts - 20_000, values)
        elif fate < 0.023:
            yield reading(device, ts + HOUR_MS // 2, values)


def reading(device: str, ts: int, values: dict[str, float]) -> Sent:
    """One record of ``sensor.readings``."""
    return device.encode(), json.dumps({"device_id": device, "ts": ts, "values": values}).encode()


def send(site: Site, records: Iterable[Sent], *, topic: str | None = None, **options: Setting) -> None:
    """Produce records in order and wait until Kafka has them."""
    client = producer(site.broker, **options)
    for key, value in records:
        client.produce(topic or site.topics.readings, value, key)
        client.poll(0)
    assert client.flush(30) == 0


def trained(recording: Recording) -> Fleet:
    """Models of what every device of a recording measures."""
    values = np.random.default_rng(1).normal([3, 70], [0.1, 1], (1_200, 2))
    statistics = replace(summarise(values, 20), metrics=("pressure", "temperature"))
    devices = [f"dev-{number}" for number in range(recording.devices)]
    return Fleet.of(fit_fleet(dict.fromkeys(devices, statistics), TrainSpec()).models, "v1")


def finish(site: Site, recording: Recording) -> None:
    """Say that the recording is over."""
    punctuate(Target(site.broker, site.topics.readings), recording.end)


# --- out ---------------------------------------------------------------------------------------


def read(broker: Broker, topics: Iterable[str]) -> list[Message]:
    """Every committed record that is there now."""
    reader = consumer(broker, "tests", enable_partition_eof=True, fetch_wait_max_ms=10)
    places = [TopicPartition(topic, p, OFFSET_BEGINNING) for topic in topics for p in range(PARTITIONS)]
    reader.assign(places)
    found, ended = [], 0
    while ended < len(places):
        for message in reader.consume(2_000, 0.1):
            ended += message.error() is not None
            if message.error() is None:
                found.append(message)
    reader.close()
    return found


def emitted(site: Site) -> list[Emitted]:
    """Every score, alert and reject, sorted."""
    outputs = (site.topics.scores, site.topics.alerts, site.topics.rejects)
    return sorted(map(_emission, read(site.broker, outputs)), key=repr)


def _emission(message: Message) -> Emitted:
    headers = message.headers()
    pairs = headers.items() if isinstance(headers, dict) else headers or []
    told = tuple((name, bytes(value or b"")) for name, value in pairs if isinstance(value, bytes))
    return message.topic() or "", message.key(), message.value() or b"", told


def expected(site: Site, fleet: Fleet | None = None) -> list[Emitted]:
    """What the core, undisturbed, makes of the input topics as they are now, sorted."""
    spec = StreamSpec(window=site.window)
    found = []
    for source in sources(site.topics):
        messages = read(site.broker, [source.topic])
        for number in range(PARTITIONS):
            records = _records(source.topic, number, [m for m in messages if m.partition() == number])
            core = Partition(source, number, spec, site.topics)
            core.use(fleet or Fleet.empty())
            found += [(m.topic, m.key, m.value, tuple(m.headers)) for m in singly(core.feed(records))]
    return sorted(found, key=repr)


def _records(topic: str, number: int, messages: Sequence[Message]) -> Records:
    return Records(
        topic,
        number,
        np.array([message.offset() for message in messages], np.int64),
        np.array([message.timestamp()[1] for message in messages], np.int64),
        [message.key() for message in messages],
        [message.value() for message in messages],
        [message.headers() or () for message in messages],
    )


def drained(site: Site, topic: str) -> bool:
    """Whether the group needs no record of ``topic`` any more: every window is closed and out."""
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    with closing(consumer(site.broker, site.app)) as reader:
        try:
            committed = [place.offset for place in reader.committed(places, timeout=10)]
        except KafkaException as error:
            return _waking(error)
        return committed == [reader.get_watermark_offsets(place, timeout=10)[1] for place in places]


def _waking(error: KafkaException) -> bool:
    """False where the coordinator of a group is still waking up; anything else is raised."""
    if error.args[0].code() not in WAKING:
        raise error
    return False
