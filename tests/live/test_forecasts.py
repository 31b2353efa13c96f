"""Three days of sessions through real Kafka: forecasts, Parquet and Redis hold what batch makes of them, once."""

import json
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from producers.publish import Target, punctuate
from scorers.forecast.calendar import FeatureSpec
from scorers.forecast.fit import Recipe, Teaching, fit
from scorers.forecast.issue import forecast, messages
from scorers.forecast.model import Kind
from scorers.forecast.pack import save
from scorers.forecast.schema import HORIZON, HOUR_MS
from sinks.parquet import ParquetSink, ParquetSpec
from sinks.read import dataset
from sinks.redis import RedisSink, RedisSpec
from stream.contracts import Topics
from stream.kafka import Broker
from tests import loads
from tests.live.support import Sent, Site, Worker, eventually, read, send
from tests.live.test_sinks_live import fill
from tests.workload import START, Session, hours, sessions

FOREST = Recipe("forest", Kind.FOREST, {"n_estimators": 10, "max_depth": 6, "random_state": 1})
DAYS = 3
END = START + DAYS * 24 * HOUR_MS
Told = tuple[str, int]
"""A server, and when its forecast was issued."""


def told(site: Site) -> list[dict[str, Any]]:
    return [json.loads(message.value() or b"") for message in read(site.broker, [site.topics.forecasts])]


def sent(found: Sequence[Session]) -> list[Sent]:
    return [(session.server.encode(), session.value) for session in found]


@pytest.fixture
def site(kafka: Broker, topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("TIDEWATCH_LOAD__FOLDER", str(tmp_path / "load"))
    return Site(kafka, topics, tmp_path)


def test_forecasts_are_those_of_batch_each_once_through_a_kill(site: Site, redis_url: str) -> None:
    found = sessions(6, DAYS * 24, seed=4, an_hour=5.0)
    half = len(found) // 2
    model = fit(loads.rows(loads.hours()), FOREST, Teaching((20.0, 400.0), FeatureSpec("Europe/Berlin", START), "v1"))
    save(model, site.folder / "load" / "models" / "forecaster.twf")
    known = hours(found, END)
    there = Counter(
        zip(known["server"].to_pylist(), [hour + HOUR_MS for hour in known["hour"].to_pylist()], strict=True)
    )
    command = ("load", "worker")
    with Worker(site, command=command) as first:
        send(site, sent(found[:half]), topic=site.topics.sessions)
        eventually(lambda: len(told(site)) > 20, "forecasts come out", [first])
        first.end(signal.SIGKILL, 10)
    with Worker(site, command=command) as second:
        send(site, sent(found[half:]), topic=site.topics.sessions)
        punctuate(Target(site.broker, site.topics.sessions), END)
        eventually(lambda: len(told(site)) >= there.total(), "every hour is forecast from", [second])
        code = second.end(signal.SIGTERM, 10)
    out = told(site)

    assert code == 0
    assert Counter((one["server"], one["issued"]) for one in out) == there
    by_place = {(one["server"], one["issued"]): one for one in out}
    for issued in range(START + HOUR_MS, END + 1, 7 * HOUR_MS):
        servers = sorted(server for server, at in there if at == issued)
        batch = {(one["server"], one["issued"]): one for one in messages(forecast(model, known, servers, issued))}
        assert batch == {place: by_place[place] for place in batch}
    assert {one["basis"] for one in out} == {"own", "fleet"}
    check_sinks(site, redis_url, by_place)


def check_sinks(site: Site, url: str, out: dict[Told, dict[str, Any]]) -> None:
    """Parquet has every hour of every forecast, Redis the newest forecast of each server."""
    folder = site.folder / "parquet"
    fill(site, ParquetSink(ParquetSpec(folder), site.topics))
    fill(site, RedisSink(RedisSpec(url, prefix=site.prefix), site.topics))
    rows = dataset(folder, "forecasts").to_table().to_pylist()
    wanted = Counter(
        (one["server"], one["issued"], ahead["hour"], ahead["load"], *ahead["probabilities"], one["basis"])
        for one in out.values()
        for ahead in one["hours"]
    )
    stamps = [(int(row["issued"].timestamp() * 1000), int(row["hour"].timestamp() * 1000)) for row in rows]

    assert len(rows) == HORIZON * len(out)
    assert wanted == Counter(
        (row["server"], *at, row["load"], row["low"], row["medium"], row["high"], row["basis"])
        for row, at in zip(rows, stamps, strict=True)
    )
    newest = {server: one for (server, _), one in sorted(out.items())}
    with redis.Redis.from_url(url, decode_responses=True) as client:
        for server, one in newest.items():
            held = client.hgetall(f"{site.prefix}:forecast:{server}")
            assert {**held, "issued": int(held["issued"]), "hours": json.loads(held["hours"]), "server": server} == one
        assert set(client.zrange(f"{site.prefix}:servers", 0, -1)) == set(newest)
