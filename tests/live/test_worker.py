"""Real workers on real Kafka: killed, joined, told to stop; what comes out is what the core makes of the log."""

import signal
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest

from producers.arrow import BatchEncoder
from producers.publish import Target, publish, punctuate
from producers.sessions import ServerFleet
from scorers.pack import save
from stream.contracts import Reason, Score, Topics
from stream.kafka import MAX_MESSAGE_BYTES, Broker, producer
from stream.parse import Reading
from tests.live.support import (
    PARTITIONS,
    PROJECT,
    Emitted,
    Recording,
    Sent,
    Site,
    Worker,
    drained,
    emitted,
    eventually,
    expected,
    finish,
    read,
    send,
    trained,
)

GRACEFUL_S = 10.0


@pytest.fixture
def site(kafka: Broker, topics: Topics, tmp_path: Path) -> Site:
    return Site(kafka, topics, tmp_path)


def scored(site: Site) -> int:
    return len(read(site.broker, [site.topics.scores]))


def more_than(site: Site, before: int) -> Callable[[], bool]:
    return lambda: scored(site) > before or drained(site, site.topics.readings)


def settle(site: Site, *workers: Worker) -> None:
    """Wait until every reading is in a window that is out."""
    eventually(lambda: drained(site, site.topics.readings), "the group is done with every reading", workers)


def test_every_window_and_every_reject_comes_out_once_as_the_core_makes_it(site: Site) -> None:
    recording = Recording()
    send(site, recording.sent)
    finish(site, recording)
    with Worker(site) as worker:
        settle(site, worker)
        code = worker.end(signal.SIGTERM, GRACEFUL_S)
    found = emitted(site)
    reasons = Counter(
        dict(headers)["tw_reason"].decode() for topic, _, _, headers in found if topic == site.topics.rejects
    )

    assert found == expected(site)
    assert code == 0
    assert {Reason.EMPTY, Reason.MALFORMED, Reason.TOO_LARGE, Reason.LATE, Reason.DUPLICATE, Reason.FUTURE} <= {
        *reasons
    }


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_ends_in_the_middle_costs_and_doubles_nothing(site: Site, how: signal.Signals) -> None:
    recording = Recording()
    third = len(recording.sent) // 3
    with Worker(site) as first:
        send(site, recording.sent[:third])
        eventually(more_than(site, 20), "windows come out", [first])
        send(site, recording.sent[third : 2 * third])
        code = first.end(how, GRACEFUL_S)
    with Worker(site) as second:
        send(site, recording.sent[2 * third :])
        finish(site, recording)
        settle(site, second)

    assert emitted(site) == expected(site)
    assert code == (0 if how is signal.SIGTERM else -signal.SIGKILL)


def gathered(records: Iterable[Sent], many: int) -> Iterator[Sent]:
    """The same with so many good readings of a device to a record, as a gateway sends them."""
    encoder, waiting = BatchEncoder(("pressure", "temperature")), defaultdict[bytes, list[Reading]](list)
    for key, value in records:
        try:
            waiting[key].append(msgspec.json.decode(value, type=Reading))
        except msgspec.MsgspecError:
            yield key, value
        if len(waiting[key]) == many:
            alike = waiting.pop(key)
            devices, stamps = [one.device_id for one in alike], np.array([one.ts for one in alike], np.int64)
            yield key, encoder.encode(devices, stamps, np.array([[*one.values.values()] for one in alike]))


def test_batches_of_readings_cost_and_double_nothing_either(site: Site) -> None:
    recording = Recording()
    records = list(gathered(recording.sent, 4))
    half = len(records) // 2
    with Worker(site) as first:
        send(site, records[:half])
        eventually(more_than(site, 20), "windows come out", [first])
        first.end(signal.SIGKILL, GRACEFUL_S)
    with Worker(site) as second:
        send(site, records[half:])
        finish(site, recording)
        settle(site, second)
    found = emitted(site)

    assert found == expected(site)
    # of a batch, by the number of the reading in it
    rejects = [dict(headers) for topic, _, _, headers in found if topic == site.topics.rejects]
    assert any(headers["ce_id"].count(b"/") == 3 for headers in rejects)


def test_a_worker_killed_again_and_again_costs_and_doubles_nothing(site: Site) -> None:
    recording = Recording()
    send(site, recording.sent)
    finish(site, recording)
    for _ in range(2):
        with Worker(site) as worker:
            eventually(more_than(site, scored(site)), "windows come out", [worker])
            worker.end(signal.SIGKILL, GRACEFUL_S)
    with Worker(site) as worker:
        settle(site, worker)

    assert emitted(site) == expected(site)


def test_a_second_worker_joins_and_takes_over_from_the_first(site: Site) -> None:
    recording = Recording()
    third = len(recording.sent) // 3
    with Worker(site) as first:
        send(site, recording.sent[:third])
        eventually(more_than(site, 20), "windows come out", [first])
        with Worker(site) as second:
            eventually(lambda: first.partitions == second.partitions == PARTITIONS, "both own half", [first, second])
            send(site, recording.sent[third : 2 * third])
            first.end(signal.SIGKILL, GRACEFUL_S)
            send(site, recording.sent[2 * third :])
            finish(site, recording)
            settle(site, second)

    assert emitted(site) == expected(site)


def test_a_partition_fallen_silent_closes_its_windows(site: Site) -> None:
    brief = replace(site, window=replace(site.window, idle_ms=6_000))
    recording = Recording(seconds=4)
    send(brief, recording.sent)
    with Worker(brief) as worker:
        settle(brief, worker)
        ended = worker.alive
    finish(brief, recording)

    assert ended
    assert emitted(brief) == expected(brief)


