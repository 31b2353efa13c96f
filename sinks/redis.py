"""Scores, alerts and forecasts to Redis: the sink for whoever wants to know how things are now.

====================================  ======================================================================
``<prefix>:device:<id>``              hash: newest window and verdict (``summary.latest``); expires
``<prefix>:stats:<id>``               hash: metric to JSON of its newest window, and rolling (``summary.Metric``)
``<prefix>:history:<id>``             stream: the last windows (``summary.history``), exactly ``history`` of them
``<prefix>:forecast:<server>``        hash: newest forecast (``summary.forecast``); expires
``<prefix>:servers``                  sorted set: server by the epoch second its last forecast came
``<prefix>:oddest``                   sorted set: device by severity of its newest window; scored devices only
``<prefix>:devices``                  sorted set: device by the epoch second it was last heard of
``<prefix>:alerts:open``              hash: alert id to its JSON
``<prefix>:alerts:log``               stream: the last changes of alerts, field ``alert``
``<prefix>:alerts``                   channel: each change as it comes
``<prefix>:offsets:<topic>/<p>``      next offset of one partition
``<prefix>:origin``                   JSON: which topics of which cluster
====================================  ======================================================================

Redis must not evict keys without expiry (``maxmemory-policy`` ``noeviction`` or ``volatile-…``).
Where it has lost its data the sink begins again at the beginning of the topics.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, WatchError
from redis.retry import Retry

from scorers.errors import ConfigError, UnavailableError
from sinks import summary
from sinks.base import Batch, Origin, OvertakenError, Positions, Source, Tally
from sinks.decode import ALERTS, FORECASTS, SCORES, decode
from stream.contracts import Alert, Forecast, Score, Topics

log = logging.getLogger(__name__)

PRUNE_S = 10.0
"""So often devices that expired leave the ranking."""
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class RedisSpec:
    """Where Redis is, and what it keeps.

    A device not heard of for ``expire_s`` is forgotten. ``half_life`` counts windows: so many later
    a window weighs half as much in the rolling statistics.
    """

    url: str = field(repr=False)
    prefix: str = "tw"
    history: int = 120
    alerts: int = 10_000
    expire_s: int = 86_400
    half_life: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: a limit is not positive.
        """
        for name in ("history", "alerts", "expire_s", "half_life"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"redis_sink.{name} is {getattr(self, name)}; set it above 0.")

    def connect(self) -> "redis.Redis":
        """A client that leaves trying again to the runner.

        Raises:
            ConfigError: ``url`` is not an address of Redis.
        """
        try:
            return redis.Redis.from_url(
                self.url, retry=Retry(NoBackoff(), 0), socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
            )
        except ValueError as error:
            raise ConfigError(f"redis.url is no address of Redis ({error}); set it as redis://host:6379/0.") from error


