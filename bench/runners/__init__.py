"""Who does the job: one module a system."""

from bench.runners import librdkafka, ours
from bench.runners.base import Runner

RUNNERS: tuple[Runner, ...] = (
    ours.EXACTLY_ONCE,
    ours.AT_LEAST_ONCE,
    ours.TWO_WORKERS,
    librdkafka.RUNNER,
)
"""In the order of the table; the first is compared with each of the others."""
