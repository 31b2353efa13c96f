"""The way out of every producer: batches to Kafka, paced, with every delivery accounted for."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message

from producers.batch import Batch, Ints
from scorers.errors import ConfigError, UnavailableError
from stream.contracts import Acceptance, Fault
from stream.kafka import Broker, producer, unreachable
from stream.records import ACCEPTANCE, PUNCTUATION

CHUNK = 2_000
"""Records between two looks at delivery reports and at ``stop``."""
NAP = 0.02
"""Seconds between two looks while ahead of the pace or while the queue is full."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where records go; ``truth`` (a topic) and ``truth_file`` receive the faults.

    A record still undelivered after ``timeout_ms``, retries included, is a failure.
    """

    broker: Broker
    topic: str
    truth: str | None = None
    truth_file: Path | None = None
    timeout_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast: at most ``rate`` records a second, and event time at ``speed`` times real time; None is no limit."""

    rate: float | None = None
    speed: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("rate", self.rate), ("speed", self.speed)):
            if value is not None and not 0 < value < np.inf:
                raise ConfigError(f"{name} is {value}; give a number above 0, or leave it out for no limit.")

    def due(self, ts: Ints, *, elapsed: float, sent: int, origin: int) -> int:
        """How many leading records of a batch may have left after ``elapsed`` seconds.

        ``sent`` records left before this batch; ``origin`` is the event time at which publishing began.
        """
        allowed = len(ts)
        if self.rate is not None:
            allowed = min(allowed, int(self.rate * elapsed) - sent)
        if self.speed is not None:
            reached = origin + elapsed * 1_000 * self.speed
            allowed = min(allowed, int(np.searchsorted(np.maximum.accumulate(ts), reached, side="right")))
        return allowed


