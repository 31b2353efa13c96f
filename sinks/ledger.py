"""Which offsets a folder of Parquet files holds: files of one range appear together, once, whatever crashes.

::

    _tidewatch.json, _tidewatch.lock     where the records come from
    _tmp/<topic>-<partition>-<range>/    files being written; worthless after a crash
    _log/<topic>-<partition>-<range>/    a range that counts; holds the files not yet in their place
    _compact/                            see replace.py; files are put in their place while nobody replaces folders
    predictions/date=2026-11-21/<topic>-<partition>-<range>.parquet

Renaming the finished folder from ``_tmp`` to ``_log`` is the commit: before it nothing of the range
exists, after it nothing can be lost. Then each file is renamed into its place, by whoever owns the
partition next if this process dies (a redo log; ARIES, Mohan et al. 1992). The newest folder in
``_log`` stays, empty, and says where to go on. A file lock per partition keeps owners apart.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from scorers.errors import ConfigError, UnavailableError
from sinks.base import Origin, Source
from sinks.disk import Disk, alone, lock, together
from sinks.names import Range
from sinks.replace import LOCK, Area

Content = Callable[[BinaryIO], object]
"""Writes one file."""


class Ledger:
    """The folder's memory; every method but ``open`` and ``close`` is about one source.

    Raises OSError throughout, where the disk does not answer.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder = folder
        self._disk = disk
        self._staged = folder / "_tmp"
        self._committed = folder / "_log"
        self._area = Area(folder, disk)
        self._origin = folder / "_tidewatch.json"
        self._locks: dict[Source, int] = {}

    def open(self, origin: Origin, tables: tuple[str, ...]) -> None:
        """Make the folder and its ``tables``, or check that it is the one for ``origin``.

        Raises:
            ConfigError: it holds something else.
        """
        self._disk.make(self.folder)
        with alone(self.folder / LOCK):  # two sinks may begin at once
            if self._origin.is_file():
                self._check(origin)
            else:
                self._found(origin, tables)
        self._area.heal()

    def own(self, source: Source) -> int:
        """Lock a source and finish what its last owner began; the offset to go on at.

        Raises:
            UnavailableError: another process owns it.
        """
        if source not in self._locks:
            descriptor = lock(self._committed / f"{source.topic}-{source.partition:04d}.lock")
            if descriptor is None:
                raise UnavailableError(
                    f"Another sink is writing {source} to {self.folder}; stop it, or give this one another folder."
                )
            self._locks[source] = descriptor
        return self._recover(source)

    def commit(self, span: Range, files: Mapping[str, Content]) -> None:
        """Write the files of a range, named by their folder, all or none."""
        staged = self._staged / str(span)
        entry = self._committed / str(span)
        self._disk.make(staged)
        for folder, content in files.items():
            self._disk.write(staged / folder.replace("/", "~"), content)
        self._disk.sync(staged)
        self._disk.move(staged, entry)
        self._disk.sync(self._committed)
        self._settle(span.source)

    def disown(self, source: Source) -> None:
        """Let another process own a source."""
        descriptor = self._locks.pop(source, None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        """Disown every source."""
        for source in list(self._locks):
            self.disown(source)

    def _found(self, origin: Origin, tables: tuple[str, ...]) -> None:
        if next(self.folder.rglob("*.parquet"), None):
            raise ConfigError(
                f"{self.folder} holds Parquet files of unknown origin; set parquet.folder to an empty one."
            )
        for folder in (*(self.folder / name for name in tables), self._staged, self._committed):
            self._disk.make(folder)
        self._sign(origin)

    def _sign(self, origin: Origin) -> None:
        """Say that the folder is for this origin."""
        draft = self._staged / "origin"
        self._disk.write(draft, lambda file: file.write(msgspec.json.encode(origin)))
        self._disk.move(draft, self._origin)
        self._disk.sync(self.folder)

    def _check(self, origin: Origin) -> None:
        try:
            held = msgspec.json.decode(self._origin.read_bytes(), type=Origin)
        except msgspec.DecodeError as error:
            raise ConfigError(
                f"{self._origin} cannot be read ({error}); set parquet.folder to an empty one."
            ) from error
        if origin.extends(held):
            self._sign(origin)
        elif not held.matches(origin):
            raise ConfigError(
                f"{self.folder} holds {held}, not {origin}; set parquet.folder to an empty one, or move this one away."
            )
        if not self._committed.is_dir():
            raise ConfigError(f"{self._committed} is gone, and with it what {self.folder} holds; restore it.")

    def _recover(self, source: Source) -> int:
        for span in _ranges(self._staged, source):
            self._disk.remove(self._staged / str(span))
        return self._settle(source)

    def _settle(self, source: Source) -> int:
        """Put every committed file in its place; the offset after the last range, 0 where there is none."""
        spans = _ranges(self._committed, source)
        self._area.heal()
        with together(self.folder / LOCK):
            for span in spans:
                self._publish(span)
        for span in spans[:-1]:
            self._disk.remove(self._committed / str(span))
        return spans[-1].last + 1 if spans else 0

    def _publish(self, span: Range) -> None:
        entry = self._committed / str(span)
        for staged in sorted(entry.iterdir()):
            target = self.folder / staged.name.replace("~", "/")
            self._disk.make(target)
            self._disk.move(staged, target / f"{span}.parquet")
            self._disk.sync(target)
        self._disk.sync(entry)


def _ranges(folder: Path, source: Source) -> list[Range]:
    """The ranges of a source that a folder names, ascending."""
    return sorted(span for span in _spelt(folder) if span.source == source)


def _spelt(folder: Path) -> Iterator[Range]:
    for path in folder.iterdir():
        span = Range.parse(path.name)
        if span:
            yield span
