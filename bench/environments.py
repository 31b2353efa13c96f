"""Where the peers run: each in an environment of its own, made once from what it pins."""

import hashlib
import json
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from bench.arena import PARTITIONS, Arena
from bench.job import SIZE_MS
from bench.process import PROJECT
from scorers.errors import ConfigError

PEERS = PROJECT / "bench" / "peers"
_HOME = PEERS / ".environments"


def python(name: str) -> Path:
    """The interpreter of an environment that holds what ``bench/peers/<name>.txt`` pins.

    Raises:
        ConfigError: pip does not get it done.
    """
    pinned = PEERS / f"{name}.txt"
    home = _HOME / f"{name}-{hashlib.sha256(pinned.read_bytes()).hexdigest()[:12]}"
    found = home / "bin" / "python"
    if not (home / "done").exists():
        shutil.rmtree(home, ignore_errors=True)
        _do([sys.executable, "-m", "venv", str(home)], name)
        _do([str(found), "-m", "pip", "install", "--quiet", "--requirement", str(pinned)], name)
        (home / "done").touch()
    return found


def java(name: str) -> str:
    """The class path of the program that ``bench/peers/<name>/pom.xml`` builds.

    Raises:
        ConfigError: Maven does not get it done.
    """
    home = PEERS / name
    sources = b"".join(path.read_bytes() for path in sorted(home.rglob("*")) if path.suffix in {".java", ".xml"})
    done = home / "target" / f"done-{hashlib.sha256(sources).hexdigest()[:12]}"
    if not done.exists():
        _do(["mvn", "--batch-mode", "--quiet", "--file", str(home / "pom.xml"), "clean", "package"], name)
        done.touch()
    return f"{home / 'target' / 'classes'}:{home / 'target' / 'jars' / '*'}"


def job(arena: Arena) -> str:
    """What a peer is told, as JSON: where to read and write, what windows, what to train on, a name of its own."""
    return json.dumps(
        {
            "bootstrap": arena.broker.bootstrap,
            "readings": arena.source,
            "loads": ",".join(arena.job.metric_names) if arena.job.sessions else "",
            "scores": arena.topics.scores,
            "partitions": PARTITIONS,
            "window_ms": SIZE_MS,
            "past": str(arena.past),
            "name": f"bench-{uuid.uuid4().hex[:8]}",
            "folder": str(arena.folder),
        }
    )


def _do(command: list[str], name: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ConfigError(f"{name} needs {command[0]!r}, which is not installed; leave it out with --only.") from error
    if done.returncode:
        told = (done.stderr or done.stdout).strip()[-1_000:]
        raise ConfigError(f"{name} cannot be had: {told}; leave it out with --only.")
