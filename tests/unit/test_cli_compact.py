"""`tidewatch compact` as a person gives it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scorers.errors import ConfigError, InputError
from tests.compaction import DAY, fill, plain
from tidewatch.cli import app

MUCH_TO_DO = """
import signal
import time
from sinks.merge import Merger
from tidewatch.cli import main
merge = Merger.merge
def merge_for_long(*arguments, **options):
    written = merge(*arguments, **options)
    time.sleep(5)
    return written
Merger.merge = merge_for_long
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
"""Tidewatch on a disk so slow that a compaction can be met in the middle; hearing Ctrl-C, which what a shell runs in
the background does not."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "var" / "parquet")
    return tmp_path / "var" / "parquet"


def test_a_folder_is_compacted_as_planned_and_then_there_is_nothing_to_do(folder: Path) -> None:
    before = plain(folder)
    run = CliRunner()
    planned = json.loads(run.invoke(app, ["compact", "--dry-run", "--json"]).stdout)
    done = json.loads(run.invoke(app, ["compact", str(folder), "--json"], catch_exceptions=False).stdout)
    again = run.invoke(app, ["compact", "--keep-s", "0"])
    last = run.invoke(app, ["compact", "--table", "statistics", "--since", "2023-11-16"])

    assert [merge["files_before"] for merge in done["merges"]] == [10, 11, 10, 11]
    assert [merge["rows"] for merge in planned["merges"]] == [merge["rows"] for merge in done["merges"]]
    assert done["strays"] == []
    assert done["kept_bytes"] > 0
    assert [(result.exit_code, result.stdout) for result in (again, last)] == [(0, "Nothing to merge.\n")] * 2
    assert plain(folder) == before


def test_what_is_not_ours_is_named_and_makes_the_exit_code_1(folder: Path) -> None:
    (folder / "predictions" / DAY / "part-0.parquet").write_bytes(b"half")
    run = CliRunner().invoke(app, ["compact"])

    assert run.exit_code == 1
    assert "part-0.parquet is not named as a file of ours" in run.output
    assert "10 files of" in run.output


def test_wrong_words_and_folders_are_refused(folder: Path) -> None:
    run = CliRunner()
    errors = [run.invoke(app, words).exception for words in (["compact", "--since", "today"], ["compact", "elsewhere"])]

    assert [type(error) for error in errors] == [ConfigError, InputError]
    assert folder.is_dir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_compaction_leaves_everything_in_order(folder: Path, number: signal.Signals) -> None:
    before = plain(folder)
    command = [sys.executable, "-c", MUCH_TO_DO, "compact", "--keep-s", "0"]
    with subprocess.Popen(command, cwd=folder.parents[1]) as process:
        while not list(folder.glob("_compact/draft~*")):
            assert process.poll() is None
        process.send_signal(number)

    assert process.returncode == 130
    assert not list(folder.glob("_compact/draft~*"))
    assert not list(folder.glob("_compact/spill~*"))
    assert plain(folder) == before
