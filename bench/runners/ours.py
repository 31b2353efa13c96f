"""Tidewatch: one worker process as anybody would start it, scoring by a trained fleet; by default exactly once."""

import uuid
from collections.abc import Callable

from bench.arena import PARTITIONS, Arena
from bench.runners.base import Runner
from stream.outbox import Delivery


def _module(delivery: Delivery) -> Callable[[Arena], list[str]]:
    def module(arena: Arena) -> list[str]:
        settings = {
            "topics.prefix": arena.prefix,
            "topics.partitions": PARTITIONS,
            "worker.app": f"bench-{uuid.uuid4().hex[:8]}",
            "worker.fleet": arena.fleet,
            "worker.delivery": delivery,
        }
        flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        return ["tidewatch", "--kafka", arena.broker.bootstrap, *flags, "worker", "--log", "INFO"]

    return module


EXACTLY_ONCE = Runner("ours", "Tidewatch", _module(Delivery.EXACTLY_ONCE), begins="took over")
AT_LEAST_ONCE = Runner("at_least_once", "Tidewatch, at-least-once", _module(Delivery.AT_LEAST_ONCE), begins="took over")
