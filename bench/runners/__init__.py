"""Who does the job: one module a system."""

from bench.runners import bytewax, faust_idiom, kafka_streams, librdkafka, ours, quix
from bench.runners.base import Runner

RUNNERS: tuple[Runner, ...] = (
    ours.EXACTLY_ONCE,
    ours.AT_LEAST_ONCE,
    ours.TWO_WORKERS,
    librdkafka.RUNNER,
    kafka_streams.RUNNER,
    bytewax.RUNNER,
    quix.RUNNER,
    faust_idiom.RUNNER,
)
"""In the order of the table; the first is compared with each of the others."""
