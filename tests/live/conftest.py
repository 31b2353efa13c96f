"""Real Apache Kafka and real Redis, one of each for the whole run; topics of its own for every test."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from stream.contracts import Topics
from stream.kafka import Broker, ensure_topics
from tidewatch.servers import JAVA, KafkaServer, RedisServer, java_version

PROJECT = Path(__file__).parents[2]
PARTITIONS = 4
SERVERS = pytest.StashKey[dict[str, str]]()
"""What the live tests ran against: name to version."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SERVERS] = {}


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker("live")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    calls = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    ran = sum(report.when == "call" and "live" in report.keywords for report in calls)
    servers = " and ".join(f"{name} {version}" for name, version in sorted(config.stash[SERVERS].items()))
    terminalreporter.write_line(f"live tests: {ran} ran against {servers or 'nothing'}")


@pytest.fixture(scope="session")
def kafka_jars() -> Path:
    """The jars of Apache Kafka; skips only where there is nothing to run or resolve them with."""
    jars = PROJECT / "tests" / "live" / "kafka" / "target" / "jars"
    if java_version() < JAVA:
        pytest.skip(f"Apache Kafka needs Java {JAVA}: install openjdk-{JAVA}-jre-headless")
    if not (jars.exists() or shutil.which("mvn")):
        pytest.skip("Apache Kafka's jars need Maven: install maven")
    subprocess.run([PROJECT / "scripts" / "kafka-jars"], check=True)
    return jars


@pytest.fixture(scope="session")
def kafka(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Broker]:
    """A broker for the whole run: the one at ``TIDEWATCH_TEST_KAFKA``, or our own."""
    running = os.environ.get("TIDEWATCH_TEST_KAFKA")
    if running:
        pytestconfig.stash[SERVERS]["Apache Kafka"] = f"at {running}"
        yield Broker(running)
        return
    jars = request.getfixturevalue("kafka_jars")
    with KafkaServer(jars, tmp_path_factory.mktemp("kafka")) as server:
        pytestconfig.stash[SERVERS]["Apache Kafka"] = server.version
        yield server.broker


@pytest.fixture
def own_kafka(kafka_jars: Path, tmp_path: Path) -> Iterator[KafkaServer]:
    """A broker that the test may stop, kill and freeze."""
    with KafkaServer(kafka_jars, tmp_path / "kafka") as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[str]:
    """A Redis for the whole run: the one at ``TIDEWATCH_TEST_REDIS``, or our own."""
    running = os.environ.get("TIDEWATCH_TEST_REDIS")
    if not (running or shutil.which("redis-server")):
        pytest.skip("there is no redis-server: install it")
    if running:
        with redis.Redis.from_url(running) as client:
            pytestconfig.stash[SERVERS]["Redis"] = str(client.info("server")["redis_version"])
        yield running
        return
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        pytestconfig.stash[SERVERS]["Redis"] = server.version
        yield server.url


@pytest.fixture
def topics(kafka: Broker) -> Topics:
    """Topics nobody else uses, with ``PARTITIONS`` partitions each."""
    mine = Topics.prefixed(f"t{uuid.uuid4().hex[:12]}.")
    ensure_topics(kafka, mine, partitions=PARTITIONS)
    return mine
