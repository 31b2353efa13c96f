"""Ctrl-C at any moment ends a batch or a training with 130 and no traceback; the same command goes on from there."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.batches import readings, write
from tests.flow.test_training import write as record
from tests.simulator import Device

PROJECT = Path(__file__).parents[2]
MOMENTS = random.Random(3)
BEGIN = "from tidewatch.signals import at_once; at_once(); print('begun', flush=True); "
RUN = "from tidewatch.__main__ import main; main()"


def words(folder: Path) -> list[str]:
    write(folder / "in", readings(), files=6)
    flags = [f"--set=jobs.folder={folder / 'jobs'}", "score", f"--in={folder / 'in'}", f"--out={folder / 'out'}"]
    return [*flags, "--fleet=none", "--job-id=j", "--workers=2"]


def started(*command: str) -> subprocess.Popen[str]:
    """A process that leads a group, as a shell starts it."""
    pipe = subprocess.PIPE
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it, and so would a child
    return subprocess.Popen(
        [sys.executable, *command], cwd=PROJECT, text=True, stdout=pipe, stderr=pipe, start_new_session=True
    )


def interrupted(process: subprocess.Popen[str]) -> list[str]:
    """What is told once a terminal has sent its Ctrl-C, which goes to every process of the group."""
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=120)

    assert process.returncode == 130, told
    return told.splitlines()


def children(process: subprocess.Popen[str]) -> int:
    return len(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())


@pytest.mark.parametrize("moment", [MOMENTS.uniform(0, 1.5) for _ in range(4)])
def test_while_the_command_is_still_imported(tmp_path: Path, moment: float) -> None:
    with started("-c", BEGIN + RUN, *words(tmp_path)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(moment)
        told = interrupted(process)

    assert len(told) <= 2  # its name and how to go on, if it had come so far
    assert not [line for line in told if "Traceback" in line]


@pytest.mark.parametrize("moment", [0.0, *(MOMENTS.uniform(0, 1.0) for _ in range(4))])
def test_while_processes_are_still_importing(tmp_path: Path, moment: float) -> None:
    command = ["-m", "tidewatch", *words(tmp_path)]
    with started(*command) as process:
        while children(process) < 2:  # the first keeps track of what they share
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(moment)
        told = interrupted(process)

    assert told[0] == "job j"
    assert " ".join(told[1:]).startswith("Stopped while reading files; the same command with --job-id j goes on")

    with started(*command) as again:
        _, told_again = again.communicate(timeout=120)

    assert again.returncode == 0, told_again
    assert list((tmp_path / "out").rglob("*.parquet"))


@pytest.mark.parametrize("moment", [0.0, *(MOMENTS.uniform(0, 3.0) for _ in range(2))])
def test_a_training_whose_processes_are_still_importing(tmp_path: Path, moment: float) -> None:
    record(tmp_path / "parquet", {f"pump-{number}": Device(number, 3).windows(120) for number in range(30)})
    places = {"models.registry": "", "models.folder": "models", "worker.fleet": "fleet.arrow"}
    flags = [f"--set={name}={value and tmp_path / value}" for name, value in places.items()]
    command = ["-m", "tidewatch", *flags, "train", f"--statistics={tmp_path / 'parquet'}", "--workers=2"]
    with started(*command) as process:
        while children(process) < 2:
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(moment)
        told = interrupted(process)

    assert not [line for line in told if "Traceback" in line]

    with started(*command) as again:
        out, told_again = again.communicate(timeout=120)

    assert again.returncode == 0, told_again
    assert out.startswith("30 of 30 devices have a new model")
