"""File operations that survive a power cut: everything the Parquet sink does to a disk goes through here."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class Disk:
    """Each operation has happened wholly or not at all once a crash is over, but for ``write``.

    All raise OSError.
    """

    def make(self, folder: Path) -> None:
        """Create a folder and its parents."""
        if not folder.is_dir():
            self.make(folder.parent)
            folder.mkdir(exist_ok=True)
            self.sync(folder.parent)

    def write(self, path: Path, content: Callable[[BinaryIO], object]) -> None:
        """Create a file and fill it; a crash may leave a part of it."""
        with path.open("wb") as file:
            content(file)
            file.flush()
            os.fsync(file.fileno())

    def move(self, path: Path, target: Path) -> None:
        """Rename a file or folder within the file system, over a file of that name; ``sync`` both folders after."""
        path.replace(target)

    def sync(self, folder: Path) -> None:
        """Make durable which names a folder holds."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, folder: Path) -> None:
        """Delete a folder and the files in it."""
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait for an exclusive lock, and hold it for the length of the block."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def lock(path: Path) -> int | None:
    """Take an exclusive lock that ends with the process; its file descriptor, None while another holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
