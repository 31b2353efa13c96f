"""Settings to the specs of the live forecaster."""

from scorers.forecast.schema import HOUR_MS
from stream.forecast.core import LoadSpec
from tidewatch.groups import Settings, whole_ms
from tidewatch.spans import interval
from tidewatch.wiring import stream_spec


def group(settings: Settings) -> str:
    """The consumer group of the workers that forecast, beside that of those that score."""
    return f"{settings.worker.app}-load"


def load_spec(settings: Settings) -> LoadSpec:
    """How hours end."""
    load = settings.load
    return LoadSpec(
        grace_ms=whole_ms(load.grace_s),
        idle_ms=whole_ms(load.idle_s),
        alive_ms=load.alive_h * HOUR_MS,
        exclude=tuple(interval(text, "load.exclude") for text in load.exclude),
        limits=stream_spec(settings).limits,
        max_jump_ms=whole_ms(load.max_jump_s),
        app=group(settings),
    )
