"""What ``tidewatch up`` does: a local stack, a simulated fleet, faults, and an honest account at the end."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import redis

from producers.batch import Batch
from producers.faults import KINDS
from producers.publish import Pace, Published, Target, publish, punctuate
from producers.schedule import arrivals
from producers.sensors import Fleet as Simulated
from producers.sensors import SensorFleet
from scorers.errors import ConfigError, InputError, UnavailableError
from sinks.read import dataset
from stream.contracts import Alert, Fault
from stream.decode import LATEST
from stream.kafka import Broker
from tidewatch.children import Child
from tidewatch.console import alert_line
from tidewatch.groups import Settings
from tidewatch.rejects import Reject, understand
from tidewatch.settings import InForce
from tidewatch.stack import Stack
from tidewatch.tail import drained, follow, gather
from tidewatch.training import Order, train
from tidewatch.writing import Kind, write_once

_DRAIN_S = 60.0
_PATIENCE_S = 60.0
_RESERVE_S = 15.0
"""Seconds kept at the end of a timed run for draining and counting."""
_CATCH_UP_S = 3_600.0
"""An endless run starts so far in the past that it reaches the present after this long."""
_WARM_RATE = 20_000.0
"""Readings a second; the embedded broker keeps 5 MB a partition, and must not be outrun."""
_CALM_MS = 30_000
_AHEAD_MS = 60_000
_FAULT_MS = 60_000
_JUNK = (b'{"device_id": "pump-0000", "ts": "yesterday", "values": {"flow": 1}}', b"not even JSON", b'{"ts": 1}')
_JUNK_EVERY = 4_000


@dataclass(frozen=True, slots=True)
class Scene:
    """What is simulated; event time passes ``speed`` times as fast as real time."""

    devices: int = 40
    seed: int = 0
    speed: float = 30.0
    fault_rate: float = 2.0
    """Random faults per device and hour, once live."""
    warm_windows: int = 150
    """Windows of healthy history that the models are trained on."""
    lasting_s: float | None = None
    """Real seconds until the run ends by itself, all in."""


@dataclass(slots=True)
class Demo:
    """One run; ``folder`` keeps its Parquet files, fleet and logs."""

    in_force: InForce
    stack: Stack
    scene: Scene
    folder: Path
    say: Callable[[str], None]
    stop: threading.Event
    truth: list[Fault] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        """Everything, to the account at the end.

        Raises:
            TidewatchError: a part ended or does not answer.
            KeyboardInterrupt: it was told to stop before it went live.
        """
        began = time.monotonic()
        settings = self.in_force.settings
        target = Target(self.stack.broker, settings.topics.names().readings, settings.topics.names().truth)
        with ExitStack() as running:
            children = [self._child("worker", "--report", str(self.folder / "counts.json"))]
            children += [self._child("sink", kind) for kind in Kind]
            for child in children:
                running.enter_context(child)
            simulated = self._simulate(settings)
            warm = self._warm(simulated, target)
            self._train(settings)
            live_from = simulated.now
            deadline = None if self.scene.lasting_s is None else began + self.scene.lasting_s - _RESERVE_S
            live = self._live(simulated, target, Watchman(children, self.stop, deadline))
            punctuate(target, simulated.now)
            self.say("draining and counting; Ctrl-C ends it at once")
            drained(self.stack.broker, settings.worker.app, [target.topic], within_s=_DRAIN_S)
        with ThreadPoolExecutor() as pool:  # each spends its time on joining a group
            list(pool.map(partial(write_once, settings), Kind))
        account = Account(settings, self.stack, self.truth, (live_from, simulated.now)).summary()
        readings = warm.readings + live.readings
        return {"readings": readings, **account, "seconds": round(time.monotonic() - began, 1)}

    def _child(self, *words: str) -> Child:
        return Child(self.in_force, self.folder / f"{words[0]}{words[1].replace('--', '-')}.log", *words)

    def _simulate(self, settings: Settings) -> Simulated:
        """The fleet, starting on a window's edge, so far in the past that event time never passes the present."""
        size = settings.window.size_ms
        ahead = (self.scene.lasting_s or _CATCH_UP_S) * self.scene.speed * 1000
        start = _now() - round(ahead) - self.scene.warm_windows * size
        return SensorFleet(self.scene.devices, seed=self.scene.seed, start=start // size * size).build()

    def _warm(self, simulated: Simulated, target: Target) -> Published:
        """Healthy history, as fast as the stack takes it, up to the edge of a window."""
        until = simulated.now + self.scene.warm_windows * self.in_force.settings.window.size_ms
        ticks = (until - simulated.now) // simulated.spec.interval_ms
        self.say(f"warming up: {ticks * self.scene.devices:,} readings of {self.scene.devices} devices")
        sent = publish(islice(simulated.batches(1), ticks), target, pace=Pace(rate=_WARM_RATE), stop=self.stop.is_set)
        punctuate(target, simulated.now)
        return sent

    def _train(self, settings: Settings) -> None:
        """Wait for the history in Parquet, train on it, and for the worker to take the fleet up."""
        expected = self.scene.devices * self.scene.warm_windows
        self._await(lambda: _windows(settings.parquet.folder) >= expected, "history in Parquet")
        self.say(f"training {self.scene.devices} models on {_windows(settings.parquet.folder):,} windows")
        train(settings, Order(settings.parquet.folder, settings.worker.fleet, workers=1))
        self._await(lambda: self._counts().get("models", 0) > 0, "the fleet in force")

    def _await(self, arrived: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not arrived():
            if self.stop.is_set():
                raise KeyboardInterrupt
            if time.monotonic() > deadline:
                raise UnavailableError(f"Waited {_PATIENCE_S:g} s for {what}; see the logs in {self.folder}.")
            time.sleep(0.2)

    def _counts(self) -> dict[str, int]:
        path = self.folder / "counts.json"
        return dict(msgspec.json.decode(path.read_bytes())) if path.exists() else {}

    def _live(self, simulated: Simulated, target: Target, watchman: "Watchman") -> Published:
        """Live, with faults, until told to stop; once event time has caught up it goes on at its natural pace."""
        self.say(f"live, {self.scene.speed:g} times as fast as life; alerts as they come:")
        batches = self._dirty(self._faulty(simulated))
        with Reporter(self.stack.broker, self.in_force.settings.topics.names().alerts, self.say):
            hurried = publish(_until(batches, lambda: watchman.enough() or simulated.now >= _now()), target,
                              pace=Pace(speed=self.scene.speed))  # fmt: skip
            natural = publish(_until(batches, watchman.enough), target, pace=Pace(speed=1.0))
            # half a window would look like half a device
            left = -(simulated.now - simulated.spec.start) % self.in_force.settings.window.size_ms
            edge = publish(islice(batches, left // simulated.spec.interval_ms), target)
        return replace(hurried, readings=hurried.readings + natural.readings + edge.readings)

    def _faulty(self, simulated: Simulated) -> Iterator[Batch]:
        """Live batches; random faults are scheduled a little ahead, every kind in turn, and noted as truth."""
        random = np.random.default_rng([self.scene.seed, 1])
        names, kinds = simulated.devices, cycle(random.permutation(KINDS).tolist())
        coming = arrivals(self.scene.fault_rate, len(names), start=simulated.now + _CALM_MS, random=random)
        start, device = next(coming, (LATEST, 0))
        for batch in simulated.batches(1):
            self.truth.extend(batch.faults)
            yield batch
            while start < simulated.now + _AHEAD_MS:
                fault = simulated.fault(names[device], next(kinds), start=start, duration_ms=_FAULT_MS)
                with suppress(ConfigError):  # the device has a fault at that time already
                    simulated.inject(fault)
                start, device = next(coming)

    def _dirty(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same with a bad record now and then, as real gateways send them."""
        junk, sent = cycle(_JUNK), 0
        for batch in batches:
            sent += len(batch)
            if sent >= _JUNK_EVERY:
                sent = 0
                bad = Batch([b"gateway"], [next(junk)], batch.ts[-1:])
                yield replace(batch, keys=[*batch.keys, *bad.keys], values=[*batch.values, *bad.values],
                              ts=np.append(batch.ts, bad.ts))  # fmt: skip
            else:
                yield batch


@dataclass(frozen=True, slots=True)
class Watchman:
    """Knows when it is enough: told to stop, time is up, or a child has ended."""

    children: list[Child]
    stop: threading.Event
    deadline: float | None

    def enough(self) -> bool:
        """Whether to end.

        Raises:
            UnavailableError: a child ended by itself.
        """
        for child in self.children:
            child.check()
        return self.stop.is_set() or (self.deadline is not None and time.monotonic() >= self.deadline)


class Reporter:
    """Tells alerts as they come, from a thread of its own."""

    def __init__(self, broker: Broker, topic: str, say: Callable[[str], None]) -> None:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, args=(broker, topic, say), name="alerts", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _follow(self, broker: Broker, topic: str, say: Callable[[str], None]) -> None:
        try:
            for message in follow(broker, [topic], beginning=False, stop=self._done.is_set):
                say(alert_line(msgspec.json.decode(message.value() or b"", type=Alert)))
        except UnavailableError as error:
            say(f"alerts can no longer be told: {error}")


@dataclass(frozen=True, slots=True)
class Account:
    """What came of it, counted from the outputs themselves: Parquet, Redis and topics."""

    settings: Settings
    stack: Stack
    truth: list[Fault]
    live: tuple[int, int]
    """Event time of the live part, half-open."""

    def summary(self) -> dict[str, Any]:
        """Counts, recall of the faults that had ended, and the share of healthy live windows flagged."""
        topics = self.settings.topics.names()
        alerts = [msgspec.json.decode(m.value() or b"", type=Alert) for m in gather(self.stack.broker, [topics.alerts])]
        return {
            **self._windows(),
            "alerts": sum(alert.state == "firing" for alert in alerts),
            "rejects": sum(
                isinstance(understand(message), Reject) for message in gather(self.stack.broker, [topics.rejects])
            ),
            "redis_keys": self._redis_keys(),
            "fault_recall": self._recall(alerts),
            "faults": len(self.ended),
            "kinds": self._by_kind(alerts),
        }

    @property
    def ended(self) -> list[Fault]:
        """The faults that were over, and whose windows had closed, when the run ended."""
        return [fault for fault in self.truth if fault.end + self.settings.window.size_ms <= self.live[1]]

    def _windows(self) -> dict[str, Any]:
        """Counts from Parquet; a window is healthy that touches no fault of its device."""
        folder = self.settings.parquet.folder
        with duckdb.connect() as database:
            database.register("predictions", dataset(folder, "predictions"))
            database.register("statistics", dataset(folder, "statistics"))
            database.execute("CREATE TABLE faults (device_id VARCHAR, since BIGINT, until BIGINT)")
            if self.truth:
                database.executemany(
                    "INSERT INTO faults VALUES (?, ?, ?)", [(f.device_id, f.start, f.end) for f in self.truth]
                )
            (counts,) = database.execute(_COUNTS).fetchall()
            (healthy,) = database.execute(_HEALTHY, {"live": self.live[0]}).fetchall()
        windows, scores, anomalies, rows = counts
        rate = healthy[1] / healthy[0] if healthy[0] else 0.0
        names = ("windows", "scores", "anomalies", "parquet_rows", "healthy_windows", "false_alarm_rate")
        return dict(zip(names, (windows, scores, anomalies, rows, healthy[0], rate), strict=True))

    def _raised(self, fault: Fault, alerts: list[Alert]) -> bool:
        late = 2 * self.settings.window.size_ms
        return any(
            alert.device_id == fault.device_id and alert.at > fault.start and alert.since < fault.end + late
            for alert in alerts
        )

    def _recall(self, alerts: list[Alert]) -> float:
        found = sum(self._raised(fault, alerts) for fault in self.ended)
        return found / len(self.ended) if self.ended else 0.0

    def _by_kind(self, alerts: list[Alert]) -> dict[str, str]:
        kinds = sorted({fault.kind for fault in self.ended})
        faults = {kind: [fault for fault in self.ended if fault.kind == kind] for kind in kinds}
        return {kind: f"{sum(self._raised(f, alerts) for f in of)}/{len(of)}" for kind, of in faults.items()}

    def _redis_keys(self) -> int:
        with redis.Redis.from_url(self.stack.redis_url, socket_timeout=10) as client:
            return sum(1 for _ in client.scan_iter(f"{self.settings.redis_sink.prefix}:*", count=1_000))


_COUNTS = """
SELECT count(*), count(*) FILTER (state = 'scored'), count(*) FILTER (anomaly),
    count(*) + (SELECT count(*) FROM statistics)
FROM predictions
"""
_HEALTHY = """
SELECT count(*), count(*) FILTER (anomaly)
FROM predictions p
WHERE state = 'scored' AND epoch_ms(window_start) >= $live AND NOT EXISTS (
    FROM faults f WHERE f.device_id = p.device_id AND f.since < epoch_ms(p.window_end)
        AND f.until > epoch_ms(p.window_start)
)
"""


def _now() -> int:
    return time.time_ns() // 1_000_000


def _until(batches: Iterator[Batch], over: Callable[[], bool]) -> Iterator[Batch]:
    """Batches, each of them whole, until it is over."""
    while not over():
        yield next(batches)


def _windows(folder: Path) -> int:
    """How many windows Parquet holds."""
    try:
        return int(dataset(folder, "predictions").count_rows())
    except (InputError, FileNotFoundError):  # no file yet, or one was just replaced
        return 0
