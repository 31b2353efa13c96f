"""Commands at their times, as processes: what ends, overlaps, is killed and is begun again.

The commands are stand-ins that the working directory holds; scheduler, history, locks and processes are real.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scorers.errors import UnavailableError
from tests.unit.test_digest import MINUTE, START, kept, window
from tidewatch.cli import app
from tidewatch.entries import Entry
from tidewatch.history import History, Outcome, Run, Why
from tidewatch.locks import lock, running
from tidewatch.runner import OVERLAP, Log, Runner, Stop, clock, older
from tidewatch.scheduler import QUEUED, Daemon, Timetable
from tidewatch.settings import InForce, load

PROGRAM = Path(sys.executable).parent / "tidewatch"
STANDIN = """
import os, pathlib, signal, subprocess, sys, time
assert sys.argv[1:3] == ["--config", os.devnull]
word = sys.argv[3]
print(*sys.argv[3:], flush=True)
pathlib.Path("pids").open("a").write(f"{os.getpid()}\\n")
if word == "doctor":
    sys.exit(3)
if word == "models":
    print(*sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("TIDEWATCH_")))
if word == "report":
    print("x" * 99 + "\\n" * 1, end="" , flush=True)
    for number in range(2000):
        print(f"{number:04d} " + "x" * 94)
if word == "compare":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if word == "evaluate":
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pathlib.Path("pids").open("a").write(f"{grandchild.pid}\\n")
    sys.exit(0)
while word in ("train", "compare") and not pathlib.Path("go").exists():
    time.sleep(0.02)
"""
TRAIN = '[schedule.nightly]\ncommand = "train"\n'
FAST = "every_s = 1\n"
YEARLY = 'cron = "0 0 1 1 *"\n'
PATIENT = YEARLY + "grace_s = 31536000\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working directory with the stand-in, and nothing left running."""
    monkeypatch.chdir(tmp_path)
    for variable in ("TIDEWATCH_KAFKA", "TIDEWATCH_REDIS"):
        monkeypatch.delenv(variable, raising=False)
    Path("tidewatch").mkdir()
    Path("tidewatch/__init__.py").write_text("")
    Path("tidewatch/__main__.py").write_text(STANDIN)
    yield
    Path("go").write_text("")
    eventually(lambda: not any(map(alive, pids())))


