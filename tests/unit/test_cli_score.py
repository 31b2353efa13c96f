"""`tidewatch score` and `tidewatch jobs`: what they print, and with which code they end."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scorers.errors import ConfigError, InputError
from tests import batches
from tests.batches import readings, train, write
from tidewatch.cli import app
from tidewatch.jobs import Jobs

PROJECT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a recording and a fleet."""
    monkeypatch.chdir(tmp_path)
    train(batches.settings(tmp_path / "var"))
    write(tmp_path / "in", readings(), files=2)
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["--set", "batch.shards=2", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


SCORE = ("score", "--in", "in", "--out", "out", "--workers", "1")


def test_a_batch_is_scored_and_its_job_is_told_of() -> None:
    code, shown = run(*SCORE, "--job-id", "a")

    assert code == 0
    assert "432 windows" in " ".join(shown.split())
    assert run("jobs", "list")[1].count("done") >= 1
    code, shown = run("jobs", "show", "a", "--json")
    about = json.loads(shown)
    assert (code, about["state"], about["counts"]["windows"], len(about["devices"])) == (0, "done", 432, 6)
    assert run("jobs", "show", "a")[0] == 0
    assert "files of readings" in run("jobs", "logs", "a", "-f")[1]
    assert run("jobs", "list", "--json")[0] == 0
    with pytest.raises(ConfigError, match="done already"):
        run("jobs", "cancel", "a")
    assert run("jobs", "delete", "a") == (0, "a is gone\n")
    with pytest.raises(InputError, match="no job"):
        run("jobs", "show", "a")


def test_what_failed_in_part_ends_with_1_and_one_object_where_asked() -> None:
    code, shown = run(*SCORE, "--devices", "pump-*", "--devices", "ghost", "--json", "--format", "csv")
    about = json.loads(shown)

    assert code == 1
    assert about["failures"] == 1
    assert about["counts"]["devices"] == 3
    assert run("jobs", "show", about["id"])[0] == 1


def test_windows_without_models_are_written_to_train_on() -> None:
    code, shown = run(*SCORE, "--fleet", "none", "--json")

    assert code == 0
    assert json.loads(shown)["counts"]["scored"] == 0
    assert (
        run("--set", "training.min_windows=20", "train", "--statistics", "out", "--fleet", "new", "--workers", "1")[0]
        == 0
    )


def test_flags_that_make_no_sense_are_refused() -> None:
    for words, what in (
        (("--from", "2026-02-01", "--to", "2026-01-01"), "--from is not before --to"),
        (("--from", "soon"), "--from 'soon' is neither"),
        (("--job-id", "../x"), "no job id"),
        (("--devices", "@nowhere"), "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=what):
            run(*SCORE, *words)


def test_ctrl_c_leaves_nothing_and_the_same_job_goes_on(place: Path) -> None:
    words = [sys.executable, "-m", "tidewatch", "--set=batch.shards=2", *SCORE[:-1], "2", "--job-id", "c"]
    environment = {"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(words, cwd=place, env=environment, stderr=subprocess.PIPE) as process:
        status = place / "var" / "jobs" / "c" / "status.json"
        while not (status.exists() and "running" in status.read_text()):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        told = process.communicate()[1].decode()

    assert process.returncode == 130, told
    assert "--job-id c goes on from there" in " ".join(told.split())
    assert not (place / "out").exists()
    assert Jobs(place / "var" / "jobs").get("c").state in {"cancelled", "queued"}
    assert subprocess.run(words, cwd=place, env=environment, check=False, capture_output=True).returncode == 0
