"""What the Parquet sink wrote, for whoever reads it: training, evaluation, comparison."""

import logging
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs

from scorers.errors import InputError
from sinks.disk import Disk
from sinks.folder import Part, Stray, files, misfit, parts, unreadable
from sinks.replace import NOTICE, Area
from sinks.table import SCHEMAS

log = logging.getLogger(__name__)
Opened = TypeVar("Opened")

DATE = pa.schema([("date", pa.date32())])
"""The folder that a row is in: the UTC date of what ``table.DATED`` names."""
FORMAT = ds.ParquetFileFormat()
DESCRIPTORS = Path("/proc/self/fd")
"""Where a process finds the files that it has open, under any name or none: Linux's."""
READERS = 3
"""Descriptors that a pinned file may take: ours, and those of whoever reads it."""


def dataset(folder: Path, table: str) -> ds.Dataset:
    """The rows of one table that are there now, to be filtered and read in pieces.

    They stay the same however often files are merged meanwhile, for as long as ``compact`` keeps what it
    replaced (``keep_s``). What is no whole file of ours is left out, with a warning each.

    Args:
        folder: what the Parquet sink was given.
        table: one of ``table.SCHEMAS``.

    Returns:
        a dataset with the schema of ``table.SCHEMAS``, and ``date`` (date32) where files lie by date.

    Raises:
        InputError: there is no such table.
    """
    if table not in SCHEMAS or not (folder / table).is_dir():
        raise InputError(f"There is no {table} table in {folder}; let the Parquet sink write one, or name its folder.")
    kept = pyarrow.fs.PyFileSystem(Kept(folder))
    found, strays = parts(folder, table)
    fragments: list[ds.ParquetFileFragment] = []
    for part in found:
        read, left_out = _snapshot(part, kept)
        fragments += read
        strays += left_out
    for stray in strays:
        log.warning("%s and is left out", stray)
    schema = SCHEMAS[table] if table == "rejects" else pa.unify_schemas([SCHEMAS[table], DATE])
    return Snapshot(fragments, schema, FORMAT, kept)


def _snapshot(part: Part, kept: "pyarrow.fs.PyFileSystem") -> tuple[list[ds.ParquetFileFragment], list[Stray]]:
    """The files that a part holds at one moment."""
    while True:
        named, strays = files(part)
        try:
            read = [_fragment(part, str(file.path), kept) for file in named]
        except FileNotFoundError:  # deleted since it was listed
            continue
        return [file for file in read if not isinstance(file, Stray)], strays + [
            file for file in read if isinstance(file, Stray)
        ]


def _fragment(part: Part, path: str, kept: "pyarrow.fs.PyFileSystem") -> ds.ParquetFileFragment | Stray:
    dated = None if part.date is None else ds.field("date") == pa.scalar(part.date, pa.date32())
    fragment = FORMAT.make_fragment(path, kept, dated)
    try:
        why = misfit(part.table, fragment.physical_schema)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        why = unreadable(error)
    return Stray(Path(path), why) if why else fragment


class Snapshot(ds.FileSystemDataset):  # type: ignore[misc]  # pyarrow has no types
    """A dataset that DuckDB, which asks its scanners for a reader, may read: see ADR 21."""

    def scanner(self, **options: Any) -> Any:
        """What ``ds.Dataset.scanner`` gives, but for its ``to_reader``."""
        return Scan(super().scanner(**options))

    @contextmanager
    def pinned(self) -> Iterator[dict[str, str] | None]:
        """For each file a path at which others can read it for the length of the block, whatever happens to its name.

        None where they cannot: some files lack a column, or there are more than may be open, or no ``DESCRIPTORS``.
        See ADR 63.
        """
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        whole = [name for name in self.schema.names if name not in DATE.names]
        alike = all(fragment.physical_schema.names == whole for fragment in self.get_fragments())
        if not alike or READERS * len(self.files) > most or not DESCRIPTORS.is_dir():
            yield None
            return
        with ExitStack() as held:
            paths = {}
            for name in self.files:
                descriptor = self.filesystem.handler.descriptor(name)
                held.callback(os.close, descriptor)
                paths[name] = str(DESCRIPTORS / str(descriptor))
            yield paths


class Scan:
    """A ``ds.Scanner`` whose reader does not hold the interpreter lock while files are opened through Python."""

    def __init__(self, scanner: ds.Scanner) -> None:
        self._scanner = scanner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scanner, name)

    def to_reader(self) -> pa.RecordBatchReader:
        """The batches in the order of the files."""
        return pa.RecordBatchReader.from_batches(self._scanner.projected_schema, self._scanner.to_batches())


class Kept(pyarrow.fs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """The local disk, where a file that was merged into another can still be read while it is kept."""

    def __init__(self, folder: Path) -> None:
        self._area = Area(folder, Disk())
        self._local = pyarrow.fs.LocalFileSystem()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kept) and other._area.path == self._area.path

    def __hash__(self) -> int:
        return hash(self._area.path)

    def get_type_name(self) -> str:
        """A name for error messages."""
        return "kept"

    def normalize_path(self, path: str) -> str:
        """The path as it is."""
        return path

    def get_file_info(self, paths: list[str]) -> Any:
        """What is where a path leads."""
        return self._local.get_file_info(paths)

    def get_file_info_selector(self, selector: Any) -> Any:
        """What a folder holds."""
        return self._local.get_file_info(selector)

    def open_input_file(self, path: str) -> pa.NativeFile:
        """The file that had this name before the last moments' merges.

        Raises:
            FileNotFoundError: there is none any more.
        """
        return self._first(path, self._open)

    open_input_stream = open_input_file

    def descriptor(self, path: str) -> int:
        """As ``open_input_file``, for others than pyarrow; to be closed."""
        return self._first(path, _descriptor)

    def _first(self, path: str, open_: Callable[[Path], Opened | None]) -> Opened:
        place = Path(path)
        for _ in range(3):  # a folder may be renamed while we look into it
            folders = [place.parent, *self._area.replaced(place.parent)]
            for folder in folders:
                if (file := open_(folder / place.name)) is not None:
                    return file
        raise FileNotFoundError(2, "merged into another file too long ago, or deleted; read again", path)

    def _open(self, path: Path) -> pa.NativeFile | None:
        try:
            file = self._local.open_input_file(str(path))
        except FileNotFoundError:
            return None
        return None if file.size() == len(NOTICE) and file.read_at(len(NOTICE), 0) == NOTICE else file

    def _refuse(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("only for reading")

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = _refuse
    move = copy_file = open_output_stream = open_append_stream = _refuse


def _descriptor(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if os.fstat(descriptor).st_size == len(NOTICE) and os.pread(descriptor, len(NOTICE), 0) == NOTICE:
        os.close(descriptor)
        return None
    return descriptor
