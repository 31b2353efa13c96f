"""File operations that survive a power cut: everything the Parquet sink does to a disk goes through here."""

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

AT_FDCWD = -100
RENAME_EXCHANGE = 2


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

    def link(self, path: Path, target: Path) -> None:
        """Give a file, or a symbolic link as such, a second name; there must be nothing of that name."""
        os.link(path, target, follow_symlinks=False)

    def exchange(self, path: Path, target: Path) -> None:
        """Swap two folders of a file system in one step; ``sync`` the folders they are in after."""
        rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        if rename is None:  # not Linux, or an old C library
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        if rename(AT_FDCWD, os.fsencode(path), AT_FDCWD, os.fsencode(target), RENAME_EXCHANGE):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path), None, str(target))

    def unlink(self, path: Path) -> None:
        """Delete a file, or a symbolic link and not what it points to, if it is still there."""
        path.unlink(missing_ok=True)

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


@contextmanager
def together(path: Path) -> Iterator[None]:
    """Wait until nobody is ``alone`` with a lock, and keep it so for the length of the block."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
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
