"""How long until every partition moves again once somebody who owned some has died."""

import threading
import time
from dataclasses import dataclass
from statistics import median
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException, TopicPartition

from stream.kafka import Broker, consumer

_LOOK_S = 0.1


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
        self._reader = consumer(broker, "chaos-recovery")
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
        self._reader.close()

    def lost(self, what: str, *, disturbed: bool) -> None:
        """A worker is gone, as of now."""
        self.losses.append(Loss(what, time.monotonic(), dict(self._ends), disturbed))

    def disturb(self) -> None:
        """Something else is harmed: what is not over yet measures that too."""
        for loss in self.losses:
            loss.disturbed |= loss.seconds is None

    @property
    def measuring(self) -> bool:
        """Whether a loss is not over yet that nothing else has disturbed so far."""
        return any(loss.seconds is None and not loss.disturbed for loss in self.losses)

    def measured(self) -> list[float]:
        """Seconds, shortest first; of losses that nothing else disturbed."""
        return sorted(loss.seconds for loss in self.losses if loss.seconds is not None and not loss.disturbed)

    def report(self) -> dict[str, float | int | None]:
        """The worst, the middle and how many."""
        found = self.measured()
        worst, middle = (round(max(found), 2), round(median(found), 2)) if found else (None, None)
        return {"recovery_s": worst, "recovery_median_s": middle, "recoveries": len(found)}

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_S):
            for place in self._places:
                try:
                    _, end = self._reader.get_watermark_offsets(place, timeout=1.0)
                except KafkaException:  # Kafka is away; it will be back
                    break
                self._ends[place.partition] = max(self._ends[place.partition], end)
            now = time.monotonic()
            for loss in self.losses:
                if loss.seconds is None and all(self._ends[number] > end for number, end in loss.ends.items()):
                    loss.seconds = now - loss.at
