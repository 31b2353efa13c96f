"""What lies in the folder of the Parquet sink: parts to read, and strays, which are never data.

A part is a folder whose files are read together: one date of a table, or all of ``rejects``. A stray is
whatever is in a table without being a whole file of ours. Strays are reported; nobody here moves or deletes one.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sinks.names import DATED, ours
from sinks.replace import NOTICE, noticed
from sinks.table import LATER, SCHEMAS


@dataclass(frozen=True, slots=True)
class Part:
    """A folder of files with one schema; ``date`` is None where a table is not cut by date."""

    table: str
    path: Path
    date: date | None

    @property
    def linked(self) -> bool:
        """Whether the folder, or that of its table, is a symbolic link to another one."""
        return self.path.is_symlink() or (self.date is not None and self.path.parent.is_symlink())


@dataclass(frozen=True, slots=True)
class Stray:
    """Something in a table that is left out, and why."""

    path: Path
    why: str

    def __str__(self) -> str:
        return f"{self.path} {self.why}"


@dataclass(frozen=True, slots=True)
class File:
    """A file of ours, by its name."""

    path: Path
    size: int
    inode: int
    rows: int = 0
    """Known once its footer has been read."""


def parts(folder: Path, table: str) -> tuple[list[Part], list[Stray]]:
    """The parts of a table, dates ascending, and what else is beside them; empty where there is no such table.

    Raises:
        OSError: the disk does not answer.
    """
    path = folder / table
    if not path.is_dir():
        return [], []
    if table == "rejects":
        return [Part(table, path, None)], []
    found: list[Part] = []
    strays: list[Stray] = []
    for entry in sorted(path.iterdir()):
        day = _day(entry.name)
        if day and entry.is_dir():
            found.append(Part(table, entry, day))
        else:
            strays.append(Stray(entry, "is no folder of a date"))
    return found, strays


def files(part: Part) -> tuple[list[File], list[Stray]]:
    """What a part holds at one moment, by name alone.

    Raises:
        OSError: the disk does not answer.
    """
    descriptor = os.open(part.path, os.O_RDONLY | os.O_DIRECTORY)  # the folder as it is now, whatever replaces it
    try:
        with os.scandir(descriptor) as entries:
            held = [_file(part.path, entry, descriptor) for entry in sorted(entries, key=lambda entry: entry.name)]
    finally:
        os.close(descriptor)
    return [file for file in held if isinstance(file, File)], [stray for stray in held if isinstance(stray, Stray)]


def misfit(table: str, schema: pa.Schema) -> str | None:
    """Why rows of ``schema`` are not rows of ``table``, of now or of before ``LATER``, None where they are."""
    whole = SCHEMAS[table].remove_metadata()
    before = pa.schema([field for field in whole if field.name not in LATER.get(table, ())])
    if schema.remove_metadata() in (whole, before):
        return None
    return f"has not the columns of {table}"


def inspect(table: str, file: File) -> File | Stray:
    """A file with what its footer says, or why it is not one of ``table``."""
    try:
        with pq.ParquetFile(file.path) as opened:
            why = misfit(table, opened.schema_arrow)
            return Stray(file.path, why) if why else replace(file, rows=opened.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        gone = not file.path.exists() or noticed(file.path)  # merged, or deleted, since it was listed
        return file if gone else Stray(file.path, unreadable(error))


def unreadable(error: Exception) -> str:
    """Why a file is a stray, for a person."""
    return f"cannot be read as Parquet ({str(error).splitlines()[0].rstrip('.')})"


def survey(folder: Path, table: str, *, footers: bool = True) -> Iterator[tuple[Part | None, list[File], list[Stray]]]:
    """Each part of a table, its files and its strays; first, with None, the strays beside the parts.

    Raises:
        OSError: the disk does not answer.
    """
    found, beside = parts(folder, table)
    yield None, [], beside
    for part in found:
        named, strays = files(part)
        inspected = [inspect(table, file) if footers else file for file in named]
        strays += [file for file in inspected if isinstance(file, Stray)]
        yield part, [file for file in inspected if isinstance(file, File)], strays


def strays(folder: Path, *, footers: bool = True) -> list[Stray]:
    """All strays of all tables; without ``footers`` a look at names only, which is quick.

    Raises:
        OSError: the disk does not answer.
    """
    return [stray for table in SCHEMAS for _, _, found in survey(folder, table, footers=footers) for stray in found]


def _day(name: str) -> date | None:
    if not DATED.fullmatch(name):
        return None
    try:
        return date.fromisoformat(name.removeprefix("date="))
    except ValueError:
        return None


def _file(folder: Path, entry: "os.DirEntry[str]", descriptor: int) -> File | Stray | None:
    """What one name stands for; None for a name that is gone, and for a notice."""
    path = folder / entry.name
    try:
        stat = entry.stat(follow_symlinks=False)
        if not entry.is_file(follow_symlinks=False):
            return Stray(path, "is a symbolic link" if entry.is_symlink() else "is not a file")
        if not ours(entry.name):
            return Stray(path, "is not named as a file of ours")
        if stat.st_size == len(NOTICE) and _content(entry.name, descriptor) == NOTICE:
            return None
    except FileNotFoundError:
        return None
    return File(path, stat.st_size, stat.st_ino)


def _content(name: str, descriptor: int) -> bytes:
    file = os.open(name, os.O_RDONLY, dir_fd=descriptor)
    try:
        return os.read(file, len(NOTICE) + 1)
    finally:
        os.close(file)
