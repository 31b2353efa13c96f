"""Redis shows how things are now, and moves only forward."""

import json
from dataclasses import replace
from typing import Any

import fakeredis
import msgspec
import numpy as np
import pytest
import redis

from scorers.errors import ConfigError, UnavailableError
from sinks.base import Batch, Origin, OvertakenError, Source
from sinks.redis import RedisSink, RedisSpec
from sinks.summary import Rolling
from stream.contracts import Alert, Forecast, MetricStatistics, Score
from tests.laws.sink_kit import HOUR, NOON, NOW, ORIGIN, TOPICS, alert, encoded, forecast, score

SCORES = Source(TOPICS.scores, 3)
ALERTS = Source(TOPICS.alerts, 0)
FORECASTS = Source(TOPICS.forecasts, 1)
SPEC = RedisSpec("redis://", history=3, alerts=3, expire_s=60)


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def client(server: fakeredis.FakeServer) -> "redis.Redis":
    return fakeredis.FakeRedis(server=server, decode_responses=True)


def started(server: fakeredis.FakeServer, spec: RedisSpec = SPEC) -> RedisSink:
    sink = RedisSink(spec, TOPICS, client=fakeredis.FakeRedis(server=server))
    sink.bind(ORIGIN)
    sink.resume(SCORES)
    sink.resume(ALERTS)
    sink.resume(FORECASTS)
    return sink


def put(sink: RedisSink, source: Source, first: int, *records: Score | Alert | Forecast, now: float = NOW) -> None:
    """Write and flush records at offsets from ``first``."""
    sink.write(Batch(source, range(first, first + len(records)), encoded(records)))
    sink.flush(now)


def test_a_device_has_its_newest_window(server: fakeredis.FakeServer, client: Any) -> None:
    put(started(server), SCORES, 0, score(hour=0), score(hour=1, value=2.5))
    device = client.hgetall("tw:device:pump-1")
    contributors = msgspec.json.decode(device.pop("contributors"))

    assert device == {
        "source": "sensors",
        "window_start": str(NOON + HOUR),
        "window_end": str(NOON + 2 * HOUR),
        "count": "61",
        "state": "scored",
        "decision": "-2.5",
        "score": "52.5",
        "severity": "2.5",
        "anomaly": "1",
        "model_version": "v1",
        "model": "type",
        "confidence": "0.75",
    }
    assert contributors[0] == {"feature": "temperature.mean", "share": 0.75, "actual": 2.5, "typical": 1.0}


def test_what_is_null_now_does_not_stay(server: fakeredis.FakeServer, client: Any) -> None:
    sink = started(server)
    put(sink, SCORES, 0, score())
    put(sink, SCORES, 1, score(scored=False))

    assert not {"decision", "score", "severity", "model_version"} & set(client.hkeys("tw:device:pump-1"))
    assert client.zrange("tw:oddest", 0, -1) == []


def test_statistics_are_of_the_newest_window_and_rolling(server: fakeredis.FakeServer, client: Any) -> None:
    put(started(server), SCORES, 0, score(value=1.0), score(value=4.0))
    stats = {name: json.loads(value) for name, value in client.hgetall("tw:stats:pump-1").items()}

    assert stats["temperature"]["latest"] == {
        "count": 60, "mean": 4.0, "std": 4.1, "min": 3.0, "max": 5.0, "last": 4.0,
    }  # fmt: skip
    assert (stats["load"]["latest"]["std"], stats["load"]["latest"]["sum"]) == (None, 7.5)
    assert 1.0 < stats["temperature"]["rolling"]["mean"] < 4.0
    assert stats["temperature"]["rolling"]["count"] == 60 + 60 * 0.5 ** (1 / 30)


