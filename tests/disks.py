"""Disks that crash, fill up, or let something happen, before any of their operations."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from sinks.disk import Disk


class CrashError(BaseException):
    """The process is gone; nothing may catch this."""


class Hooked(Disk):
    """A disk that calls ``hook`` before each operation; ``write`` calls it once more with half the file written."""

    def __init__(self, hook: Callable[[], None]) -> None:
        self.hook = hook

    def make(self, folder: Path) -> None:
        if not folder.is_dir():
            self.hook()
        super().make(folder)

    def write(self, path: Path, content: Callable[[BinaryIO], object]) -> None:
        self.hook()
        super().write(path, content)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        self.hook()
        path.write_bytes(whole)

    def move(self, path: Path, target: Path) -> None:
        self.hook()
        super().move(path, target)

    def sync(self, folder: Path) -> None:
        self.hook()
        super().sync(folder)

    def remove(self, folder: Path) -> None:
        self.hook()
        super().remove(folder)

    def link(self, path: Path, target: Path) -> None:
        self.hook()
        super().link(path, target)

    def exchange(self, path: Path, target: Path) -> None:
        self.hook()
        super().exchange(path, target)

    def unlink(self, path: Path) -> None:
        self.hook()
        super().unlink(path)


class Countdown:
    """Lets so many operations pass, then fails every one with ``error``."""

    def __init__(self, operations: int, error: BaseException) -> None:
        self.left = operations
        self.error = error

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise self.error
