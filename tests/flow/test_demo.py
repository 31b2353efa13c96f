"""``tidewatch up`` on its embedded stack, from nothing to its account of what came of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tidewatch.commands.up import KEYS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(folder: Path) -> subprocess.CompletedProcess[str]:
    """One run of the demo; a folder of its own marks every process of it."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TIDEWATCH_")}
    command = [sys.executable, "-m", "tidewatch", "up", "--for", "60", "--fault-rate", "6", "--json"]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=240, check=False)


def processes_in(folder: Path) -> list[str]:
    """The command lines of processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has just ended, or is not ours to look at
            continue
    return found


def test_the_demo_finds_its_faults_and_leaves_healthy_windows_alone(
    demo: subprocess.CompletedProcess[str],
) -> None:
    summary = json.loads(demo.stdout.splitlines()[-1])

    assert demo.returncode == 0, demo.stderr
    assert tuple(summary) == KEYS
    assert summary["fault_recall"] >= 0.8
    assert summary["false_alarm_rate"] <= 0.01


def test_every_part_of_the_demo_did_its_work(demo: subprocess.CompletedProcess[str], folder: Path) -> None:
    summary = json.loads(demo.stdout.splitlines()[-1])
    (kept,) = (folder / "var" / "up").iterdir()
    idle = [key for key in KEYS if key != "false_alarm_rate" and not summary[key]]

    assert not idle
    assert summary["readings"] > summary["windows"] >= summary["scores"] > summary["anomalies"]
    assert json.loads((kept / "summary.json").read_text()).items() >= summary.items()


def test_the_demo_writes_nothing_for_terminals_into_pipes(demo: subprocess.CompletedProcess[str], folder: Path) -> None:
    logs = "".join(log.read_text("utf-8") for log in folder.rglob("*.log"))

    assert "\x1b" not in demo.stdout + demo.stderr + logs
    assert "%3|" not in demo.stderr + logs
    assert "Traceback" not in demo.stderr + logs


@pytest.mark.usefixtures("demo")
def test_the_demo_leaves_no_process_and_no_stray_file_behind(folder: Path) -> None:
    assert processes_in(folder) == []
    assert [path.name for path in folder.iterdir()] == ["var"]
