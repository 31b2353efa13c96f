"""The fault harness in its short form: a minute of harm, and nothing lost, doubled or wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
MINUTES = 1.0
MOST_S = 420.0
"""Far more than it takes; a hang should not last for ever."""


def test_a_minute_of_harm_loses_doubles_and_spoils_nothing(kafka_jars: Path) -> None:
    if not shutil.which("redis-server"):
        pytest.skip("there is no redis-server: install it")
    how = ["--minutes", str(MINUTES), "--gap", "4", "--rate", "1600", "--seed", "3", "--json"]
    command = [sys.executable, "-m", "tests.chaos", *how]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=MOST_S, check=False)
    assert done.returncode in {0, 1}, done.stderr
    assert done.stdout, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])

    assert kafka_jars.exists()
    assert (told["lost"], told["doubled"], told["wrong"]) == (0, 0, 0), done.stderr
    assert told["faults"] >= 8
    assert told["windows"] > 0