def test_a_new_fleet_is_followed_without_a_restart(site: Site) -> None:
    recording = Recording()
    half = len(recording.sent) // 2
    fleet = trained(recording)
    with Worker(site) as worker:
        send(site, recording.sent[:half])
        eventually(more_than(site, 20), "windows come out", [worker])
        save(fleet, site.fleet, created=recording.end)
        eventually(lambda: f"fleet {fleet.version}" in worker.log, "the fleet is in force", [worker])
        send(site, recording.sent[half:])
        finish(site, recording)
        settle(site, worker)
    learning, known, found = (windows(records) for records in (expected(site), expected(site, fleet), emitted(site)))
    states = Counter(score.state for score in found.values())

    assert min(states["learning"], states["scored"]) > 20
    assert {key: score.metrics for key, score in found.items()} == {
        key: score.metrics for key, score in learning.items()
    }
    for key, score in found.items():
        same = known[key] if score.state == "scored" else learning[key]
        verdict = (score.state, score.anomaly, score.model_version, score.decision, score.score)
        assert verdict == pytest.approx((same.state, same.anomaly, same.model_version, same.decision, same.score))


def windows(records: list[Emitted]) -> dict[tuple[str, int], Score]:
    scores = [msgspec.json.decode(value, type=Score) for topic, _, value, _ in records if topic.endswith("scores")]
    return {(score.device_id, score.window_start): score for score in scores}


def test_sessions_go_the_same_way_and_are_summed(site: Site) -> None:
    fleet = ServerFleet(10, seed=3, start=1_700_000_000_000, rate=2.0).build()
    publish(islice(fleet.batches(1_000), 1), Target(site.broker, site.topics.sessions))
    punctuate(Target(site.broker, site.topics.sessions), fleet.now)
    with Worker(site) as worker:
        eventually(lambda: drained(site, site.topics.sessions), "the group is done with every session", [worker])
    found = [msgspec.json.decode(value, type=Score) for _, _, value, _ in emitted(site)]

    assert emitted(site) == expected(site)
    assert {score.source for score in found} == {site.topics.sessions}
    assert all(metric.sum == metric.mean * metric.count for score in found for metric in score.metrics.values())


def test_without_kafka_commands_end_with_4_and_name_the_fix(tmp_path: Path) -> None:
    nowhere = Site(Broker("127.0.0.1:1"), Topics(), tmp_path)
    asked = [("worker",), ("sink", "parquet"), ("sink", "redis")]
    running = [
        subprocess.Popen(nowhere.command(*words), cwd=PROJECT, stderr=subprocess.PIPE, text=True) for words in asked
    ]
    told = [process.communicate(timeout=60)[1] for process in running]

    assert [process.returncode for process in running] == [4, 4, 4]
    assert all("TIDEWATCH_KAFKA" in words and "Traceback" not in words for words in told)


def test_a_record_as_large_as_the_topic_takes_is_rejected_whole(site: Site) -> None:
    recording = Recording(seconds=20)
    room = 200  # what Kafka's own framing of a record may take
    large = b"\xff" * (MAX_MESSAGE_BYTES - room)
    send(site, [*recording.sent[:100], (b"dev-1", large), *recording.sent[100:]])
    finish(site, recording)
    with Worker(site) as worker:
        settle(site, worker)

    assert large in [value for topic, _, value, _ in emitted(site) if topic == site.topics.rejects]
    assert emitted(site) == expected(site)


def test_a_worker_fenced_by_a_stranger_takes_its_partition_again(site: Site) -> None:
    recording = Recording()
    half = len(recording.sent) // 2
    with Worker(site) as worker:
        send(site, recording.sent[:half])
        eventually(more_than(site, 20), "windows come out", [worker])
        for number in range(PARTITIONS):
            identity = f"{site.app}-{site.topics.readings}-{number}"
            producer(site.broker, transactional_id=identity).init_transactions(30)
        send(site, recording.sent[half:])
        finish(site, recording)
        settle(site, worker)
        code = worker.end(signal.SIGTERM, GRACEFUL_S)
        told = worker.log

    assert "has another owner" in told
    assert emitted(site) == expected(site)
    assert code == 0


def test_a_worker_frozen_past_its_session_is_fenced_and_rejoins(site: Site) -> None:
    recording = Recording()
    third = len(recording.sent) // 3
    with Worker(site) as zombie:
        send(site, recording.sent[:third])
        eventually(more_than(site, 20), "windows come out", [zombie])
        zombie.freeze()
        with Worker(site) as second:
            send(site, recording.sent[third : 2 * third])
            eventually(lambda: second.partitions == 2 * PARTITIONS, "the second owns everything", [second])
            settled = scored(site)
            eventually(more_than(site, settled), "windows come out", [second])
            zombie.thaw()
            eventually(lambda: zombie.partitions == second.partitions == PARTITIONS, "they share", [zombie, second])
            send(site, recording.sent[2 * third :])
            finish(site, recording)
            settle(site, zombie, second)

    assert emitted(site) == expected(site)


def test_what_a_producer_took_back_was_never_sent(site: Site) -> None:
    recording = Recording(seconds=30)
    half = len(recording.sent) // 2
    fickle = producer(site.broker, transactional_id=f"{site.prefix}fickle")
    fickle.init_transactions(30)
    fickle.begin_transaction()
    send(site, recording.sent[:half])
    for key, value in recording.sent[half:]:
        fickle.produce(site.topics.readings, value, key)
    fickle.flush(30)
    fickle.abort_transaction(30)
    send(site, recording.sent[half:])
    finish(site, recording)
    with Worker(site) as worker:
        settle(site, worker)

    assert emitted(site) == expected(site)
