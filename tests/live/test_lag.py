"""Lag on real Kafka: of a worker with open windows, of sinks, of groups that are not there."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stream.contracts import Topics
from stream.kafka import Broker, producer
from stream.state import partition_key
from tests.live.support import PARTITIONS, PROJECT, Recording, Site, Worker, drained, eventually, finish, send
from tidewatch.cli import app
from tidewatch.tail import heads, latest, spans, within


@pytest.fixture
def site(kafka: Broker, topics: Topics, tmp_path: Path) -> Site:
    return Site(kafka, topics, tmp_path)


def lag(site: Site, *words: str) -> dict[str, dict[str, Any]]:
    """What ``tidewatch lag --json`` tells, by role."""
    done = CliRunner().invoke(app, site.command("lag", "--json", *words)[3:], catch_exceptions=False)
    return {group["role"]: group for group in json.loads(done.stdout)["groups"]}


def code(site: Site, *words: str) -> int:
    return CliRunner().invoke(app, site.command("lag", *words)[3:], catch_exceptions=False).exit_code


def test_groups_that_were_never_there_are_told_as_such(site: Site) -> None:
    send(site, Recording().sent[:100])
    told = lag(site)
    human = CliRunner().invoke(app, site.command("lag")[3:], catch_exceptions=False)

    assert {role: group["state"] for role, group in told.items()} == dict.fromkeys(told, "missing")
    assert (told["worker"]["unread"], told["parquet"]["unread"]) == (100, 0)
    assert 0 <= told["worker"]["age_s"] < 60
    assert "it has never committed anything" in human.stdout
    assert (code(site, "--fail-above", "99"), code(site, "--fail-above", "100")) == (1, 0)


def test_a_worker_that_has_read_all_holds_only_what_open_windows_need(site: Site) -> None:
    recording = Recording(seconds=30)
    send(site, recording.sent)
    with Worker(site) as worker:
        eventually(lambda: lag(site)["worker"]["unread"] == 0, "everything is read", [worker])
        busy = lag(site)["worker"]
        finish(site, recording)
        eventually(lambda: drained(site, site.topics.readings), "every window is closed", [worker])
        done = lag(site)["worker"]
        worker.end(signal.SIGTERM, 10)
    after = lag(site)["worker"]

    assert (busy["state"], busy["members"], busy["age_s"]) == ("stable", 1, None)
    assert busy["held"] > 0
    assert all(part["committed"] <= part["end"] - part["held"] for part in busy["partitions"] if part["held"])
    assert (done["unread"], done["held"]) == (0, 0)
    assert (after["state"], after["members"], after["unread"]) == ("empty", 0, 0)


def test_a_sink_is_behind_until_it_has_written_everything(site: Site) -> None:
    recording = Recording(seconds=30)
    send(site, recording.sent)
    finish(site, recording)
    with Worker(site) as worker:
        eventually(lambda: drained(site, site.topics.readings), "every window is closed", [worker])
        worker.end(signal.SIGTERM, 10)
    before = lag(site)["parquet"]
    flags = ("--set", f"parquet.folder={site.folder / 'parquet'}")
    command = site.command(*flags, "sink", "parquet", "--once")
    subprocess.run(command, cwd=PROJECT, check=True, timeout=120, capture_output=True)
    after = lag(site)["parquet"]

    assert before["state"] == "missing"
    assert before["unread"] > 0
    # what remains after the last record of a partition are the marks of transactions
    assert (after["state"], after["unread"]) == ("empty", 0)


def test_a_missing_topic_is_one_sentence_with_the_way_to_make_it(kafka: Broker, tmp_path: Path) -> None:
    nowhere = Site(kafka, Topics.prefixed("never-made."), tmp_path)
    done = subprocess.run(nowhere.command("lag"), cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 4
    assert "start the worker, which makes it" in " ".join(done.stderr.split())


def test_the_last_value_of_a_key_is_found_far_behind_the_end_and_before_an_open_transaction(site: Site) -> None:
    rare, often = partition_key("rare", 1), partition_key("often", 1)
    client = producer(site.broker)
    client.produce(site.topics.state, b"old", rare, partition=1)
    client.produce(site.topics.state, b"rare", rare, partition=1)
    for number in range(3_000):
        client.produce(site.topics.state, b"%d" % number, often, partition=1)
    assert client.flush(30) == 0
    dead = producer(site.broker, transactional_id=f"{site.prefix}dead")
    dead.init_transactions(30)
    dead.begin_transaction()
    for _ in range(1_500):
        dead.produce(site.topics.state, b"never", often, partition=1)
    assert dead.flush(30) == 0
    found = latest(site.broker, site.topics.state, {1: {rare, often, b"none"}})
    first = heads(site.broker, {(site.topics.state, number): 3_001 * number for number in range(2)})
    dead.abort_transaction(30)

    assert found == {rare: b"rare", often: b"2999"}
    assert {place: message.value() for place, message in first.items()} == {(site.topics.state, 1): b"2999"}


def test_a_span_ends_where_it_was_seen_to_end(site: Site) -> None:
    send(site, [(b"k", b"before")] * 10)
    seen = spans(site.broker, [site.topics.readings])
    send(site, [(b"k", b"after")] * 10)

    assert len(seen) == PARTITIONS
    assert [message.value() for message in within(site.broker, seen)] == [b"before"] * 10
