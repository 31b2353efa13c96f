"""Three days of sessions through real Kafka: forecasts, Parquet and Redis hold what batch makes of them, once."""

import json
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from producers.publish import Target, punctuate
from scorers.forecast.calendar import FeatureSpec
from scorers.forecast.fit import RECIPES, Recipe, Teaching, fit
from scorers.forecast.issue import forecast, messages
from scorers.forecast.model import Forecaster, Kind
from scorers.forecast.pack import save
from scorers.forecast.schema import HORIZON, HOUR_MS
from sinks.parquet import ParquetSink, ParquetSpec
from sinks.read import dataset
from sinks.redis import RedisSink, RedisSpec
from stream.contracts import Topics
from stream.kafka import Broker, ensure_topics, producer
from tests import loads
from tests.chaos.proxy import Proxy
from tests.chaos.scene import FrontedKafka
from tests.live.support import PARTITIONS, PROJECT, Sent, Site, Worker, eventually, read, send
from tests.live.test_sinks_live import fill
from tests.workload import START, Session, hours, sessions
from tidewatch.forecast import record, training
from tidewatch.groups import Settings
from tidewatch.servers import HOST
from tidewatch.settings import load

FOREST = Recipe("forest", Kind.FOREST, {"n_estimators": 10, "max_depth": 6, "random_state": 1})
BOOSTED = Recipe("ordinal", Kind.ORDINAL, {"max_iter": 15, "min_samples_leaf": 20, "random_state": 42})
DAYS = 3
END = START + DAYS * 24 * HOUR_MS
FRONT = "worker-a"
"""Whose way to Kafka can be cut off alone."""
TOPICS = Topics.prefixed("harmed.")
Told = tuple[str, int]
"""A server, and when its forecast was issued."""


def told(site: Site) -> list[dict[str, Any]]:
    return [json.loads(message.value() or b"") for message in read(site.broker, [site.topics.forecasts])]


def sent(found: Sequence[Session]) -> list[Sent]:
    return [(session.server.encode(), session.value) for session in found]


def counted(found: Sequence[Session], end: int) -> Counter[Told]:
    """What is to be forecast, once each: every server that is there, whenever an hour ends."""
    known = hours(found, end)
    ends = [hour + HOUR_MS for hour in known["hour"].to_pylist()]
    return Counter(zip(known["server"].to_pylist(), ends, strict=True))


