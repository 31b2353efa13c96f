"""Jobs: what is told of them, how they end, and that nobody runs one twice."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scorers.errors import ConfigError, InputError, UnavailableError
from tidewatch import jobs
from tidewatch.jobs import Cancelled, Jobs, Run, State

HOLD = """
import sys, time
from pathlib import Path
from tidewatch.jobs import Jobs
with Jobs(Path(sys.argv[1])).run("j"):
    print("running", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def shelf(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path / "jobs")


def test_a_job_is_queued_then_running_then_done(shelf: Jobs) -> None:
    job = shelf.create("score", {"in": "a"})
    assert shelf.get(job.id).state is State.QUEUED
    with shelf.run(job.id) as run:
        assert shelf.get(job.id).state is State.RUNNING
        assert shelf.get(job.id).pid == os.getpid()
        run.work.mkdir()
        run.status.counts = {"windows": 3}
        run.log("half\nway")
    done = shelf.get(job.id)

    assert (done.state, done.pid, done.runs, done.counts) == (State.DONE, None, 1, {"windows": 3})
    assert done.created <= (done.started or "") <= (done.ended or "")
    assert "half way" in (shelf.place(job.id) / "log").read_text()
    assert not (shelf.place(job.id) / "work").exists()


def test_a_job_that_fails_says_why_and_keeps_its_work(shelf: Jobs) -> None:
    job = shelf.create("score", {})
    (shelf.place(job.id) / "work").mkdir()
    with pytest.raises(InputError), shelf.run(job.id):
        raise InputError("the file is torn")

    assert shelf.get(job.id).state is State.FAILED
    assert shelf.get(job.id).error == "the file is torn"
    assert (shelf.place(job.id) / "work").is_dir()
    with shelf.run(job.id):
        pass

    assert (shelf.get(job.id).state, shelf.get(job.id).runs, shelf.get(job.id).error) == (State.DONE, 2, None)


def _cancelled_by(shelf: Jobs, run: Run) -> None:
    asked = [run.stopped]
    shelf.cancel(run.status.id)
    assert [*asked, run.stopped] == [False, True]
    run.check()


def test_a_job_is_cancelled_from_outside(shelf: Jobs) -> None:
    job = shelf.create("score", {})
    with pytest.raises(Cancelled), shelf.run(job.id) as run:
        _cancelled_by(shelf, run)

    assert str(shelf.get(job.id).state) == "cancelled"
    with pytest.raises(ConfigError, match="cancelled already"):
        shelf.cancel(job.id)
    with shelf.run(job.id) as run:
        assert not run.stopped


def test_a_job_that_waits_is_cancelled_at_once(shelf: Jobs) -> None:
    job = shelf.create("score", {})

    assert shelf.cancel(job.id).state is State.CANCELLED
    assert shelf.get(job.id).state is State.CANCELLED


def test_a_job_whose_process_was_killed_is_lost_and_may_be_run_again(
    shelf: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "PATIENCE_S", 0.0)
    shelf.create("score", {}, "j")
    with subprocess.Popen([sys.executable, "-c", HOLD, shelf.folder], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        assert shelf.get("j").state is State.RUNNING
        with pytest.raises(UnavailableError, match="run by another process"), shelf.run("j"):
            pass
        with pytest.raises(ConfigError, match="running; cancel it first"):
            shelf.delete("j")
        process.send_signal(signal.SIGKILL)
        process.wait()

    assert shelf.get("j").state is State.LOST
    with shelf.run("j"):
        assert shelf.get("j").state is State.RUNNING
    assert shelf.get("j").state is State.DONE
    shelf.delete("j")
    assert shelf.list() == []


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "/etc", "../x", "-a", "_a", "a b", "a\n", "é", "x" * 101])
def test_ids_lead_nowhere_else(name: str, shelf: Jobs) -> None:
    for act in (shelf.get, shelf.cancel, shelf.delete, shelf.place):
        with pytest.raises(ConfigError, match="no job id"):
            act(name)
    with pytest.raises(ConfigError, match="no job id"):
        shelf.create("score", {}, name)
    assert not shelf.folder.exists()


def test_jobs_are_listed_oldest_first_and_those_not_there_are_told(shelf: Jobs) -> None:
    first, second = shelf.create("score", {}), shelf.create("train", {}, "b")

    assert [job.id for job in shelf.list()] == [first.id, second.id]
    with pytest.raises(InputError, match="no job 'c'"):
        shelf.get("c")
    with pytest.raises(ConfigError, match="is a train"):
        shelf.create("score", {}, "b")
    (shelf.folder / "b" / "status.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        shelf.get("b")
    assert [job.state for job in shelf.list()] == [State.FAILED, State.QUEUED]
