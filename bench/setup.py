"""The arena set up for a job, and all of it gone afterwards."""

import os
import platform
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import fleet
from bench.arena import Arena
from bench.job import Job
from bench.process import PROJECT, named
from producers.publish import Target
from scorers.errors import ConfigError
from stream.kafka import ensure_topics
from tidewatch.servers import KafkaServer
from tidewatch.settings import load

_JARS = PROJECT / "tests" / "live" / "kafka" / "target" / "jars"

console = Console(stderr=True, highlight=False)


def machine(kafka: str, load: tuple[float, ...]) -> dict[str, Any]:
    """Where it was measured; ``load`` is what the machine had to do before."""
    return {"cores": os.cpu_count(), "load": load, "python": platform.python_version(), "kafka": kafka}


@contextmanager
def arena(job: Job, *, keep: bool) -> Iterator[Arena]:
    """Everything set up and the topic loaded; with ``keep`` the folder with data and logs stays."""
    with ground(job, keep=keep) as built:
        published = job.load(Target(built.broker, built.source))
        console.print(
            f"loaded {published.readings:,} readings ({published.bytes / 2**20:,.0f} MB) in {published.seconds:.1f} s"
        )
        yield built


@contextmanager
def bare(job: Job, *, keep: bool) -> Iterator[Arena]:
    """A broker, no topics, no models."""
    with folder(keep=keep) as place, _broker(job, place) as built:
        yield built


@contextmanager
def ground(job: Job, *, keep: bool) -> Iterator[Arena]:
    """Everything set up, the topic empty."""
    with bare(job, keep=keep) as built:
        ensure_topics(built.broker, built.topics, partitions=built.partitions)
        began = time.monotonic()
        fleet.train(job, built.fleet, built.past)
        console.print(f"trained {job.devices:,} models in {time.monotonic() - began:.1f} s")
        yield built


@contextmanager
def folder(*, keep: bool) -> Iterator[Path]:
    """A folder that is gone afterwards, but for ``keep``."""
    place = Path(tempfile.mkdtemp(prefix="tidewatch-bench-"))
    try:
        yield place
    finally:
        if keep:
            console.print(f"kept {place}")
        else:
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _broker(job: Job, folder: Path) -> Iterator[Arena]:
    """The configured broker, or one of our own."""
    in_force, prefix = load(), f"bench-{uuid.uuid4().hex[:8]}."
    if in_force.configured("kafka.bootstrap"):
        broker = in_force.settings.kafka.broker()
        guest = Arena(job, broker, prefix, folder, f"Kafka at {broker.bootstrap}", None)
        try:
            yield guest
        finally:
            guest.clear(everything=True)
        return
    _resolve()
    with KafkaServer(_JARS, folder / "kafka") as server:
        yield Arena(job, server.broker, prefix, folder, f"Apache Kafka {server.version}", named("kafka.Kafka"))


def _resolve() -> None:
    done = subprocess.run([PROJECT / "scripts" / "kafka-jars"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(
            f"Kafka's jars cannot be had ({done.stderr.strip()}); install Maven, or set TIDEWATCH_KAFKA to a broker."
        )
