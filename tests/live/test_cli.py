"""The commands, one after the other as a person would give them, on real Kafka and real Redis."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis
from typer.testing import CliRunner

from producers.sessions import COLUMNS
from producers.synthesis import LogSpec
from scorers.errors import ModelError
from stream.contracts import Topics
from stream.kafka import Broker
from tests.live.support import PARTITIONS, eventually, read
from tidewatch.cli import app
from tidewatch.forecast.generate import generate
from tidewatch.tail import drained

START = 1_750_000_000_000
HEALTHY, ALL = 500, 600
"""Seconds; models learn from the first, and one device is odd for the last 50."""
ODD = "pump-2"
DATABASE = 7
"""Of Redis; nobody else's, as a ranking shows every device there is."""


@dataclass(frozen=True, slots=True)
class Shell:
    """Where commands run, and under which settings."""

    folder: Path
    flags: tuple[str, ...]
    broker: Broker
    app: str

    def run(self, *words: str) -> str:
        """The output of a command that ends by itself, and well."""
        done = CliRunner().invoke(app, [*self.flags, *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    def told(self, *words: str) -> Any:
        """The JSON it prints last."""
        return json.loads(self.run(*words, "--json").splitlines()[-1])

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """A command that goes on until it is told to stop."""
        return subprocess.Popen(
            [sys.executable, "-m", "tidewatch", *self.flags, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("TIDEWATCH_")},
        )


@pytest.fixture
def shell(
    kafka: Broker, redis_url: str, topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    prefix = topics.scores.removesuffix(Topics().scores)
    settings = {
        "topics.prefix": prefix,
        "topics.partitions": PARTITIONS,
        "worker.app": f"{prefix}app",
        "worker.epoch_s": 0.2,
        "window.size_s": 5,
        "window.grace_s": 0,
    }
    assigned = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    address = f"{redis_url.rpartition('/')[0]}/{DATABASE}"
    yield Shell(tmp_path, ("--kafka", kafka.bootstrap, "--redis", address, *assigned), kafka, f"{prefix}app")
    with redis.Redis.from_url(address) as client:
        client.flushdb()


@pytest.fixture
def recording(shell: Shell) -> Path:
    """A CSV of three devices, a reading a second."""
    random = np.random.default_rng(3)
    frames = []
    for number in range(3):
        values = random.normal(50, 1, (ALL, 3))
        if f"pump-{number}" == ODD:
            values[-50:] += 12
        stamps = pd.to_datetime(START + 1_000 * np.arange(ALL), unit="ms", utc=True)
        frames.append(pd.DataFrame({"device": f"pump-{number}", "ts": stamps.strftime("%Y-%m-%dT%H:%M:%SZ")}))
        frames[-1][["flow", "pressure", "temperature"]] = values
    path = shell.folder / "pumps.csv"
    pd.concat(frames).to_csv(path, index=False)
    return path


def settle(shell: Shell, topics: Topics) -> None:
    assert drained(shell.broker, shell.app, [topics.readings], within_s=60)


def ended(process: "subprocess.Popen[str]", how: signal.Signals) -> tuple[int, str]:
    """Exit code and output of a command after a signal."""
    process.send_signal(how)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def test_a_recording_becomes_a_fleet_alerts_and_a_ranking(shell: Shell, topics: Topics, recording: Path) -> None:
    counts = shell.folder / "counts.json"
    middle = str(START + 1_000 * HEALTHY)
    with shell.start("worker", "--report", str(counts)) as worker, shell.start("alerts", "--json") as follower:
        try:
            history = shell.told("replay", str(recording), "--speed", "max", "--to", middle)
            settle(shell, topics)
            shell.run("sink", "parquet", "--once")
            fleet = shell.told("train", "--workers", "1")
            eventually(lambda: json.loads(counts.read_text())["models"] == 3, "the fleet in force")
            rest = shell.told("replay", str(recording), "--speed", "max", "--from", middle)
            settle(shell, topics)
            past = [json.loads(line) for line in shell.run("alerts", "--once", "--json").splitlines()]
            shell.run("sink", "redis", "--once")
            oddest = shell.told("top", "--count", "2")
            table = shell.run("top", "--once")
            alive = worker.poll() is None
        finally:
            stopped, heard = ended(worker, signal.SIGINT), ended(follower, signal.SIGTERM)

    assert alive
    assert (history["readings"], rest["readings"]) == (3 * HEALTHY, 3 * (ALL - HEALTHY))
    assert (fleet["trained"], fleet["fleet"]) == (3, "var/fleet.arrow")
    assert [alert["device_id"] for alert in past if alert["state"] == "firing"] == [ODD]
    assert [json.loads(line) for line in heard[1].splitlines()] == past
    assert (len(oddest), oddest[0]["device_id"], oddest[0]["anomaly"]) == (2, ODD, "1")
    assert ODD in table
    assert (stopped[0], heard[0]) == (0, 0)
    assert "Traceback" not in stopped[1]


def test_a_session_log_is_replayed_to_the_topic_of_sessions(shell: Shell, topics: Topics) -> None:
    log = LogSpec(servers=4, days=2, sessions=400, dirty=0.1, seed=1)
    made = generate(log, shell.folder / "log", workers=1, progress=lambda _, __: None).plain()
    words = ["--speed", "max", "--to", "2024-01-02"]

    told = shell.told("replay", str(shell.folder / "log"), *words)
    sent = [message for message in read(shell.broker, [topics.sessions]) if message.value()]
    rows = [json.loads(message.value() or b"") for message in sent]

    assert told["readings"] == len(rows)
    assert 0.4 * made["rows"] < len(rows) + told["unreadable"]["malformed"] < made["rows"]
    assert all(tuple(row) == COLUMNS for row in rows)
    assert all(message.key() == (row["ServerIP"] or "").encode() for message, row in zip(sent, rows, strict=True))


def test_a_varied_fleet_sends_the_sessions_of_a_log(shell: Shell, topics: Topics) -> None:
    words = ["--varied", "--servers", "3", "--session-rate", "0.01", "--speed", "max"]

    told = shell.told("produce", "sessions", *words, "--start", "2024-01-01T18:00:00Z", "--for", "86400")
    rows = [json.loads(message.value() or b"") for message in read(shell.broker, [topics.sessions])]

    assert told["readings"] == len(rows)
    assert 500 < len(rows) < 9_000
    assert min(row["SessionStart"] for row in rows) >= "2024-01-01T18:00"
    assert max(row["SessionStart"] for row in rows) < "2024-01-02T18:00"


def test_a_device_that_cannot_be_trained_is_named_with_the_reason(shell: Shell, topics: Topics) -> None:
    brief = [json.dumps({"device_id": "brief", "ts": START + 1_000 * at, "values": {"flow": at}}) for at in range(30)]
    (shell.folder / "brief.jsonl").write_text("\n".join(brief))
    with shell.start("worker") as worker:
        shell.run("replay", "brief.jsonl", "--speed", "max")
        settle(shell, topics)
        ended(worker, signal.SIGTERM)
    shell.run("sink", "parquet", "--once")
    refused = CliRunner().invoke(app, [*shell.flags, "train", "--workers", "1"]).exception

    assert isinstance(refused, ModelError)
    assert "6 windows" in str(refused)


def test_the_doctor_finds_nothing_to_fix_but_the_fleet(shell: Shell) -> None:
    findings = shell.told("doctor")

    assert {finding["name"] for finding in findings if finding["state"] != "ok"} == {"fleet"}


def test_a_window_more_or_less_makes_folders_differ(shell: Shell, topics: Topics, recording: Path) -> None:
    with shell.start("worker") as worker:
        shell.run("replay", str(recording), "--speed", "max")
        settle(shell, topics)
        ended(worker, signal.SIGTERM)
    shell.run("sink", "parquet", "--once")
    copy = shutil.copytree("var/parquet", shell.folder / "copy")
    same = shell.told("compare", "var/parquet", "copy")
    next(copy.rglob("predictions/**/*.parquet")).unlink()
    differ = CliRunner().invoke(app, ["compare", "var/parquet", "copy"])

    assert same["same"]
    assert differ.exit_code == 1


def test_ctrl_c_ends_what_goes_on_for_ever(shell: Shell, recording: Path) -> None:
    endless = [
        ["produce", "sensors"],
        ["produce", "sessions", "--speed", "60"],
        ["produce", "sessions", "--speed", "60", "--varied"],
        ["replay", str(recording), "--speed", "60", "--loop"],
        ["sink", "parquet"],
        ["sink", "redis"],
        ["worker"],
    ]
    with ExitStack() as running:
        processes = [running.enter_context(shell.start(*words)) for words in endless]
        for process in processes:
            running.callback(process.kill)
        for process in processes:
            eventually(partial(minds_signals, process), "a handler of signals")
        results = [ended(process, signal.SIGINT) for process in processes]

    assert [code for code, _ in results] == [0] * len(endless)
    assert "Traceback" not in "".join(output for _, output in results)


def minds_signals(process: "subprocess.Popen[str]") -> bool:
    """Whether it handles SIGTERM, as nothing does before our own handlers are there."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(caught >> signal.SIGTERM - 1 & 1)
