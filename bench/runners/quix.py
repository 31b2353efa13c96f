"""Quix Streams: one process, in an environment of its own."""

from bench.arena import Arena
from bench.environments import job, python
from bench.runners.base import Runner


def _command(arena: Arena) -> list[str]:
    return [str(python("quix_flow")), "-m", "bench.peers.quix_flow", job(arena)]


RUNNER = Runner("quix", "Quix Streams 3.28.1", _command, begins="reading begins", patience_s=60.0)