@dataclass(frozen=True, slots=True)
class Timer:
    """The clock (seconds) and the sleep that pacing uses."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class Published:
    """What was delivered: records and their bytes; ``failed`` are those Kafka refuses as too large."""

    readings: int
    bytes: int
    failed: int
    seconds: float

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.readings / self.seconds if self.seconds else 0.0


def forever() -> bool:
    """A ``stop`` that never asks to stop."""
    return False


def publish(
    batches: Iterable[Batch],
    target: Target,
    *,
    pace: Pace | None = None,
    stop: Callable[[], bool] = forever,
    timer: Timer | None = None,
) -> Published:
    """Send every batch, keyed, and wait until Kafka has acknowledged all of it.

    ``stop`` and Ctrl-C end the sending early; what was sent is still flushed and counted.

    Raises:
        UnavailableError: a delivery failed after all retries.
        ConfigError: the truth file cannot be written, or Kafka refuses the settings.
    """
    sender = _Sender(target, timer or Timer())
    try:
        with _truth_file(target.truth_file) as file, suppress(KeyboardInterrupt):
            for batch in batches:
                sender.announce(batch.faults, file)
                sender.send(batch, pace or Pace(), stop)
                if stop():
                    break
    finally:
        sender.flush()
    return sender.report()


def punctuate(target: Target, at: int) -> int:
    """Tell every partition that nothing before ``at`` (epoch ms) is still to come; the number of partitions.

    Call it after ``publish``, so that the windows of a finished recording close.

    Raises:
        UnavailableError: Kafka did not take it.
    """
    client = producer(target.broker, message_timeout_ms=target.timeout_ms)
    try:
        partitions = list(client.list_topics(target.topic, timeout=10).topics[target.topic].partitions)
    except KafkaException as error:
        raise unreachable(target.broker, error) from error
    for partition in partitions:
        client.produce(target.topic, b"", partition=partition, headers={PUNCTUATION: str(at)})
    if client.flush(target.timeout_ms / 1_000):
        raise _undelivered(target, "no acknowledgement in time")
    return len(partitions)


def accept(target: Target, said: Sequence[tuple[int, str, Acceptance]]) -> list[int]:
    """Write what an operator says of devices, (partition, device, word) each, in order; the offsets of the records.

    Raises:
        UnavailableError: Kafka did not take all of it.
    """
    client = producer(target.broker, message_timeout_ms=target.timeout_ms)
    offsets: dict[int, int] = {}
    faults: list[str] = []

    def delivered(number: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            faults.append(error.str())
        offsets[number] = message.offset() or 0

    for number, (partition, device, word) in enumerate(said):
        headers: dict[str, str | bytes | None] = {ACCEPTANCE: msgspec.json.encode(word)}
        report = partial(delivered, number)
        client.produce(target.topic, b"", device.encode(), partition=partition, headers=headers, on_delivery=report)
    if client.flush(target.timeout_ms / 1_000 + 1) or faults:
        raise _undelivered(target, faults[0] if faults else "no acknowledgement in time")
    return [offsets[number] for number in range(len(said))]


class _Sender:
    """One producer and its accounts."""

    def __init__(self, target: Target, timer: Timer) -> None:
        self.target = target
        self.timer = timer
        self.accepted = self.bytes = self.failed = 0
        self.origin: int | None = None
        self.error: str | None = None
        # Reports of success are counted by the queue running empty; only failures need Python's attention.
        self.client = producer(target.broker, message_timeout_ms=target.timeout_ms, delivery_report_only_error=True)
        self.began = timer.clock()

    def announce(self, faults: Sequence[Fault], file: IO[bytes] | None) -> None:
        """Publish the ground truth of faults that begin, before the readings that show them."""
        for fault in faults:
            record = msgspec.json.encode(fault)
            if self.target.truth is not None:
                self._produce(self.target.truth, record, fault.device_id.encode())
            if file is not None:
                file.write(record + b"\n")
                file.flush()

    def send(self, batch: Batch, pace: Pace, stop: Callable[[], bool]) -> None:
        """Send one batch as fast as the pace allows, or until asked to stop."""
        if not len(batch):
            return
        before, done = self.accepted + self.failed, 0
        self.origin = int(batch.ts[0]) if self.origin is None else self.origin
        while done < len(batch) and not stop():
            elapsed = self.timer.clock() - self.began
            due = pace.due(batch.ts, elapsed=elapsed, sent=before, origin=self.origin)
            if due <= done:
                self.timer.sleep(NAP)
            else:
                until = min(due, done + CHUNK)
                self._send_rows(batch, done, until)
                done = until
            self._check()

    def _send_rows(self, batch: Batch, low: int, high: int) -> None:
        for key, value in zip(batch.keys[low:high], batch.values[low:high], strict=True):
            if self._produce(self.target.topic, value, key):
                self.accepted += 1
                self.bytes += len(value)
            else:
                self.failed += 1

    def _produce(self, topic: str, value: bytes, key: bytes) -> bool:
        """Queue one record, waiting for room; False if Kafka will never take a record of this size."""
        while True:
            try:
                self.client.produce(topic, value, key, on_delivery=self._undelivered)
            except BufferError:
                self.client.poll(NAP)
                self._check()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    raise _undelivered(self.target, error.args[0].str()) from error
                return False
            else:
                return True

    def _undelivered(self, error: KafkaError | None, _: Message) -> None:
        """Delivery report of a record that did not make it."""
        if error is not None and self.error is None:
            self.error = error.str()

    def _check(self) -> None:
        self.client.poll(0)
        if self.error is not None:
            raise _undelivered(self.target, self.error)

    def flush(self) -> None:
        """Wait until every record is acknowledged; librdkafka gives up on one after ``timeout_ms``."""
        while self.client.flush(0.5):
            pass
        self._check()

    def report(self) -> Published:
        """The accounts, final after ``flush``."""
        return Published(self.accepted, self.bytes, self.failed, self.timer.clock() - self.began)


def _truth_file(path: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    if path is None:
        return nullcontext()
    try:
        return path.open("ab")
    except OSError as error:
        raise ConfigError(
            f"The truth file {str(path)!r} cannot be written ({error.strerror}); choose another."
        ) from error


def _undelivered(target: Target, reason: str) -> UnavailableError:
    return UnavailableError(
        f"Kafka at {target.broker.bootstrap!r} did not take records for topic {target.topic!r} ({reason});"
        " check that it runs and that the topic exists, then start again."
    )
