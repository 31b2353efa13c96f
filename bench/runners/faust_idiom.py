"""Faust by its own examples: a windowed table, one event at a time; stopped after a minute, for it is slow."""

import sys

from bench.arena import Arena
from bench.environments import job
from bench.runners.base import Runner


def _command(arena: Arena) -> list[str]:
    return [sys.executable, "-m", "bench.peers.faust_idiom", job(arena)]


RUNNER = Runner("faust", "Faust idiom", _command, begins="reading begins", patience_s=60.0)