def eventually(holds: Callable[[], object], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, [run.plain() for run in past()]
        time.sleep(0.02)


def pids() -> list[int]:
    return [int(line) for line in Path("pids").read_text().split()] if Path("pids").exists() else []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def past(entry: str | None = None) -> list[Run]:
    """The history, oldest first."""
    return History(Path("var/schedule")).runs(entry, 1000)[::-1]


def outcomes(entry: str | None = None) -> list[str]:
    return [run.outcome.value for run in past(entry)]


def settings(toml: str) -> InForce:
    Path("tidewatch.toml").write_text(toml)
    return load(environ={})


def made(command: str, **more: object) -> Run:
    """One run, here and now."""
    entry = Entry.model_validate({"command": command, "every_s": 3600, **more})
    run = Runner(settings("[scheduler]\nlog_bytes = 50000\n"), Stop(0)).make("it", entry, Why.NOW, clock())
    assert run is not None
    return run


@contextmanager
def daemon(toml: str) -> Iterator[threading.Event]:
    """A scheduler in a thread; set what is given, and it stops."""
    stop, failures = threading.Event(), []
    runner = Runner(settings(toml), Stop(0.2))

    def live() -> None:
        try:
            Daemon(runner, lambda *_: None).run(stop)
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(60)
    assert failures == []


def program(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_run_keeps_what_it_printed_and_how_it_ended() -> None:
    Path("go").write_text("")
    run = made("train", args=["--workers", "2"])

    assert (run.outcome, run.code, run.words) == (Outcome.OK, 0, ["train", "--workers", "2"])
    assert Path("var/schedule/logs/it/1.log").read_text() == "train --workers 2\n"


def test_a_run_has_the_settings_that_are_in_force_here(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner(settings("[window]\nsize_s = 7\n" + TRAIN + FAST), Stop(0))
    settings("[window]\nsize_s = 9\ngrace_s = 1\n")
    monkeypatch.setenv("TIDEWATCH_WINDOW__IDLE_S", "11")
    runner.make("it", Entry(command="models", every_s=60), Why.NOW, clock())

    assert runner.log("it", 1).read_text() == "models\nTIDEWATCH_WINDOW__SIZE_S=7\n"


def test_a_command_that_fails_is_told_with_its_exit_code() -> None:
    run = made("doctor")

    assert (run.outcome, run.code, run.reason) == (Outcome.FAILED, 3, "exit code 3")


def test_a_run_that_takes_too_long_is_ended() -> None:
    run = made("train", timeout_s=1)

    assert (run.outcome, run.code, run.reason) == (Outcome.TIMEOUT, -signal.SIGTERM, "longer than timeout_s (1)")


def test_a_run_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewatch.runner.KILL_S", 0.2)
    run = made("compare", timeout_s=1)

    assert (run.outcome, run.code) == (Outcome.TIMEOUT, -signal.SIGKILL)


def test_what_a_run_leaves_behind_ends_with_it() -> None:
    run = made("evaluate")

    assert run.outcome is Outcome.OK
    eventually(lambda: not any(map(alive, pids())))
    assert len(pids()) == 2


def test_a_long_log_keeps_its_end() -> None:
    made("report")
    log = Path("var/schedule/logs/it/1.log")
    text = older(log).read_text() + log.read_text()

    assert text.endswith("1999 " + "x" * 94 + "\n")
    assert 50_000 <= len(text) <= 100_000 + 65_536


def test_a_log_that_the_disk_does_not_take_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Log, "write", full)

    assert made("report").outcome is Outcome.OK


def test_logs_go_with_the_runs_they_are_of() -> None:
    entry = Entry(command="doctor", every_s=3600)
    runner = Runner(settings("[scheduler]\nkeep_runs = 2\n"), Stop(0))
    for _ in range(4):
        runner.make("it", entry, Why.NOW, clock())

    assert [run.id for run in past()] == [3, 4]
    assert sorted(path.name for path in Path("var/schedule/logs/it").iterdir()) == ["3.log", "4.log"]


def test_a_period_begins_where_the_last_run_that_went_well_ended() -> None:
    noon = datetime(2026, 7, 1, 12, tzinfo=UTC)
    entry = Entry(command="compact", args=("{start}", "{end}"), every_s=3600)
    runner = Runner(settings(""), Stop(0))
    runner.make("it", entry, Why.SCHEDULED, noon)
    runner.make("it", entry.model_copy(update={"command": "doctor"}), Why.SCHEDULED, noon + timedelta(hours=1))
    runner.make("it", entry, Why.SCHEDULED, noon + timedelta(hours=2))

    assert [run.words[1:] for run in past()] == [
        ["2026-07-01T11:00:00Z", "2026-07-01T12:00:00Z"],
        ["2026-07-01T12:00:00Z", "2026-07-01T13:00:00Z"],
        ["2026-07-01T12:00:00Z", "2026-07-01T14:00:00Z"],
    ]


def test_a_second_run_of_an_entry_is_skipped_while_one_is_under_way() -> None:
    with daemon(TRAIN + FAST):
        eventually(lambda: any(run.times > 1 for run in past()))
        Path("go").write_text("")
        eventually(lambda: "ok" in outcomes())
    first, skipped = past()[:2]

    assert (first.outcome, skipped.outcome, skipped.reason) == (Outcome.OK, Outcome.SKIPPED, OVERLAP)


def test_more_entries_than_may_run_at_once_wait_for_their_turn() -> None:
    with daemon("[scheduler]\nconcurrency = 1\n" + TRAIN + FAST + TRAIN.replace("nightly", "other") + FAST):
        eventually(lambda: QUEUED in {run.reason for run in past()})
        assert len(pids()) == 1
        Path("go").write_text("")
        eventually(lambda: {run.entry for run in past() if run.outcome is Outcome.OK} == {"nightly", "other"})


def test_one_run_makes_up_for_all_that_were_missed() -> None:
    Path("go").write_text("")
    toml = TRAIN + PATIENT
    long_ago(toml)
    with daemon(toml):
        eventually(lambda: outcomes() == ["ok"])
    with daemon(toml):
        pass
    (run,) = past()

    assert (run.why, run.scheduled) == (Why.MISSED, datetime(clock().year, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("policy", ['missed = "skip"', "grace_s = 0"])
def test_missed_runs_are_told_where_they_are_not_made_up_for(policy: str) -> None:
    toml = TRAIN + YEARLY + policy
    long_ago(toml)
    for _ in range(2):
        with daemon(toml):
            eventually(lambda: outcomes() == ["missed"])

    assert pids() == []


def long_ago(toml: str) -> None:
    """As if a scheduler had last run years ago."""
    entry = settings(toml).settings.schedule.entries["nightly"]
    History(Path("var/schedule")).settled("nightly", entry.timing, datetime(2020, 5, 5, tzinfo=UTC))


def test_what_is_stopped_is_told_and_made_again_by_the_next_scheduler() -> None:
    toml = TRAIN + PATIENT
    long_ago(toml)
    with daemon(toml):
        eventually(pids)
    assert outcomes() == ["stopped"]
    Path("go").write_text("")
    with daemon(toml):
        eventually(lambda: outcomes()[1:] == ["ok"])

    first, second = past()
    assert (second.why, second.scheduled) == (Why.AGAIN, first.scheduled)


def test_only_one_scheduler_runs_in_a_folder() -> None:
    with daemon(TRAIN + YEARLY):
        eventually(lambda: running(Path("var/schedule")))
        with pytest.raises(UnavailableError, match=f"process {os.getpid()}"):
            Daemon(Runner(load(environ={}), Stop(0)), lambda *_: None).run(threading.Event())
    assert not running(Path("var/schedule"))


def test_an_entry_under_way_elsewhere_is_not_run_now() -> None:
    settings(TRAIN + YEARLY)
    with lock(Path("var/schedule/locks/nightly.lock")):
        error = CliRunner().invoke(app, ["schedule", "now", "nightly"]).exception

    assert isinstance(error, UnavailableError)
    assert "nightly is under way in another process" in str(error)
    assert past() == []


def test_now_runs_at_once_and_ends_as_the_command_does() -> None:
    settings('[schedule.check]\ncommand = "doctor"\n' + YEARLY)
    result = CliRunner().invoke(app, ["schedule", "now", "check", "--json"])
    told = json.loads(result.stdout)
    text = CliRunner().invoke(app, ["schedule", "logs", "check"]).stdout
    listed = json.loads(CliRunner().invoke(app, ["schedule", "list", "--json"]).stdout)
    rows = json.loads(CliRunner().invoke(app, ["schedule", "history", "--json"]).stdout)

    assert result.exit_code == 3
    assert (told["outcome"], told["why"], told["code"]) == ("failed", "now", 3)
    assert text == "doctor\n"
    assert (listed["running"], listed["entries"][0]["last"]["outcome"]) == (False, "failed")
    assert rows[0]["log"] == "var/schedule/logs/check/1.log"


def test_ctrl_c_ends_a_run_by_hand_with_130() -> None:
    settings(TRAIN + YEARLY)
    with program("schedule", "now", "nightly") as by_hand:
        eventually(pids)
        by_hand.send_signal(signal.SIGINT)
        assert by_hand.wait(60) == 130

    assert outcomes() == ["stopped"]
    assert not any(map(alive, pids()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_scheduler_that_is_told_to_stop_ends_its_runs_and_well(number: signal.Signals) -> None:
    settings("[scheduler]\nstop_s = 0.1\n" + TRAIN + FAST)
    with program("schedule", "run") as scheduler:
        eventually(pids)
        scheduler.send_signal(number)
        told = scheduler.communicate(timeout=60)[0]

    assert scheduler.returncode == 0, told
    assert "stopped" in outcomes()
    assert not any(map(alive, pids()))


def test_a_scheduler_that_is_told_twice_waits_for_nothing() -> None:
    settings("[scheduler]\nstop_s = 600\n" + TRAIN + FAST)
    with program("schedule", "run") as scheduler:
        eventually(pids)
        scheduler.send_signal(signal.SIGINT)
        assert scheduler.stdout is not None
        assert any("stopping" in line for line in scheduler.stdout)
        scheduler.send_signal(signal.SIGINT)
        scheduler.communicate(timeout=60)

    assert scheduler.returncode == 130
    assert {run.outcome for run in past()} - {Outcome.SKIPPED} == {Outcome.STOPPED}
    assert not any(map(alive, pids()))


def test_a_run_under_way_may_end_by_itself_when_the_scheduler_is_told_to_stop() -> None:
    settings("[scheduler]\nstop_s = 600\n" + TRAIN + FAST)
    with program("schedule", "run") as scheduler:
        eventually(pids)
        scheduler.send_signal(signal.SIGTERM)
        Path("go").write_text("")
        scheduler.communicate(timeout=60)

    assert scheduler.returncode == 0
    assert {run.outcome for run in past()} - {Outcome.SKIPPED} == {Outcome.OK}


def test_a_run_by_hand_that_is_killed_is_told_by_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewatch.scheduler.SWEEP_S", 0.05)
    with daemon(TRAIN + YEARLY):
        with program("schedule", "now", "nightly") as by_hand:
            eventually(pids)
            by_hand.kill()
        eventually(lambda: outcomes() == ["cut"])


def test_a_host_that_slept_makes_the_last_of_the_missed_times_and_goes_on() -> None:
    table = Timetable(Entry(command="train", every_s=60))
    slept, woke = datetime(2026, 7, 1, 12, tzinfo=UTC), datetime(2026, 7, 1, 20, 0, 30, tzinfo=UTC)
    last = table.get_next_fire_time(slept, woke)

    assert last == datetime(2026, 7, 1, 20, tzinfo=UTC)
    assert table.get_next_fire_time(last, woke) == datetime(2026, 7, 1, 20, 1, tzinfo=UTC)


def test_a_history_that_cannot_be_written_ends_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise UnavailableError("no space")

    monkeypatch.setattr("tidewatch.scheduler.SWEEP_S", 0.05)
    monkeypatch.setattr(History, "begin", full)
    with pytest.raises(UnavailableError, match="no space"):
        Daemon(Runner(settings(TRAIN + FAST), Stop(0)), lambda *_: None).run(threading.Event())

    assert pids() == []


def test_a_scheduler_killed_in_the_middle_of_a_run_tells_and_makes_it_again() -> None:
    """A one-second interval: what was cut is made up for by the next run that is due."""
    settings(TRAIN + FAST)
    with program("schedule", "run") as scheduler:
        eventually(pids)
        scheduler.kill()
    eventually(lambda: not any(map(alive, pids())))
    assert outcomes()[0] == "running"
    listed = json.loads(CliRunner().invoke(app, ["schedule", "list", "--json"]).stdout)
    assert listed["entries"][0]["last"]["outcome"] == "cut"

    Path("go").write_text("")
    with program("schedule", "run") as scheduler:
        eventually(lambda: outcomes().count("ok") >= 2)
        scheduler.terminate()
        told = scheduler.communicate(timeout=60)[0]
    first, *rest = [run for run in past() if run.outcome is not Outcome.SKIPPED]

    assert scheduler.returncode == 0, told
    assert (first.outcome, first.reason) == (Outcome.CUT, "the process that ran it died")
    assert {run.outcome for run in rest} <= {Outcome.OK, Outcome.STOPPED}


def test_a_run_that_was_cut_is_made_again_once() -> None:
    toml = TRAIN + PATIENT
    long_ago(toml)
    for _ in range(2):
        Path("pids").unlink(missing_ok=True)
        with program("schedule", "run") as scheduler:
            eventually(pids)
            scheduler.kill()
        eventually(lambda: not any(map(alive, pids())))
    with program("schedule", "run") as scheduler:
        eventually(lambda: outcomes() == ["cut", "cut"])
        scheduler.terminate()
        scheduler.communicate(timeout=60)
    first, second = past()

    assert (second.why, second.scheduled) == (Why.AGAIN, first.scheduled)


def test_a_report_of_what_came_since_the_last_one_is_made_on_time() -> None:
    shutil.rmtree("tidewatch")  # the command itself
    now = int(clock().timestamp() * 1000)
    shift = (now - 10 * MINUTE) // MINUTE * MINUTE - START
    rows = [window("ill", minute, 90.0 if minute > 2 else 10.0) for minute in range(5)]
    for row in rows:
        row |= {name: row[name] + shift for name in ("window_start", "window_end")}
    kept(Path("var/parquet"), rows)
    settings(
        '[schedule.daily]\ncommand = "report"\nevery_s = 3600\n'
        'args = ["--from", "{start}", "--to", "{end}", "--out", "fleet-{end:%Y}.html", "--json"]\n'
    )
    result = CliRunner().invoke(app, ["schedule", "now", "daily", "--json"])
    (run,) = past("daily")
    told = json.loads(Path("var/schedule/logs/daily/1.log").read_text().splitlines()[-1])

    assert (result.exit_code, run.outcome) == (0, Outcome.OK)
    assert (told["totals"]["windows"], told["totals"]["firing"]) == (5, 1)
    assert "ill" in Path(told["page"]).read_text()