def test_a_metric_gone_from_the_newest_window_keeps_its_rolling_statistics(
    server: fakeredis.FakeServer, client: Any
) -> None:
    less = msgspec.structs.replace(score(), metrics={"load": score().metrics["load"]})
    put(started(server), SCORES, 0, score(), less)
    stats = json.loads(client.hget("tw:stats:pump-1", "temperature"))

    assert list(stats) == ["rolling"]
    assert stats["rolling"]["count"] == 60


def test_history_holds_exactly_the_last_windows(server: fakeredis.FakeServer, client: Any) -> None:
    sink = started(server)
    put(sink, SCORES, 0, *[score(hour=hour) for hour in range(5)])
    put(sink, SCORES, 5, score(hour=5))
    points = [fields for _, fields in client.xrange("tw:history:pump-1")]

    assert [int(point["window_start"]) for point in points] == [NOON + hour * HOUR for hour in (3, 4, 5)]
    assert msgspec.json.decode(points[0]["means"]) == {"temperature": 1.5, "load": 0.5}


def test_the_oddest_are_ranked_by_severity(server: fakeredis.FakeServer, client: Any) -> None:
    put(started(server), SCORES, 0, score("a", value=2.0), score("b", value=9.0), score("a", value=5.0))

    assert client.zrevrange("tw:oddest", 0, -1, withscores=True) == [("b", 9.0), ("a", 5.0)]


def test_a_silent_device_leaves_the_ranking(server: fakeredis.FakeServer, client: Any) -> None:
    sink = started(server)
    put(sink, SCORES, 0, score("silent"), score("lively"))
    put(sink, SCORES, 2, score("lively"), now=NOW + 61)

    assert client.zrange("tw:oddest", 0, -1) == client.zrange("tw:devices", 0, -1) == ["lively"]


def test_devices_are_forgotten_even_while_nothing_comes(server: fakeredis.FakeServer, client: Any) -> None:
    sink = started(server)
    put(sink, SCORES, 0, score())
    sink.flush(NOW + 61)

    assert client.exists("tw:oddest", "tw:devices") == 0


def test_the_keys_of_a_device_expire(server: fakeredis.FakeServer, client: Any) -> None:
    put(started(server), SCORES, 0, score())
    lifetimes = {kind: client.ttl(f"tw:{kind}:pump-1") for kind in ("device", "stats", "history")}

    assert lifetimes == pytest.approx({"device": 60, "stats": 60, "history": 60}, abs=2)


def test_alerts_are_open_until_resolved(server: fakeredis.FakeServer, client: Any) -> None:
    sink = started(server)
    put(sink, ALERTS, 0, alert(1, "firing"), alert(2, "firing"))
    put(sink, ALERTS, 2, alert(1, "resolved"))

    assert list(client.hgetall("tw:alerts:open")) == ["alert-2"]
    assert msgspec.json.decode(client.hget("tw:alerts:open", "alert-2"), type=Alert) == alert(2, "firing")


def test_the_log_of_alerts_holds_exactly_the_last_changes(server: fakeredis.FakeServer, client: Any) -> None:
    put(started(server), ALERTS, 0, *[alert(number, "firing") for number in range(5)])
    logged = [msgspec.json.decode(fields["alert"]) for _, fields in client.xrange("tw:alerts:log")]

    assert [change["alert_id"] for change in logged] == ["alert-2", "alert-3", "alert-4"]


def test_alerts_are_published_once_each(server: fakeredis.FakeServer, client: Any) -> None:
    listener = client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe("tw:alerts")
    listener.get_message(timeout=1)
    put(started(server), ALERTS, 0, alert(1, "firing"))
    put(started(server), ALERTS, 0, alert(1, "firing"), alert(1, "resolved"))
    heard = [message["data"] for message in iter(lambda: listener.get_message(timeout=0.1), None)]
    listener.close()

    assert [msgspec.json.decode(data)["state"] for data in heard] == ["firing", "resolved"]


