"""The load on its way into Kafka, at a steady pace, with floods and poison on demand."""

import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from confluent_kafka import Producer

from producers.publish import Target, punctuate
from stream.contracts import Topics
from stream.kafka import Broker, producer
from tests.chaos.load import TICK_MS, Load, Sent, Tick

FLOOD_TICKS = 120
POISON = 4_000


class Driver:
    """Sends ticks from a thread of its own until the block ends; then everything is flushed and ended."""

    def __init__(self, broker: Broker, load: Load, ticks_per_s: float) -> None:
        self._broker = broker
        self._topics = Topics()
        self._load = load
        self._pace = ticks_per_s
        self._client: Producer = producer(broker, message_timeout_ms=0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self._extra = 0
        self._poison = 0
        self._broken: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._broken:
            raise self._broken

    def flood(self) -> None:
        """Send a good deal more, as fast as Kafka takes it."""
        self._extra += FLOOD_TICKS

    def poison(self) -> None:
        """Send a heap of what is no reading."""
        self._poison += POISON

    def finish(self) -> None:
        """Say that it was all; windows close."""
        punctuate(Target(self._broker, self._topics.readings), self._load.end)
        punctuate(Target(self._broker, self._topics.sessions), self._load.end)

    def _run(self) -> None:
        try:
            self._drive()
        except BaseException as error:  # noqa: BLE001 - told to whoever waits for the thread
            self._broken = error

    def _drive(self) -> None:
        began, ticks = time.monotonic(), 0
        while not self._stop.is_set():
            if ticks < (time.monotonic() - began) * self._pace + self._extra:
                self._send(self._load.tick())
                ticks += 1
            else:
                self._stop.wait(0.02)
            if self._poison:
                count, self._poison = self._poison, 0
                self._produce(self._topics.readings, self._load.poison(count))
        self._produce(self._topics.readings, self._load.rest())
        while self._client.flush(1.0):
            pass

    def _send(self, tick: Tick) -> None:
        self._produce(self._topics.readings, tick.readings)
        self._produce(self._topics.sessions, tick.sessions)

    def _produce(self, topic: str, records: Iterable[Sent]) -> None:
        for key, value in records:
            while True:
                try:
                    self._client.produce(topic, value, key)
                    break
                except BufferError:
                    self._client.poll(0.1)
        self._client.poll(0)


def event_span_ms(seconds: float, ticks_per_s: float) -> int:
    """The most event time that so many seconds can bring, floods included."""
    return int(seconds * (ticks_per_s + FLOOD_TICKS) * TICK_MS)
