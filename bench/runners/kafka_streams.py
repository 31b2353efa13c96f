"""Kafka Streams: one thread, exactly once; it makes windows and has no models to score them."""

from bench.arena import Arena
from bench.environments import java, job
from bench.runners.base import Runner

_FLAGS = "-Xmx2g", "-XX:+UseParallelGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"


def _command(arena: Arena) -> list[str]:
    return ["java", *_FLAGS, "-cp", java("kafka_streams"), "bench.Windows", job(arena)]


RUNNER = Runner(
    "kafka_streams", "Kafka Streams 4.1.1 (windows only)", _command, begins="reading begins", scores=False
)  # fmt: skip
