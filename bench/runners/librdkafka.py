"""The ceiling: librdkafka hands over the values of every reading, and nothing is done with them."""

import sys

from bench.arena import Arena
from bench.peers.librdkafka import BEGINS, ENDS
from bench.runners.base import Runner


def _command(arena: Arena) -> list[str]:
    return [sys.executable, "-m", "bench.peers.librdkafka", arena.broker.bootstrap, arena.source]


RUNNER = Runner("librdkafka", "bare librdkafka", _command, BEGINS, ENDS)
