"""Bare librdkafka consume: every value handed to Python, as the ceiling of what any client can do."""

import signal
import sys

from confluent_kafka import TopicPartition

from scorers.errors import UnavailableError
from stream.kafka import Broker, consumer
from tidewatch.settings import load
from tidewatch.tail import ends

BEGINS, ENDS = "reading", "all read"


def read(broker: Broker, topic: str) -> None:
    """Read every partition from the beginning to its end as it is now.

    Raises:
        UnavailableError: records went missing.
    """
    last = ends(broker, [topic])
    reader = consumer(broker, "bench-librdkafka")
    reader.list_topics(topic, timeout=10)  # the connection stands before the clock starts
    places = [TopicPartition(*place, 0) for place in last]
    reader.assign(places)
    print(BEGINS, flush=True)
    count, total = 0, sum(last.values())
    while count < total:
        # it waits for as many as are asked for: at the end there are fewer
        messages = reader.consume(min(10_000, total - count), 1.0)
        count += len([message.value() for message in messages])
    print(ENDS, flush=True)
    reached = {(place.topic, place.partition): place.offset for place in reader.position(places)}
    if reached != last:
        raise UnavailableError(f"librdkafka got to {reached}, not to {last}; look at the broker's log.")


if __name__ == "__main__":
    read(load({"kafka.bootstrap": sys.argv[1]}).settings.kafka.broker(), sys.argv[2])
    signal.pause()  # what it has used is read while it lives
