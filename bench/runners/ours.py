"""Tidewatch: one worker process as anybody would start it, exactly-once on, scoring by a trained fleet."""

import uuid

from bench.arena import PARTITIONS, Arena
from bench.runners.base import Runner


def _module(arena: Arena) -> list[str]:
    settings = {
        "topics.prefix": arena.prefix,
        "topics.partitions": PARTITIONS,
        "worker.app": f"bench-{uuid.uuid4().hex[:8]}",
        "worker.fleet": arena.fleet,
    }
    flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return ["tidewatch", "--kafka", arena.broker.bootstrap, *flags, "worker", "--log", "INFO"]


RUNNER = Runner("ours", "Tidewatch", _module, begins="took over")
