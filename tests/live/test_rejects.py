"""Rejects on real Kafka: looked at, and sent back once, whatever happens meanwhile."""

import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Message, TopicPartition
from typer.testing import CliRunner

from scorers.errors import InputError
from stream.contracts import Reason, Topics
from stream.encode import reject_messages
from stream.kafka import DAY_MS, MAX_MESSAGE_BYTES, Broker, consumer, producer
from stream.outbox import ExactlyOnce
from stream.records import Records
from stream.rejects import Rejects
from tests.live.support import HOUR_MS, PARTITIONS, PROJECT, TETHER, Site, Worker, drained, eventually, send
from tidewatch.cli import app
from tidewatch.rejects import Reject, Selection
from tidewatch.resend import originals, receipts
from tidewatch.shelf import Shelf
from tidewatch.tail import ends, spans, within

START = time.time_ns() // 1_000_000 - HOUR_MS
"""Recent: Kafka deletes by timestamp."""
MIXED = [Reason.LATE, Reason.FUTURE, Reason.MALFORMED]


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    code: int
    out: bytes
    err: str

    @property
    def rows(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def site(kafka: Broker, topics: Topics, tmp_path: Path) -> Site:
    return Site(kafka, topics, tmp_path)


def run(site: Site, *words: str) -> Done:
    """``tidewatch rejects``; what it ends with is for the program to judge."""
    done = CliRunner().invoke(app, site.command("rejects", *words)[3:])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Done(done.exit_code, done.stdout_bytes, done.stderr)


def start(site: Site, *words: str) -> "subprocess.Popen[str]":
    """The same as a process of its own."""
    command = [*TETHER, *site.command("rejects", *words)]
    return subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def fill(site: Site, values: list[bytes | None], *, start: int = START) -> None:
    """Rejects of these values, as a worker leaves them; of every device in one partition and for three reasons."""
    client = producer(site.broker, message_max_bytes=1_000_000_000)
    for at, value in enumerate(values):
        device = at % 7
        key = None if device == 6 else f"dev-{device}".encode()
        offset, timestamp = np.array([at]), np.array([start + at])
        records = Records(site.topics.readings, device % PARTITIONS, offset, timestamp, [key], [value], [()])
        reason = MIXED[at % 3] if value else Reason.EMPTY
        refused = Rejects.of(np.array([0]), [(reason, f"number {at}")])
        (message,) = reject_messages(site.topics.rejects, records, refused)
        client.produce(message.topic, message.value, message.key, headers=[*message.headers])
        client.poll(0)
    assert client.flush(60) == 0


def numbered(count: int) -> list[bytes | None]:
    return [b"reject %d" % at for at in range(count)]


def came_back(site: Site) -> list[Message]:
    """Every committed record of the readings, once no transaction is open there."""
    return list(within(site.broker, spans(site.broker, [site.topics.readings]), settled=True))


def values(messages: list[Message]) -> Counter[bytes]:
    return Counter(message.value() or b"" for message in messages)


def test_the_newest_are_listed_and_it_is_said_that_there_are_more(site: Site) -> None:
    fill(site, numbered(100))
    some, every = run(site, "list", "-n", "3", "--json"), run(site, "list", "-n", "0", "--json")

    assert [row["offset"] for row in some.rows] == [99, 98, 97]
    assert "the newest 3 of the 100" in some.err
    assert sorted(int(str(row["offset"])) for row in every.rows) == list(range(100))
    assert every.err == ""
    assert every.rows[0].keys() >= {"id", "reason", "detail", "timestamp", "rejected_at", "key", "bytes", "replayed"}


def test_filters_and_counts_agree(site: Site) -> None:
    fill(site, numbered(99))
    within = ("--since", str(START + 10), "--until", str(START + 40), "--topic", site.topics.readings)
    late = run(site, "list", "-n", "0", "--reason", "late", *within, "--json")
    counts = run(site, "list", "--counts", *within, "--json")

    assert sorted(int(str(row["offset"])) for row in late.rows) == list(range(12, 40, 3))
    assert {str(row["reason"]): row["pending"] for row in counts.rows} == dict.fromkeys(MIXED, 10)


def test_without_rejects_it_says_so(site: Site) -> None:
    told = run(site, "list")

    assert (told.code, told.out, told.err.strip()) == (0, b"", "No reject matches.")


def test_a_reject_is_shown_to_the_last_byte(site: Site) -> None:
    large = bytes(range(256)) * (MAX_MESSAGE_BYTES // 256)
    nasty = b"\x1b[2J[bold]text[/]"
    fill(site, [large, nasty, b'{"a": "[red]"}'])
    topic = site.topics.readings
    raw, told = run(site, "show", f"{topic}/0/0", "--raw"), run(site, "show", f"{topic}/0/0")
    binary, text = run(site, "show", f"{topic}/1/1"), run(site, "show", f"{topic}/2/2", "--json")

    assert raw.out == large
    assert "--raw" in told.err
    assert b"\x1b" not in binary.out
    assert b"1b 5b 32 4a 5b 62 6f 6c 64 5d" in binary.out
    assert (text.rows[0]["value"], text.rows[0]["reason"]) == ('{"a": "[red]"}', "malformed")


def test_a_reject_that_is_not_there_ends_with_3(site: Site) -> None:
    fill(site, numbered(3))
    with start(site, "show", f"{site.topics.readings}/0/77") as process:
        told = process.communicate(timeout=60)[1]

    assert process.returncode == 3
    assert told.startswith("error: There is no reject")
    with pytest.raises(InputError, match="readings/0/77"):
        CliRunner().invoke(
            app, site.command("rejects", "replay", f"{site.topics.readings}/0/77")[3:], catch_exceptions=False
        )
    assert came_back(site) == []


def test_what_is_replayed_comes_back_as_it_was_where_it_was_and_once(site: Site) -> None:
    fill(site, [*numbered(50), None])
    dry = run(site, "replay", "--dry-run")
    before = came_back(site)
    first, second = run(site, "replay", "--json"), run(site, "replay", "--json")
    found = {message.value(): message for message in came_back(site)}
    left = run(site, "list", "-n", "0", "--pending", "--json")
    replayed = run(site, "list", "-n", "0", "--json")

    assert (dry.code, before) == (0, [])
    assert (first.rows[0]["sent"], first.rows[0]["empty"]) == (50, 1)
    assert (second.rows[0]["sent"], second.rows[0]["already"]) == (0, 50)
    assert values(came_back(site)) == Counter(value for value in numbered(50) if value)
    for at, value in enumerate(numbered(50)):
        message, device = found[value], at % 7

        assert message.key() == (None if device == 6 else f"dev-{device}".encode())
        assert (message.partition(), message.timestamp()[1]) == (device % PARTITIONS, START + at)
    assert [row["reason"] for row in left.rows] == ["empty"]
    assert Counter(row["replayed"] for row in replayed.rows) == {True: 50, False: 1}


def test_only_what_is_asked_for_is_replayed(site: Site) -> None:
    fill(site, numbered(30))
    run(site, "replay", f"{site.topics.readings}/0/0", f"{site.topics.readings}/1/8")
    some = values(came_back(site))
    run(site, "replay", "--reason", "future")

    assert some == Counter([b"reject 0", b"reject 8"])
    assert values(came_back(site)) == Counter(
        [b"reject 0", b"reject 8", *(b"reject %d" % at for at in range(1, 30, 3))]
    )


def test_a_replay_killed_in_the_middle_is_finished_by_the_next(site: Site) -> None:
    everything = numbered(30_000)
    fill(site, everything)
    readings = [TopicPartition(site.topics.readings, number) for number in range(PARTITIONS)]
    with closing(consumer(site.broker, site.app)) as reader, start(site, "replay") as process:

        def under_way() -> bool:
            """Looked at while the replay is held, so that it cannot end meanwhile."""
            process.send_signal(signal.SIGSTOP)
            found = bool(sum(reader.get_watermark_offsets(place, timeout=10)[1] for place in readings) > 2_000)
            process.send_signal(signal.SIGKILL if found else signal.SIGCONT)
            return found

        eventually(under_way, "the replay is under way")
    second, third = run(site, "replay", "--json").rows[0], run(site, "replay", "--json").rows[0]

    assert 0 < int(str(second["sent"])) < len(everything)
    assert (int(str(second["already"])) + int(str(second["sent"])), third["sent"]) == (len(everything), 0)
    assert values(came_back(site)) == Counter(value for value in everything if value)


def opened(site: Site) -> ExactlyOnce:
    """The outbox of a replay, as the command names it."""
    outbox = ExactlyOnce(site.broker, threading.Event(), f"{site.app}-{site.topics.rejects}-replay")
    outbox.open(threading.Event())
    return outbox


def held(site: Site) -> list[Reject]:
    """Every reject that is visible."""
    return list(Shelf.look(site.broker, site.topics, Selection()).rejects())


def test_what_a_killed_replay_left_open_is_taken_back(site: Site) -> None:
    fill(site, numbered(10))
    zombie = opened(site)
    zombie._producer.begin_transaction()  # noqa: SLF001 - killed between two steps of send
    zombie._produce([*originals(held(site)), *receipts(site.topics.rejects, held(site), START)])  # noqa: SLF001
    zombie._producer.flush(30)  # noqa: SLF001
    told = run(site, "replay", "--json")

    assert told.rows[0]["sent"] == 10
    assert values(came_back(site)) == Counter(value for value in numbered(10) if value)


def test_a_receipt_behind_another_transaction_is_waited_for(site: Site) -> None:
    fill(site, numbered(10))
    slow = producer(site.broker, transactional_id=f"{site.prefix}slow", transaction_timeout_ms=5_000)
    slow.init_transactions(30)
    slow.begin_transaction()
    for number in range(PARTITIONS):
        slow.produce(site.topics.rejects, b"open until Kafka ends it", partition=number)
    slow.flush(30)
    kept = held(site)
    first = opened(site)
    first.send(originals(kept), receipts(site.topics.rejects, kept, START))
    hidden = run(site, "list", "-n", "0", "--pending", "--json")
    told = run(site, "replay", "--json")

    assert len(hidden.rows) == 10
    assert (told.rows[0]["sent"], told.rows[0]["already"]) == (0, 10)
    assert values(came_back(site)) == Counter(value for value in numbered(10) if value)


def test_a_second_replay_ends_the_first_which_says_so(site: Site) -> None:
    fill(site, numbered(60_000))
    with start(site, "replay") as process:
        eventually(lambda: sum(ends(site.broker, [site.topics.readings]).values()) > 1_000, "the replay is under way")
        process.send_signal(signal.SIGSTOP)  # or it is done before the second begins, on a slow machine
        opened(site).close()
        process.send_signal(signal.SIGCONT)
        told = process.communicate(timeout=60)[1]
    rest = run(site, "replay", "--json")

    assert process.returncode == 1
    assert "Another `rejects replay` began" in " ".join(told.split())
    assert "Traceback" not in told
    assert rest.rows[0]["sent"] != 0
    assert values(came_back(site)) == Counter(value for value in numbered(60_000) if value)


def test_what_kafka_does_not_take_is_told_and_the_rest_is_sent(site: Site) -> None:
    huge = os.urandom(MAX_MESSAGE_BYTES + 1_000)  # it came in compressed, let us say
    fill(site, [*numbered(20), huge, *numbered(20)[:5]])
    told = run(site, "replay", "--json")

    assert told.code == 1
    assert told.rows[0]["sent"] == 25
    assert told.rows[0]["kept"] == 1
    assert [*told.rows[0]["refused"].values()] == [[f"{site.topics.readings}/2/20"]]  # type: ignore[attr-defined]
    assert run(site, "list", "--pending", "--json").rows[0]["bytes"] == len(huge)


def test_what_kafka_would_delete_at_once_is_told_and_not_sent(site: Site) -> None:
    fill(site, numbered(3), start=START - 7 * DAY_MS)
    fill(site, numbered(6)[3:])
    told = run(site, "replay", "--json")

    assert (told.code, told.rows[0]["sent"], told.rows[0]["left"]) == (1, 3, 0)
    assert told.rows[0]["kept"] == 3
    assert "retention.ms" in str(told.rows[0]["refused"])
    assert values(came_back(site)) == Counter([b"reject 3", b"reject 4", b"reject 5"])


def test_what_is_still_wrong_is_rejected_once_more_under_a_new_id(site: Site) -> None:
    send(site, [(b"dev-1", b"junk")])
    with Worker(site) as worker:
        eventually(lambda: len(held(site)) == 1, "the reject", [worker])
        told = run(site, "replay", "--json")
        eventually(lambda: len(held(site)) == 2, "the reject of what was replayed", [worker])
        eventually(lambda: drained(site, site.topics.readings) or worker.alive, "all read", [worker])
    first, second = sorted(held(site), key=lambda reject: reject.id)

    assert told.rows[0]["sent"] == 1
    assert (first.key, first.value, first.timestamp, first.id[:2]) == (
        second.key, second.value, second.timestamp, second.id[:2],
    )  # fmt: skip
    assert run(site, "list", "--pending", "--json").rows[0]["id"] == str(second.id)
