"""The sinks under the settings in force: for ever, or up to what is there now."""

from collections.abc import Callable, Mapping
from enum import StrEnum

from sinks.base import Sink, Source, Tally
from sinks.parquet import ParquetSink, ParquetSpec
from sinks.redis import RedisSink, RedisSpec
from sinks.runner import RunSpec, run
from tidewatch.groups import Settings
from tidewatch.tail import ends


class Kind(StrEnum):
    """Where scores are written."""

    PARQUET = "parquet"
    REDIS = "redis"


def write(settings: Settings, kind: Kind, *, stop: Callable[[], bool]) -> Tally:
    """Write what comes until ``stop``."""
    return _run(settings, build(settings, kind), kind, stop=stop)


def write_once(settings: Settings, kind: Kind) -> Tally:
    """Write all that is there now."""
    sink = build(settings, kind)
    until = {Source(*place): end for place, end in ends(settings.kafka.broker(), sink.topics).items()}
    return _run(settings, sink, kind, until=until)


def build(settings: Settings, kind: Kind) -> Sink:
    """The sink, not yet opened."""
    topics = settings.topics.names()
    if kind is Kind.PARQUET:
        parquet = settings.parquet
        return ParquetSink(ParquetSpec(parquet.folder, parquet.max_rows, parquet.max_seconds), topics)
    kept = settings.redis_sink
    address = settings.redis.url.get_secret_value()
    return RedisSink(RedisSpec(address, prefix=kept.prefix, history=kept.history, expire_s=kept.expire_s), topics)


def _run(
    settings: Settings,
    sink: Sink,
    kind: Kind,
    *,
    until: Mapping[Source, int] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Tally:
    spec = RunSpec(group=f"{settings.worker.app}-{kind}", until=until)
    return run(sink, settings.kafka.broker(), spec, stop=stop)
