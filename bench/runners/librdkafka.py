"""The ceiling: librdkafka hands over the values of every reading, and nothing is done with them."""

from bench.arena import Arena
from bench.peers.librdkafka import BEGINS, ENDS
from bench.runners.base import Runner


def _module(arena: Arena) -> list[str]:
    return ["bench.peers.librdkafka", arena.broker.bootstrap, arena.topics.readings]


RUNNER = Runner("librdkafka", "bare librdkafka", _module, BEGINS, ENDS)
