"""A service under load answers every request while its champion is swapped by the registry, and while it leaves."""

import json
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_no_request_fails_while_the_champion_is_swapped_and_the_service_leaves() -> None:
    words = ["swaps", "--seconds", "6", "--swaps", "3", "--connections", "16", "--json"]
    command = [sys.executable, "-m", "bench", *words]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    told = json.loads(done.stdout.splitlines()[-1])

    assert (told["failed"], told["unseen"], told["errors"], told["code"]) == ({}, [], [], 0), done.stderr
    assert set(told["versions"]) == {"v0", "v1", "v2", "v3"}
    assert told["told"]["connection refused"] == 16
    assert sum(told["told"].values()) == 20
    assert done.returncode == 0