def test_a_zombie_changes_nothing(server: fakeredis.FakeServer, client: Any) -> None:
    zombie, owner = started(server), started(server)
    put(owner, SCORES, 0, score(hour=0), score(hour=1))
    before = client.hgetall("tw:device:pump-1")

    with pytest.raises(OvertakenError, match=r"moved device\.scores/3"):
        put(zombie, SCORES, 0, score(hour=0))

    assert client.hgetall("tw:device:pump-1") == before
    assert client.get("tw:offsets:device.scores/3") == "2"


class Rival(fakeredis.FakeRedis):
    """A client during whose first reading of statistics another sink applies a record."""

    rival: RedisSink | None = None

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        if not transaction and self.rival:
            rival, self.rival = self.rival, None
            put(rival, SCORES, 0, score(hour=7))
        return super().pipeline(transaction, shard_hint)


def test_two_owners_at_once_apply_a_record_once(server: fakeredis.FakeServer, client: Any) -> None:
    rival = started(server)
    connection = Rival(server=server)
    sink = RedisSink(SPEC, TOPICS, client=connection)
    sink.bind(ORIGIN)
    sink.resume(SCORES)
    connection.rival = rival

    with pytest.raises(OvertakenError, match="meanwhile"):
        put(sink, SCORES, 0, score(hour=7))

    assert len(client.xrange("tw:history:pump-1")) == 1


def test_a_redis_that_lost_its_data_is_filled_again(server: fakeredis.FakeServer, client: Any) -> None:
    sink = started(server)
    put(sink, SCORES, 0, score(hour=0))
    client.flushall()

    with pytest.raises(OvertakenError, match="lost data"):
        put(sink, SCORES, 1, score(hour=1))

    sink.release(SCORES)

    assert sink.resume(SCORES) == 0
    put(sink, SCORES, 0, score(hour=0), score(hour=1))
    assert len(client.xrange("tw:history:pump-1")) == 2


def test_a_redis_that_vanishes_loses_nothing(server: fakeredis.FakeServer, client: Any) -> None:
    sink = started(server)
    sink.write(Batch(SCORES, [0], encoded([score()])))
    server.connected = False

    with pytest.raises(UnavailableError, match="TIDEWATCH_REDIS"):
        sink.flush(NOW)

    sink.release(SCORES)
    server.connected = True

    assert sink.resume(SCORES) == 0
    put(sink, SCORES, 0, score())
    assert client.exists("tw:device:pump-1")


def test_a_prefix_of_another_origin_is_refused(server: fakeredis.FakeServer) -> None:
    started(server)
    other = RedisSink(SPEC, TOPICS, client=fakeredis.FakeRedis(server=server))

    with pytest.raises(ConfigError, match=r"holds .* of cluster cluster-1.*set another redis_sink\.prefix"):
        other.bind(Origin("cluster-2", ORIGIN.topics))


@pytest.mark.parametrize("key", ["tw:origin", "tw:history:pump-1", "tw:stats:pump-1"])
def test_foreign_keys_under_the_prefix_are_named(server: fakeredis.FakeServer, client: Any, key: str) -> None:
    if key == "tw:stats:pump-1":
        client.hset(key, "temperature", "something else")
    else:
        client.set(key, "something else")

    with pytest.raises(ConfigError, match=r"under 'tw' in Redis are not Tidewatch's.*set another redis_sink\.prefix"):
        put(started(server), SCORES, 0, score())


def test_a_server_has_its_newest_forecast_whatever_comes_after_it(server: fakeredis.FakeServer, client: Any) -> None:
    sink = started(server)
    put(sink, FORECASTS, 0, forecast(hour=3, high=0.5), forecast("10.0.0.2"), now=NOW)
    put(sink, FORECASTS, 2, forecast(hour=2, high=0.1), now=NOW + 30)
    held = client.hgetall("tw:forecast:10.0.0.1")
    hours = json.loads(held.pop("hours"))

    assert held == {"issued": str(NOON + 3 * HOUR), "basis": "own", "model_version": "v1"}
    assert len(hours) == 48
    assert hours[0] == {"hour": NOON + 3 * HOUR, "load": "low", "probabilities": [0.25, 0.25, 0.5]}
    assert client.zrange("tw:servers", 0, -1) == ["10.0.0.2", "10.0.0.1"]
    sink.flush(NOW + 70, force=True)
    assert client.zrange("tw:servers", 0, -1) == ["10.0.0.1"]