@pytest.fixture
def site(kafka: Broker, topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("TIDEWATCH_LOAD__FOLDER", str(tmp_path / "load"))
    return Site(kafka, topics, tmp_path)


def test_forecasts_are_those_of_batch_each_once_through_a_kill(site: Site, redis_url: str) -> None:
    found = sessions(6, DAYS * 24, seed=4, an_hour=5.0)
    half = len(found) // 2
    model = fit(loads.rows(loads.hours()), FOREST, Teaching((20.0, 400.0), FeatureSpec("Europe/Berlin", START), "v1"))
    save(model, site.folder / "load" / "models" / "forecaster.twf")
    known, there = hours(found, END), counted(found, END)
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


@pytest.mark.parametrize("follows", [False, True], ids=["the file", "the alias"])
def test_a_forecaster_that_is_promoted_or_rolled_back_takes_over_without_a_restart(
    site: Site, follows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEWATCH_MODELS__REGISTRY", f"sqlite:///{site.folder}/mlflow.db")
    monkeypatch.setenv("TIDEWATCH_MODELS__FOLDER", str(site.folder / "models"))
    monkeypatch.setitem(RECIPES, "forest", (FOREST,))
    monkeypatch.setitem(RECIPES, "boosting", (BOOSTED,))
    folder = site.folder / "load"
    loads.folder(folder, loads.hours())
    settings = load({}).settings
    models = [trained(settings, folder, recipe) for recipe in ("forest", "boosting")]
    if follows:  # into a file of its own, which nobody else writes
        monkeypatch.setenv("TIDEWATCH_MODELS__FOLLOW", "champion")
        monkeypatch.setenv("TIDEWATCH_MODELS__FOLLOW_S", "0.2")
    found = sessions(6, 60, seed=9, an_hour=4.0)
    end = START + 60 * HOUR_MS
    there = counted(found, end)
    steps = (("rollback",), ("promote", "2", "--force"), ("rollback",))
    with Worker(site, command=("load", "worker")) as worker:
        for number, places in enumerate(np.array_split(np.arange(len(found)), len(steps) + 1)):
            if number:
                monkeypatch.setenv("TIDEWATCH_LOAD__FOLDER", str(site.folder / "desk" if follows else folder))
                subprocess.run(site.command("load", *steps[number - 1]), cwd=PROJECT, check=True)
                version = models[(number + 1) % 2].version
                eventually(lambda: in_force(worker) == version, "the forecaster in force", [worker])  # noqa: B023
            before = len(told(site))
            send(site, sent([found[place] for place in places]), topic=site.topics.sessions)
            eventually(lambda: len(told(site)) > before, "forecasts come out", [worker])  # noqa: B023
        punctuate(Target(site.broker, site.topics.sessions), end)
        eventually(lambda: len(told(site)) >= there.total(), "every hour is forecast from", [worker])
        assert worker.end(signal.SIGTERM, 10) == 0
    out = told(site)

    assert Counter((one["server"], one["issued"]) for one in out) == there
    assert {one["model_version"] for one in out} == {model.version for model in models}
    known = hours(found, end)
    for model in models:
        mine = [one for one in out if one["model_version"] == model.version]
        for issued in sorted({one["issued"] for one in mine})[::9]:
            told_so = {one["server"]: one for one in mine if one["issued"] == issued}
            batch = messages(forecast(model, known, sorted(told_so), issued))
            assert {one["server"]: one for one in batch} == told_so


def test_workers_killed_and_cut_off_and_brokers_restarted_cost_no_forecast_and_double_none(
    kafka_jars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each harm befalls while sessions come; the topic is that of batch, to the bit, for every server and hour."""
    monkeypatch.setenv("TIDEWATCH_LOAD__FOLDER", str(tmp_path / "load"))
    found, end = sessions(6, 56, seed=5, an_hour=8.0), START + 56 * HOUR_MS
    model = fit(loads.rows(loads.hours()), FOREST, Teaching((20.0, 400.0), FeatureSpec("Europe/Berlin", START), "v1"))
    save(model, tmp_path / "load" / "models" / "forecaster.twf")
    known, there = hours(found, end), counted(found, end)
    with ExitStack() as held:
        kafka = held.enter_context(FrontedKafka(kafka_jars, tmp_path / "kafka"))
        front = held.enter_context(Proxy(kafka.outer[FRONT], kafka.inner[FRONT]))
        ensure_topics(kafka.broker, TOPICS, partitions=PARTITIONS)
        site = Site(kafka.broker, TOPICS, tmp_path)
        fronted = replace(site, broker=Broker(f"{HOST}:{front.port}"))
        workers = [held.enter_context(Worker(one, command=("load", "worker"))) for one in (fronted, site)]

        def kill_worker() -> None:
            workers.pop().end(signal.SIGKILL, 10)
            workers.append(held.enter_context(Worker(site, command=("load", "worker"))))
            eventually(lambda: workers[-1].partitions > 0, "another is there", workers)

        def cut_worker_off() -> None:
            front.stall()
            eventually(lambda: workers[-1].partitions == PARTITIONS, "the other takes over", workers)
            front.flow()

        def restart_broker() -> None:
            kafka.stop()
            kafka.start()

        def kill_broker() -> None:
            kafka.kill()
            kafka.start()

        harms = (kill_worker, restart_broker, cut_worker_off, kill_broker, kill_worker)
        sender = held.enter_context(ThreadPoolExecutor(1))
        for number, places in enumerate(np.array_split(np.arange(len(found)), len(harms) + 1)):
            before = len(told(site))
            sending = sender.submit(trickle, site, sent([found[place] for place in places]))
            if number:
                harms[number - 1]()
            sending.result()
            eventually(lambda: len(told(site)) > before, "forecasts come out", workers)  # noqa: B023
        punctuate(Target(site.broker, site.topics.sessions), end)
        eventually(lambda: len(told(site)) >= there.total(), "every hour is forecast from", workers)
        codes = [worker.end(signal.SIGTERM, 15) for worker in workers]
        out = told(site)

    assert codes == [0, 0]
    assert Counter((one["server"], one["issued"]) for one in out) == there
    for issued in sorted({one["issued"] for one in out}):
        mine = {one["server"]: one for one in out if one["issued"] == issued}
        assert {one["server"]: one for one in messages(forecast(model, known, sorted(mine), issued))} == mine


def trickle(site: Site, records: Sequence[Sent]) -> None:
    """Send records over two seconds, or longer where Kafka is away."""
    client = producer(site.broker)
    for key, value in records:
        client.produce(site.topics.sessions, value, key)
        client.poll(2 / len(records))
    assert client.flush(120) == 0


def trained(settings: Settings, folder: Path, recipe: str) -> Forecaster:
    """A forecaster that is recorded and in force."""
    order = training.Order(folder, recipe, force=True)
    made = training.train(settings.load, order)
    record.keep(settings.models, settings.load, order, made)
    return made.forecaster


def in_force(worker: Worker) -> str:
    """The version that a worker says it forecasts by."""
    return str(["", *re.findall(r"forecaster (\S+) is in force", worker.log)][-1])


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
