"""The doctor's judgement: facts in, findings out. What it sees of real servers is in the live tests."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scorers.errors import FleetFileError
from scorers.fleet import Fleet
from stream.kafka import MAX_MESSAGE_BYTES
from tidewatch.doctor import (
    ROOM,
    Finding,
    KafkaFacts,
    RedisFacts,
    TopicFacts,
    exit_code,
    judge_fleet,
    judge_folder,
    judge_kafka,
    judge_packages,
    judge_python,
    judge_redis,
    judge_schedule,
    judge_tables,
    probe_fleet,
    probe_folder,
    probe_tables,
)
from tidewatch.entries import Entry
from tidewatch.groups import Settings
from tidewatch.history import Outcome, Run, Why

SETTINGS = Settings()
NAMES = SETTINGS.topics.names()


def topic(
    partitions: int = 8, replicas: int = 1, policy: str = "delete", longest: int = MAX_MESSAGE_BYTES
) -> TopicFacts:
    return TopicFacts(partitions, replicas, {"cleanup.policy": policy, "max.message.bytes": str(longest)})


def cluster(changed: Mapping[str, TopicFacts] | None = None, *, brokers: int = 1, name: str = "c1") -> KafkaFacts:
    healthy = {each: topic() for each in NAMES.names()} | dict.fromkeys(
        (NAMES.state, NAMES.load), topic(policy="compact")
    )
    return KafkaFacts(name, brokers, healthy | dict(changed or {}))


def troubles(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.name, finding.state) for finding in findings if finding.state != "ok"]


def test_a_healthy_cluster_has_no_troubles() -> None:
    assert troubles(judge_kafka(cluster(), SETTINGS)) == []


@pytest.mark.parametrize(
    ("changed", "trouble"),
    [
        ({NAMES.state: topic(policy="delete")}, (NAMES.state, "fail")),
        ({NAMES.load: topic(policy="delete")}, (NAMES.load, "fail")),
        ({NAMES.scores: topic(policy="compact")}, (NAMES.scores, "fail")),
        ({NAMES.readings: topic(partitions=12)}, ("partitions", "fail")),
        ({NAMES.readings: topic(longest=1_000_000)}, (NAMES.readings, "warn")),
    ],
)
def test_an_ill_made_topic_is_named(changed: dict[str, TopicFacts], trouble: tuple[str, str]) -> None:
    assert troubles(judge_kafka(cluster(changed), SETTINGS)) == [trouble]


def test_missing_topics_are_a_warning_only() -> None:
    findings = judge_kafka(KafkaFacts("c1", 1, {}), SETTINGS)

    assert troubles(findings) == [("topics", "warn")]
    assert NAMES.readings in findings[-1].detail


def test_one_copy_on_many_brokers_is_a_warning_a_topic() -> None:
    findings = troubles(judge_kafka(cluster(brokers=3), SETTINGS))

    assert findings == [(name, "warn") for name in NAMES.names()]


def test_the_embedded_broker_is_told_as_such() -> None:
    assert troubles(judge_kafka(cluster(name="mockCluster1"), SETTINGS)) == [("kafka", "warn")]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (RedisFacts("7.0.15", 0, "noeviction", 3), []),
        (RedisFacts("6.2.0", 10_000, "noeviction", 3), []),
        (RedisFacts("5.0.3", 0, "noeviction", 3), [("redis", "fail")]),
        (RedisFacts("7.0.15", 10_000, "allkeys-lru", 3), [("redis memory", "warn")]),
        (RedisFacts("7.0.15", 0, "allkeys-lru", 3), []),
        (RedisFacts("7.0.15", 0, "noeviction", -60_000), [("clocks", "warn")]),
    ],
)
def test_a_redis_is_judged_by_version_memory_and_clock(facts: RedisFacts, expected: list[tuple[str, str]]) -> None:
    assert troubles(list(judge_redis(facts))) == expected


@pytest.mark.parametrize(("running", "state"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 13), "ok")])
def test_python_is_judged_by_version(running: tuple[int, int], state: str) -> None:
    assert judge_python(running).state == state


def test_packages_out_of_range_and_missing_ones_are_named() -> None:
    required = ["numpy>=2,<3", "redis>=5", "lost>=1", 'pytest>=8; extra == "dev"']
    findings = judge_packages(required, {"numpy": "1.26.4", "redis": "6.0"})

    assert [finding.detail for finding in findings] == ["numpy is 1.26.4, needs <3,>=2", "lost is missing, needs >=1"]


def test_packages_in_range_are_one_finding() -> None:
    assert [finding.state for finding in judge_packages(["numpy>=2"], {"numpy": "2.1"})] == ["ok"]


def test_no_fleet_is_a_warning_and_a_torn_one_a_failure(tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    torn.write_bytes(b"half a fl")
    found = probe_fleet(torn)

    assert isinstance(found, FleetFileError)
    assert judge_fleet(torn, found).state == "fail"
    assert judge_fleet(tmp_path / "gone", probe_fleet(tmp_path / "gone")).state == "warn"


def test_a_fleet_is_told_by_version_and_size() -> None:
    finding = judge_fleet(Path("fleet"), Fleet("v7", ()))

    assert (finding.state, finding.detail) == ("ok", "version v7 with 0 models")


def test_a_folder_yet_to_be_made_is_judged_by_where_it_will_be(tmp_path: Path) -> None:
    writable, free = probe_folder(tmp_path / "a" / "b")

    assert writable
    assert free > 0
    assert not (tmp_path / "a").exists()


def test_a_file_where_the_folder_belongs_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    writable, _ = probe_folder(tmp_path / "file" / "parquet")

    assert not writable
    assert judge_folder(tmp_path, writable=writable, free=ROOM).state == "fail"


@pytest.mark.parametrize(("free", "state"), [(ROOM - 1, "warn"), (ROOM, "ok")])
def test_little_room_is_a_warning(free: int, state: str) -> None:
    assert judge_folder(Path("var"), writable=True, free=free).state == state


@pytest.mark.parametrize(("states", "code"), [(["ok"], 0), (["ok", "warn"], 0), (["fail", "ok"], 1)])
def test_the_exit_code_tells_whether_anything_fails(states: list[str], code: int) -> None:
    assert exit_code(Finding("x", state, "") for state in states) == code  # type: ignore[arg-type]  # literals above


def test_strays_in_the_tables_are_a_warning_and_a_folder_nobody_can_read_a_failure(tmp_path: Path) -> None:
    stray = tmp_path / "predictions" / "date=2026-11-21" / "part-0.parquet"
    stray.parent.mkdir(parents=True)
    before = probe_tables(tmp_path)
    stray.touch()
    found, unread = probe_tables(tmp_path)
    (finding,) = judge_tables(found, unread)

    assert list(judge_tables(*before)) == []
    assert (finding.state, finding.detail) == ("warn", f"1 left out: {stray} is not named as a file of ours")
    assert [finding.state for finding in judge_tables([], [tmp_path])] == ["fail"]


def test_nothing_is_said_of_a_schedule_that_is_not_there() -> None:
    idle = Entry(command="train", every_s=60, enabled=False)

    assert list(judge_schedule({}, {}, alive=False)) == []
    assert list(judge_schedule({"idle": idle}, {"idle": None}, alive=False)) == []


def test_entries_without_a_scheduler_and_runs_that_went_wrong_are_warnings() -> None:
    noon = datetime(2026, 7, 1, tzinfo=UTC)
    entries = {name: Entry(command="train", every_s=60) for name in ("well", "new", "ill")}
    well = Run(1, "well", ["train"], Why.SCHEDULED, Outcome.OK, noon, noon, noon, 0, "", 1)
    ill = replace(well, id=2, entry="ill", outcome=Outcome.FAILED, code=3, reason="exit code 3")
    last = {"well": well, "new": None, "ill": ill}
    alone, *failures = judge_schedule(entries, last, alive=False)

    assert (alone.state, alone.fix) == ("warn", "Start one on this machine: tidewatch schedule run.")
    assert [(finding.name, finding.state) for finding in failures] == [("Schedule ill", "warn")]
    assert "failed: exit code 3" in failures[0].detail
    assert next(judge_schedule(entries, last, alive=True)).state == "ok"