def test_a_prefix_from_before_there_were_forecasts_takes_them_in(server: fakeredis.FakeServer, client: Any) -> None:
    topics = {name: number for name, number in ORIGIN.topics.items() if name != TOPICS.forecasts}
    client.set("tw:origin", msgspec.json.encode(Origin(ORIGIN.cluster, topics)))
    started(server)

    assert msgspec.json.decode(client.get("tw:origin"), type=Origin) == ORIGIN


def test_two_prefixes_share_a_redis(server: fakeredis.FakeServer, client: Any) -> None:
    put(started(server), SCORES, 0, score("a"))
    put(started(server, replace(SPEC, prefix="blue")), SCORES, 0, score("b"))

    assert (client.zrange("tw:oddest", 0, -1), client.zrange("blue:oddest", 0, -1)) == (["a"], ["b"])


@pytest.mark.parametrize("name", ["history", "alerts", "expire_s", "half_life"])
def test_a_spec_that_cannot_work_is_refused(name: str) -> None:
    zero: dict[str, Any] = {name: 0}

    with pytest.raises(ConfigError, match=rf"redis_sink\.{name} is 0; set it above 0"):
        replace(SPEC, **zero)


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"redis\.url is no address"):
        RedisSpec("http://somewhere").connect()


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(RedisSpec("redis://:secret@localhost"))


def rolled(values: list[np.ndarray[Any, np.dtype[np.float64]]], *, keep: float) -> Rolling:
    """The rolling statistics of windows with these readings."""
    state = Rolling()
    for x in values:
        std = x.std(ddof=1) if len(x) > 1 else None
        state = state.merge(MetricStatistics(len(x), x.mean(), std, x.min(), x.max(), x[-1]), keep)
    return state


def test_without_forgetting_rolling_statistics_are_those_of_all_readings() -> None:
    rng = np.random.default_rng(1)
    values = [rng.normal(50, 3, size) for size in (40, 1, 7, 300)]
    state = rolled(values, keep=1.0)
    whole = np.concatenate(values)

    assert (state.count, state.mean, state.std) == pytest.approx((348, whole.mean(), whole.std(ddof=1)), rel=1e-12)


def test_rolling_statistics_are_weighted_by_age() -> None:
    rng = np.random.default_rng(2)
    values = [rng.normal(mean, 3, 20) for mean in (10, 20, 30)]
    weights = np.repeat([0.25, 0.5, 1.0], 20)
    state = rolled(values, keep=0.5)
    mean = np.average(np.concatenate(values), weights=weights)
    variance = np.average((np.concatenate(values) - mean) ** 2, weights=weights)

    assert (state.count, state.mean) == pytest.approx((weights.sum(), mean), rel=1e-12)
    assert state.m2 == pytest.approx(variance * weights.sum(), rel=1e-12)


def test_a_window_without_readings_changes_nothing() -> None:
    state = Rolling(3.0, 2.0, 1.0, 0.5)

    assert state.merge(MetricStatistics(0, 0.0, None, 0.0, 0.0, 0.0), 0.5) == state


@pytest.mark.parametrize("mean", [1e308, -1e308, 1e200])
def test_a_window_whose_squares_overflow_is_left_out(mean: float) -> None:
    state = Rolling(3.0, 2.0, 1.0, 0.5)

    assert state.merge(MetricStatistics(2, mean, 1e308, mean, mean, mean), 0.5) == state
