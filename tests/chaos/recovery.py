"""How long until every partition moves again once somebody who owned some has died."""

import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from statistics import median
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaException, TopicPartition

from stream.kafka import Broker, consumer

_LOOK_S = 0.1
_PEACE_S = 40.0


@dataclass(slots=True)
class Loss:
    """A worker gone, and how far each partition's scores had come then."""

    what: str
    at: float
    ends: dict[int, int]
    disturbed: bool
    """Whether something else that workers need was harmed meanwhile."""
    seconds: float | None = None


class Recovery:
    """Watches the committed ends of the scores topic from a thread of its own."""

    def __init__(self, broker: Broker, topic: str, partitions: int) -> None:
        self.losses: list[Loss] = []
        self._places = [TopicPartition(topic, number) for number in range(partitions)]
        self._broker = broker
        self._ends = dict.fromkeys(range(partitions), 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="recovery")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def lost(self, what: str, *, disturbed: bool) -> None:
        """A worker is gone, as of now."""
        self.losses.append(Loss(what, time.monotonic(), dict(self._ends), disturbed))

    def disturb(self) -> None:
        """Something else is harmed: what is not over yet measures that too."""
        for loss in self.losses:
            loss.disturbed |= loss.seconds is None

    @property
    def measuring(self) -> bool:
        """Whether a loss is not over yet that nothing else has disturbed so far; for a while only."""
        since = time.monotonic() - _PEACE_S
        return any(loss.seconds is None and not loss.disturbed and loss.at > since for loss in self.losses)

    def measured(self) -> list[float]:
        """Seconds, shortest first; of losses that nothing else disturbed."""
        return sorted(loss.seconds for loss in self.losses if loss.seconds is not None and not loss.disturbed)

    def report(self) -> dict[str, float | int | None]:
        """The worst, the middle and how many."""
        found = self.measured()
        worst, middle = (round(max(found), 2), round(median(found), 2)) if found else (None, None)
        return {"recovery_s": worst, "recovery_median_s": middle, "recoveries": len(found)}

    def _watch(self) -> None:
        while not self._stop.is_set():
            # a client that has met Kafka waking up may never learn of a partition: begin with another
            with suppress(KafkaException), closing(consumer(self._broker, "chaos-recovery")) as reader:
                while not self._stop.wait(_LOOK_S):
                    self._look(reader)

    def _look(self, reader: Consumer) -> None:
        for place in self._places:
            _, end = reader.get_watermark_offsets(place, timeout=1.0)
            self._ends[place.partition] = max(self._ends[place.partition], end)
        now = time.monotonic()
        for loss in self.losses:
            if loss.seconds is None and all(self._ends[number] > end for number, end in loss.ends.items()):
                loss.seconds = now - loss.at
