"""Looks at everything Tidewatch stands on and says what to fix.

Probes ask the outside world and give facts; judges turn facts into findings and touch nothing.
"""

import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource
from packaging.requirements import Requirement

from scorers import pack
from scorers.errors import ConfigError, FleetFileError, ForecasterFileError
from scorers.fleet import Fleet
from scorers.forecast.model import Forecaster
from scorers.forecast.pack import load
from sinks.disk import Disk
from sinks.folder import strays
from sinks.replace import Area
from stream.contracts import Topics
from stream.kafka import MAX_MESSAGE_BYTES, Broker
from tidewatch.entries import Entry
from tidewatch.forecast.settings import model_file
from tidewatch.groups import Redis, Settings
from tidewatch.history import History, Outcome, Run
from tidewatch.locks import running
from tidewatch.settings import mask
from tidewatch.topics import EMBEDDED_CLUSTER, quiet_admin

State = Literal["ok", "warn", "fail"]
PYTHON = (3, 11)
REDIS = (6, 2)
"""The first Redis with everything the sink uses."""
ROOM = 1024**3
"""Bytes of free disk below which the Parquet sink may soon stop."""
SKEW_MS = 2_000
"""Clocks further apart than this are worth a word."""
PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: how it is, and what to do if it is not well."""

    name: str
    state: State
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """One topic as the broker has it."""

    partitions: int
    replicas: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class KafkaFacts:
    """What a broker told; ``topics`` holds those of ours that exist."""

    cluster: str
    brokers: int
    topics: Mapping[str, TopicFacts]


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """What a Redis told; ``skew_ms`` is its clock minus ours."""

    version: str
    limit: int
    """Bytes it may hold, 0 for no limit."""
    policy: str
    skew_ms: int


def diagnose(settings: Settings) -> list[Finding]:
    """Every finding, in the order a person would fix them."""
    names = settings.topics.names()
    kafka = probe_kafka(settings.kafka.broker(), names)
    store = probe_redis(settings.redis)
    writable, free = probe_folder(settings.parquet.folder)
    return [
        judge_python(sys.version_info[:2]),
        *judge_packages(requires("tidewatch") or [], installed(requires("tidewatch") or [])),
        *(judge_kafka(kafka, settings) if isinstance(kafka, KafkaFacts) else [kafka]),
        *(judge_redis(store) if isinstance(store, RedisFacts) else [store]),
        judge_fleet(settings.worker.fleet, probe_fleet(settings.worker.fleet)),
        *judge_forecaster(probe_forecaster(model_file(settings.load))),
        judge_folder(settings.parquet.folder, writable=writable, free=free),
        *judge_tables(*probe_tables(settings.parquet.folder)),
        *judge_schedule(settings.schedule.entries, probe_runs(settings), alive=running(settings.scheduler.folder)),
    ]


def exit_code(findings: Iterable[Finding]) -> int:
    """1 where anything fails, else 0; a warning is no failure."""
    return int(any(finding.state == "fail" for finding in findings))


def probe_kafka(broker: Broker, topics: Topics) -> KafkaFacts | Finding:
    """What the broker says of itself and of our topics, or that it does not answer."""
    try:
        admin = quiet_admin(broker)
        cluster = admin.list_topics(timeout=PATIENCE_S)
        ours = {name: cluster.topics[name].partitions.values() for name in topics.names() if name in cluster.topics}
        embedded = str(cluster.cluster_id).startswith(EMBEDDED_CLUSTER)
        configs = {} if embedded else _configs(admin, ours)
    except ConfigError as error:
        return Finding("kafka", "fail", str(error), "Correct kafka.options.")
    except KafkaException as error:
        fix = "Start it, or set TIDEWATCH_KAFKA to where it is; for TLS or SASL see kafka.options."
        return Finding("kafka", "fail", f"does not answer: {error.args[0].str()}", fix)
    facts = {
        name: TopicFacts(len(cuts), min((len(cut.replicas) for cut in cuts), default=0), configs.get(name, {}))
        for name, cuts in ours.items()
    }
    return KafkaFacts(str(cluster.cluster_id), len(cluster.brokers), facts)


def _configs(admin: AdminClient, topics: Iterable[str]) -> dict[str, dict[str, str]]:
    asked = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in topics]
    answers = admin.describe_configs(asked, request_timeout=PATIENCE_S) if asked else {}
    return {
        about.name: {entry.name: entry.value for entry in answer.result().values()} for about, answer in answers.items()
    }


def judge_kafka(facts: KafkaFacts, settings: Settings) -> list[Finding]:
    """What the broker's facts mean for these settings."""
    names = settings.topics.names()
    if facts.cluster.startswith(EMBEDDED_CLUSTER):
        fix = "Set TIDEWATCH_KAFKA to a real broker for anything but a look."
        return [Finding("kafka", "warn", "the embedded broker answers", fix)]
    findings = [Finding("kafka", "ok", f"cluster {facts.cluster} answers with {facts.brokers} broker(s)")]
    missing = [name for name in names.names() if name not in facts.topics]
    if missing:
        fix = "Start `tidewatch worker`; it makes them."
        findings.append(Finding("topics", "warn", f"missing: {', '.join(missing)}", fix))
    findings.extend(_uneven(facts, names))
    for name, topic in facts.topics.items():
        findings.extend(_ill_made(name, topic, facts.brokers, compact=name in (names.state, names.load)))
    if len(findings) == 1:
        findings.append(Finding("topics", "ok", f"all {len(facts.topics)} are there and well made"))
    return findings


