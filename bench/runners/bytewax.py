"""Bytewax: one worker, in an environment of its own."""

from bench.arena import Arena
from bench.environments import job, python
from bench.runners.base import Runner


def _command(arena: Arena) -> list[str]:
    return [str(python("bytewax_flow")), "-m", "bench.peers.bytewax_flow", job(arena)]


RUNNER = Runner("bytewax", "Bytewax 0.21.1", _command, begins="reading begins")
