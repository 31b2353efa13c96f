"""Locks among processes: one scheduler a folder, one run an entry. They end with who holds them, by SIGKILL too."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scorers.errors import UnavailableError

_TRIES = 20
"""A lock may be held for a moment by somebody who only looks."""


@contextmanager
def lock(path: Path, tries: int = _TRIES) -> Iterator[int | None]:
    """Hold a lock among processes; its file descriptor, or None where another holds it.

    Raises:
        UnavailableError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UnavailableError(f"The lock {path} cannot be used ({error}); check who may write there.") from error
    try:
        yield held if any(_taken(held, wait_s=attempt and 0.05) for attempt in range(tries)) else None
    finally:
        os.close(held)


def _taken(held: int, wait_s: float) -> bool:
    time.sleep(wait_s)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def only(folder: Path) -> Iterator[None]:
    """Be the one scheduler of this folder.

    Raises:
        UnavailableError: another one is.
    """
    path = folder / "scheduler.lock"
    with lock(path) as held:
        if held is None:
            holder = path.read_text("utf-8").strip()
            raise UnavailableError(
                f"A scheduler runs in {folder} already (process {holder}); one is enough, stop it first."
            )
        os.truncate(held, 0)
        os.write(held, f"{os.getpid()}\n".encode())
        yield


def running(folder: Path) -> bool:
    """Whether a scheduler runs in this folder."""
    if not (folder / "scheduler.lock").exists():
        return False
    with lock(folder / "scheduler.lock", tries=1) as held:
        return held is None
