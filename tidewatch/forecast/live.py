"""Settings to the specs of the live forecaster."""

from dataclasses import replace

from scorers.forecast.schema import HOUR_MS
from stream.forecast.core import LoadSpec
from stream.owners import WorkerSpec
from tidewatch import wiring
from tidewatch.groups import Settings, whole_ms
from tidewatch.spans import interval


def group(settings: Settings) -> str:
    """The consumer group of the workers that forecast, beside that of those that score."""
    return f"{settings.worker.app}-load"


def worker_spec(settings: Settings) -> WorkerSpec:
    """How a worker process runs."""
    return replace(wiring.worker_spec(settings), app=group(settings))


def load_spec(settings: Settings) -> LoadSpec:
    """How hours end."""
    load = settings.load
    return LoadSpec(
        grace_ms=whole_ms(load.grace_s),
        idle_ms=whole_ms(load.idle_s),
        alive_ms=load.alive_h * HOUR_MS,
        exclude=tuple(interval(text, "load.exclude") for text in load.exclude),
        limits=wiring.stream_spec(settings).limits,
        max_jump_ms=whole_ms(load.max_jump_s),
        app=group(settings),
    )