class RedisSink:
    """Applies each slice of a batch in one transaction that also moves its partition's offset.

    The transaction holds only if the offset is still the one this sink left there, so no slice is
    ever applied twice or over a gap, whoever else writes and whatever Redis forgets.
    """

    def __init__(self, spec: RedisSpec, topics: Topics, *, client: "redis.Redis | None" = None) -> None:
        self.tally = Tally()
        self._spec = spec
        self._scores, self._alerts, self._forecasts = topics.scores, topics.alerts, topics.forecasts
        self._client: Any = client or spec.connect()  # Any: redis types every answer as maybe awaitable
        self._keep = 0.5 ** (1 / spec.half_life)
        self._positions = Positions()
        self._durable: dict[Source, int] = {}
        self._pending: list[Batch] = []
        self._origin = Origin(None, {})
        self._pruned = float("-inf")

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics of scores, of alerts and of forecasts."""
        return (self._scores, self._alerts, self._forecasts)

    def bind(self, origin: Origin) -> None:
        """Claim the prefix for ``origin``, or check that it is claimed for it; see ``Sink``."""
        self._origin = origin
        with self._redis_errors():
            self._claim()

    def resume(self, source: Source) -> int:
        """The offset that Redis holds; see ``Sink``."""
        with self._redis_errors():
            self._claim()
            offset = int(self._client.get(self._offset_key(source)) or 0)
        self._positions.offsets[source] = self._durable[source] = offset
        return offset

    def write(self, batch: Batch) -> None:
        """Keep a batch until the next flush; see ``Sink``."""
        fresh = self._positions.fresh(batch)
        if fresh:
            self._pending.append(fresh)

    def flush(self, now: float, *, force: bool = False) -> dict[Source, int]:
        """Apply everything written, and forget devices not heard of; see ``Sink``."""
        moved = {}
        with self._redis_errors():
            while self._pending:
                batch = self._pending[0]
                self._apply(batch, now)
                moved[batch.source] = self._durable[batch.source]
                del self._pending[0]
            if force or not 0 <= now - self._pruned < PRUNE_S:
                self._prune(now)
        return moved

    def release(self, source: Source) -> None:
        """Forget what was written of ``source`` and not flushed; see ``Sink``."""
        self._pending = [batch for batch in self._pending if batch.source != source]
        self._positions.offsets.pop(source, None)
        self._durable.pop(source, None)

    def close(self) -> None:
        """Forget what was not flushed, and leave Redis."""
        self._pending.clear()
        self._client.close()

    def _key(self, *names: str) -> str:
        return ":".join((self._spec.prefix, *names))

    def _offset_key(self, source: Source) -> str:
        return self._key("offsets", str(source))

    def _claim(self) -> None:
        key = self._key("origin")
        self._client.set(key, msgspec.json.encode(self._origin), nx=True)
        held = msgspec.json.decode(self._client.get(key), type=Origin)
        if self._origin.extends(held):
            self._client.set(key, msgspec.json.encode(self._origin))
        elif not held.matches(self._origin):
            raise ConfigError(
                f"Redis holds {held} under {self._spec.prefix!r}, not {self._origin}; "
                "set another redis_sink.prefix or an empty database."
            )

    def _apply(self, batch: Batch, now: float) -> None:
        """One transaction."""
        key = self._offset_key(batch.source)
        following = batch.offsets[-1] + 1
        with self._client.pipeline(transaction=True) as pipe:
            pipe.watch(key)
            if int(pipe.get(key) or 0) != self._durable[batch.source]:
                raise OvertakenError(f"Another sink moved {batch.source} in Redis, or Redis lost data; resuming there.")
            pipe.multi()
            rejects = self._stage(pipe, batch, now)
            pipe.set(key, following)
            pipe.execute()
        self._durable[batch.source] = following
        self.tally.add(len(batch), rejects)

    def _stage(self, pipe: Any, batch: Batch, now: float) -> int:
        """Queue what a batch changes; the number of rejects."""
        if batch.source.topic == self._alerts:
            alerts = decode(batch, ALERTS)
            self._stage_alerts(pipe, alerts.records)
            return len(alerts.rejects)
        if batch.source.topic == self._forecasts:
            forecasts = decode(batch, FORECASTS)
            self._stage_forecasts(pipe, forecasts.records, now)
            return len(forecasts.rejects)
        scores = decode(batch, SCORES)
        self._stage_scores(pipe, scores.records, now)
        return len(scores.rejects)

    def _stage_alerts(self, pipe: Any, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            record = msgspec.json.encode(alert)
            if alert.state == "firing":
                pipe.hset(self._key("alerts", "open"), alert.alert_id, record)
            else:
                pipe.hdel(self._key("alerts", "open"), alert.alert_id)
            pipe.xadd(self._key("alerts", "log"), {"alert": record}, maxlen=self._spec.alerts, approximate=False)
            pipe.publish(self._key("alerts"), record)

    def _stage_scores(self, pipe: Any, scores: Sequence[Score], now: float) -> None:
        windows: dict[str, list[Score]] = {}
        for score in scores:
            windows.setdefault(score.device_id, []).append(score)
        if not windows:
            return
        for (device, seen), held in zip(windows.items(), self._statistics(list(windows)), strict=True):
            self._stage_latest(pipe, self._key("device", device), seen[-1])
            self._stage_statistics(pipe, self._key("stats", device), summary.statistics(held, seen, self._keep))
            self._stage_history(pipe, self._key("history", device), seen)
        self._stage_ranking(pipe, [seen[-1] for seen in windows.values()])
        pipe.zadd(self._key("devices"), dict.fromkeys(windows, now))

    def _stage_forecasts(self, pipe: Any, forecasts: Sequence[Forecast], now: float) -> None:
        """Newest first come, newest stay: one that was issued before what is held changes nothing."""
        newest: dict[str, Forecast] = {}
        for told in forecasts:
            if told.server not in newest or told.issued >= newest[told.server].issued:
                newest[told.server] = told
        if not newest:
            return
        with self._client.pipeline(transaction=False) as reader:
            for server in newest:
                reader.hget(self._key("forecast", server), "issued")
            held = reader.execute()
        for (server, told), issued in zip(newest.items(), held, strict=True):
            if issued is None or int(issued) <= told.issued:
                pipe.hset(self._key("forecast", server), mapping=summary.forecast(told))
            pipe.expire(self._key("forecast", server), self._spec.expire_s)
        pipe.zadd(self._key("servers"), dict.fromkeys(newest, now))

    def _statistics(self, devices: Sequence[str]) -> list[dict[bytes, bytes]]:
        """What Redis holds of each device's statistics."""
        with self._client.pipeline(transaction=False) as reader:
            for device in devices:
                reader.hgetall(self._key("stats", device))
            held: list[dict[bytes, bytes]] = reader.execute()
        return held

    def _stage_latest(self, pipe: Any, key: str, score: Score) -> None:
        fields = summary.latest(score)
        absent = [name for name in summary.VERDICT if name not in fields]
        if absent:
            pipe.hdel(key, *absent)
        pipe.hset(key, mapping=fields)
        pipe.expire(key, self._spec.expire_s)

    def _stage_statistics(self, pipe: Any, key: str, metrics: dict[str, bytes]) -> None:
        if metrics:
            pipe.hset(key, mapping=metrics)
            pipe.expire(key, self._spec.expire_s)

    def _stage_history(self, pipe: Any, key: str, scores: Sequence[Score]) -> None:
        for score in scores[-self._spec.history :]:  # older ones would be trimmed at once
            pipe.xadd(key, summary.history(score), maxlen=self._spec.history, approximate=False)
        pipe.expire(key, self._spec.expire_s)

    def _stage_ranking(self, pipe: Any, newest: Sequence[Score]) -> None:
        ranked = {score.device_id: score.severity for score in newest if score.severity is not None}
        unranked = [score.device_id for score in newest if score.severity is None]
        if ranked:
            pipe.zadd(self._key("oddest"), ranked)
        if unranked:
            pipe.zrem(self._key("oddest"), *unranked)

    def _prune(self, now: float) -> None:
        """Take devices and servers out of the sets whose keys have expired."""
        self._client.zremrangebyscore(self._key("servers"), "-inf", now - self._spec.expire_s)
        gone = self._client.zrangebyscore(self._key("devices"), "-inf", now - self._spec.expire_s)
        if gone:
            with self._client.pipeline(transaction=True) as pipe:
                pipe.zrem(self._key("devices"), *gone)
                pipe.zrem(self._key("oddest"), *gone)
                pipe.execute()
        self._pruned = now

    @contextmanager
    def _redis_errors(self) -> Iterator[None]:
        try:
            yield
        except WatchError as error:
            raise OvertakenError("Another sink moved a partition in Redis meanwhile; resuming there.") from error
        except msgspec.DecodeError as error:
            raise self._foreign(error) from error
        except RedisError as error:
            if "WRONGTYPE" in str(error):
                raise self._foreign(error) from error
            raise UnavailableError(f"Redis does not answer ({error}); start it, or set TIDEWATCH_REDIS.") from error

    def _foreign(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"Keys under {self._spec.prefix!r} in Redis are not Tidewatch's ({error}); set another redis_sink.prefix."
        )
