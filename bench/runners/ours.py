"""Tidewatch: one worker process as anybody would start it, scoring by a trained fleet; by default exactly once."""

import sys
import uuid
from collections.abc import Callable

from bench.arena import Arena
from bench.peers import pair
from bench.runners.base import Runner
from stream.outbox import Delivery


def _command(delivery: Delivery) -> Callable[[Arena], list[str]]:
    def command(arena: Arena) -> list[str]:
        settings = {
            "topics.prefix": arena.prefix,
            "topics.partitions": arena.partitions,
            "window.size_s": arena.window.size_ms / 1000,
            "window.hop_s": arena.window.hop_ms / 1000,
            "worker.app": f"bench-{uuid.uuid4().hex[:8]}",
            "worker.fleet": arena.fleet,
            "worker.delivery": delivery,
        }
        flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        return [sys.executable, "-m", "tidewatch", "--kafka", arena.broker.bootstrap, *flags, "worker", "--log", "INFO"]

    return command


EXACTLY_ONCE = Runner("ours", "Tidewatch", _command(Delivery.EXACTLY_ONCE), begins="took over")
AT_LEAST_ONCE = Runner(
    "at_least_once", "Tidewatch, at-least-once", _command(Delivery.AT_LEAST_ONCE), begins="took over"
)


def _twice(arena: Arena) -> list[str]:
    command = EXACTLY_ONCE.command(arena)
    return [sys.executable, "-m", "bench.peers.pair", str(arena.folder), *command]


TWO_WORKERS = Runner("two_workers", "Tidewatch, two workers", _twice, pair.BEGINS)