def _uneven(facts: KafkaFacts, names: Topics) -> Iterator[Finding]:
    tied = {
        name: facts.topics[name].partitions
        for name in (names.readings, names.sessions, names.state, names.load)
        if name in facts.topics
    }
    if len(set(tied.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in tied.items())
        fix = f"Add partitions with kafka-topics --alter until each has {max(tied.values())}, while no worker runs."
        yield Finding("partitions", "fail", f"inputs and state must be cut alike, but have: {counts}", fix)


def _ill_made(name: str, topic: TopicFacts, brokers: int, *, compact: bool) -> Iterator[Finding]:
    policy = topic.config.get("cleanup.policy", "")
    alter = f"kafka-configs --alter --entity-type topics --entity-name {name} --add-config"
    if compact and policy != "compact":
        yield Finding(
            name, "fail", f"cleanup.policy is {policy!r}: state will be lost", f"{alter} cleanup.policy=compact"
        )
    if not compact and "compact" in policy:
        yield Finding(
            name, "fail", f"cleanup.policy is {policy!r}: records will be lost", f"{alter} cleanup.policy=delete"
        )
    longest = int(topic.config.get("max.message.bytes", MAX_MESSAGE_BYTES))
    if longest < MAX_MESSAGE_BYTES:
        fix = f"{alter} max.message.bytes={MAX_MESSAGE_BYTES}"
        yield Finding(
            name, "warn", f"takes records of {longest} bytes only, producers may send {MAX_MESSAGE_BYTES}", fix
        )
    if topic.replicas < min(brokers, 2):
        fix = "Set topics.replication to 3 before topics are made, or reassign replicas."
        yield Finding(name, "warn", "is kept on one broker: what that broker loses is lost", fix)


def probe_redis(where: Redis) -> RedisFacts | Finding:
    """What the Redis says of itself, or that it does not answer."""
    try:
        with redis.Redis.from_url(where.url.get_secret_value(), socket_timeout=PATIENCE_S) as client:
            seconds, micros = client.time()
            skew = seconds * 1000 + micros // 1000 - time.time_ns() // 1_000_000
            told = client.info()
    except (redis.RedisError, ValueError) as error:
        fix = "Start it, or set TIDEWATCH_REDIS to where it is, password included."
        return Finding("redis", "fail", f"{mask(where.url)} does not answer: {error}", fix)
    return RedisFacts(str(told["redis_version"]), int(told["maxmemory"]), str(told["maxmemory_policy"]), skew)


def judge_redis(facts: RedisFacts) -> Iterator[Finding]:
    """What the Redis' facts mean."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", facts.version)[:2])
    if numbers < REDIS:
        yield Finding("redis", "fail", f"is version {facts.version}", "Use Redis 6.2 or newer.")
    else:
        yield Finding("redis", "ok", f"version {facts.version} answers")
    if facts.limit and facts.policy != "noeviction":
        detail = f"may drop devices when {facts.limit} bytes are full (maxmemory-policy {facts.policy})"
        yield Finding("redis memory", "warn", detail, "Set maxmemory-policy to noeviction, or give it more memory.")
    if abs(facts.skew_ms) > SKEW_MS:
        detail = f"the clock of Redis is {facts.skew_ms / 1000:+.1f} s from this machine's"
        yield Finding(
            "clocks", "warn", detail, "Synchronise both machines with NTP; readings from the future go to rejects."
        )


def judge_python(running: tuple[int, ...]) -> Finding:
    """Whether this Python will do."""
    shown = ".".join(map(str, running))
    if running < PYTHON:
        return Finding("python", "fail", f"is version {shown}", "Use Python 3.11 or newer.")
    return Finding("python", "ok", f"version {shown}")


def installed(requirements: Iterable[str]) -> dict[str, str]:
    """The version of every required package that is installed."""
    found = {}
    for name in (Requirement(line).name for line in requirements):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def judge_packages(requirements: Iterable[str], found: Mapping[str, str]) -> list[Finding]:
    """Whether what is ``found`` satisfies what the project requires to run; extras do not count."""
    needed = [Requirement(line) for line in requirements]
    needed = [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    fix = "Run `make setup`, or install tidewatch again with pip."
    wrong = [
        Finding("packages", "fail", f"{each.name} is {found.get(each.name, 'missing')}, needs {each.specifier}", fix)
        for each in needed
        if each.name not in found or not each.specifier.contains(found[each.name], prereleases=True)
    ]
    return wrong or [Finding("packages", "ok", f"all {len(needed)} are in range")]


def probe_fleet(path: Path) -> Fleet | FleetFileError | None:
    """The fleet, why it cannot be used, or None where there is none yet."""
    if not path.exists():
        return None
    try:
        return pack.load(path)
    except FleetFileError as error:
        return error


def judge_fleet(path: Path, fleet: Fleet | FleetFileError | None) -> Finding:
    """Whether devices will be scored."""
    if fleet is None:
        return Finding("fleet", "warn", f"there is none at {path}: every device is learning", "Run `tidewatch train`.")
    if isinstance(fleet, FleetFileError):
        return Finding("fleet", "fail", str(fleet), "Run `tidewatch train` again, or put back the last good file.")
    lent = f" and {len(fleet.types)} of types" if fleet.types else ""
    return Finding("fleet", "ok", f"version {fleet.version} with {len(fleet)} models{lent}")


def probe_forecaster(path: Path) -> Forecaster | ForecasterFileError | None:
    """The forecaster, why it cannot be used, or None where there is none."""
    if not path.exists():
        return None
    try:
        return load(path)
    except ForecasterFileError as error:
        return error


def judge_forecaster(found: Forecaster | ForecasterFileError | None) -> Iterator[Finding]:
    """Whether servers can be forecast; nothing where nobody has trained a forecaster."""
    if isinstance(found, ForecasterFileError):
        yield Finding(
            "forecaster", "fail", str(found), "Run `tidewatch load train` again, or put back the last good one."
        )
    elif found is not None:
        yield Finding("forecaster", "ok", f"version {found.version} of {len(found.servers)} servers")


def probe_folder(folder: Path) -> tuple[bool, int]:
    """Whether files can be written in ``folder``, or it can be made; and the free bytes there."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return there.is_dir() and _writable(there), shutil.disk_usage(there).free


def _writable(folder: Path) -> bool:
    trial = folder / f".tidewatch-{time.time_ns()}"
    try:
        trial.touch()
        trial.unlink()
    except OSError:
        return False
    return True


def judge_folder(folder: Path, *, writable: bool, free: int) -> Finding:
    """Whether the Parquet sink can work."""
    if not writable:
        return Finding("parquet", "fail", f"{folder} cannot be written", "Make it writable, or set parquet.folder.")
    room = f"{free / ROOM:.1f} GiB free"
    if free < ROOM:
        return Finding("parquet", "warn", f"{folder} has {room}", "Free some disk, or set parquet.folder.")
    return Finding("parquet", "ok", f"{folder} can be written, {room}")


def probe_tables(folder: Path) -> tuple[list[str], list[Path]]:
    """What is in the tables of the Parquet sink without being a whole file of ours, and what cannot be read."""
    try:
        return [str(stray) for stray in strays(folder)], Area(folder, Disk()).unread()
    except OSError as error:
        return [f"{folder} cannot be read ({error.strerror})"], []


def judge_tables(found: list[str], unread: list[Path]) -> Iterator[Finding]:
    """Whether there is anything in the tables that is no data."""
    if found:
        fix = "Move each out of the folder; what was torn, and what it held, is in no table. See `tidewatch compact`."
        yield Finding("parquet files", "warn", f"{len(found)} left out: {'; '.join(found)}", fix)
    if unread:
        detail = f"a compaction was interrupted: plain readers fail on {', '.join(map(str, unread))}"
        yield Finding("parquet files", "fail", detail, "Run `tidewatch compact`, or start the sink.")


def probe_runs(settings: Settings) -> dict[str, Run | None]:
    """The last run of each entry of the schedule."""
    past = History(settings.scheduler.folder)
    return {name: past.last(name) for name in settings.schedule.entries}


def judge_schedule(entries: Mapping[str, Entry], last: Mapping[str, Run | None], *, alive: bool) -> Iterator[Finding]:
    """Scheduled commands run, and run well; nothing where nothing is scheduled."""
    enabled = [name for name, entry in entries.items() if entry.enabled]
    if enabled and alive:
        yield Finding("Schedule", "ok", f"{len(enabled)} entries, and a scheduler runs them")
    elif enabled:
        fix = "Start one on this machine: tidewatch schedule run."
        yield Finding("Schedule", "warn", f"{len(enabled)} entries, and no scheduler runs them here", fix)
    for name in enabled:
        run = last.get(name)
        if run is not None and run.outcome in (Outcome.FAILED, Outcome.TIMEOUT, Outcome.CUT):
            told = f"its last run, {run.id}, ended as {run.outcome}: {run.reason}"
            yield Finding(f"Schedule {name}", "warn", told, f"See why: tidewatch schedule logs {name}.")
