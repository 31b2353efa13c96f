"""Few large files in the place of many small ones, while the sink writes and anybody reads."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from scorers.errors import ConfigError, InputError, UnavailableError
from sinks.disk import Disk
from sinks.folder import File, Part, Stray, survey
from sinks.merge import Merger, MergeSpec
from sinks.names import merged
from sinks.parquet import DISK, ParquetSpec
from sinks.replace import SETTLE_S, Area
from sinks.table import SCHEMAS

MB = 1024 * 1024
Progress = Callable[[int, int], None]
"""Told how many rows are merged, and how many there are to merge."""


@dataclass(frozen=True, slots=True)
class CompactSpec:
    """What is merged, and how.

    The files of a part that are smaller than ``target_mb`` are merged where there are ``min_files`` of
    them. ``since`` and ``until`` are dates, the first included and the second not; with either, ``rejects``
    is left alone, for it has no dates. What was replaced is kept for ``keep_s``, for those who read it.
    """

    files: ParquetSpec
    tables: tuple[str, ...] = tuple(SCHEMAS)
    since: date | None = None
    until: date | None = None
    min_files: int = 4
    target_mb: float = 128.0
    memory_mb: int = 512
    keep_s: float = 600.0
    settle_s: float = SETTLE_S

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: a limit is too low, or a table unknown.
        """
        for name, least in (("min_files", 2), ("memory_mb", 64), ("keep_s", 0), ("settle_s", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; set it to {least} or more.")
        if self.target_mb <= 0:
            raise ConfigError(f"target_mb is {self.target_mb}; set it above 0.")
        if unknown := set(self.tables) - set(SCHEMAS):
            raise ConfigError(f"There is no table {min(unknown)}; name {', '.join(SCHEMAS)}.")

    def covers(self, part: Part) -> bool:
        """Whether a part is among the dates asked for."""
        if part.date is None:
            return self.since is None and self.until is None
        return (self.since is None or part.date >= self.since) and (self.until is None or part.date < self.until)


@dataclass(frozen=True, slots=True)
class Merge:
    """Files of one part that become fewer; after a dry run ``files_after`` is 0, and so is what follows from it."""

    path: Path
    files_before: int
    bytes_before: int
    rows: int
    files_after: int = 0
    bytes_after: int = 0


@dataclass(slots=True)
class Compaction:
    """What was done, and what was found."""

    merges: list[Merge] = field(default_factory=list)
    strays: list[Stray] = field(default_factory=list)
    kept_bytes: int = 0
    """Of files that were replaced and wait for a later compaction to delete them."""


@dataclass(frozen=True, slots=True)
class _Job:
    part: Part
    small: list[File]
    rows: int

    @property
    def plan(self) -> Merge:
        return Merge(self.part.path, len(self.small), sum(file.size for file in self.small), self.rows)


def plan(spec: CompactSpec) -> Compaction:
    """What ``compact`` would merge now; nothing is touched.

    Raises:
        InputError: the folder is not one of the Parquet sink.
        UnavailableError: the disk does not answer.
    """
    _check(spec)
    with _disk_errors(spec):
        jobs, strays = _jobs(spec)
        area = Area(spec.files.folder, DISK)
        return Compaction([job.plan for job in jobs], strays, area.kept())


def compact(
    spec: CompactSpec, now: float, *, disk: Disk = DISK, progress: Progress = lambda _done, _total: None
) -> Compaction:
    """Merge what is small, part after part, and delete what was replaced ``keep_s`` before ``now`` (epoch seconds).

    However it ends, each part is as it was or merged; what it leaves behind then, the next one cleans up.

    Raises:
        ConfigError: the file system cannot exchange folders or link files.
        InputError: the folder is not one of the Parquet sink, a row is there twice, or a file is damaged.
        UnavailableError: the disk is full or does not answer, or another compaction is at work.
    """
    _check(spec)
    with _disk_errors(spec):
        area = Area(spec.files.folder, disk, settle_s=spec.settle_s)
        with area.exclusive():
            area.probe()
            area.recover()
            stuck = [Stray(path, "came too late to be carried over") for path in area.dispose(now - spec.keep_s)]
            jobs, strays = _jobs(spec)
            try:
                merges = _run(jobs, spec, area, disk, progress)
            except BaseException:  # interrupted, too
                area.recover()
                raise
            return Compaction(merges, stuck + strays, area.kept())


def _check(spec: CompactSpec) -> None:
    folder = spec.files.folder
    if not (folder / "_tidewatch.json").is_file():
        raise InputError(f"{folder} is not a folder of the Parquet sink; name the one it writes to.")


def _jobs(spec: CompactSpec) -> tuple[list[_Job], list[Stray]]:
    jobs, strays = [], []
    for table in spec.tables:
        for part, whole, found in survey(spec.files.folder, table):
            strays += found
            if part is None or not spec.covers(part):
                continue
            small = [file for file in whole if file.size < spec.target_mb * MB]
            if part.linked:
                strays.append(Stray(part.path, "lies behind a symbolic link, and is not compacted"))
            elif any(stray.path.is_dir() and not stray.path.is_symlink() for stray in found):
                strays.append(Stray(part.path, "holds a folder, and is not compacted"))
            elif len(small) >= spec.min_files:
                jobs.append(_Job(part, small, sum(file.rows for file in small)))
    return jobs, strays


def _run(jobs: list[_Job], spec: CompactSpec, area: Area, disk: Disk, progress: Progress) -> list[Merge]:
    total = sum(job.rows for job in jobs)
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, total)

    return [_merge(job, spec, area, disk, advance) for job in jobs]


def _merge(job: _Job, spec: CompactSpec, area: Area, disk: Disk, advance: Callable[[int], None]) -> Merge:
    stamp = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(8)}"
    draft = area.draft(job.part.path, stamp)
    like = MergeSpec(int(spec.target_mb * MB), spec.files.row_group_rows, spec.files.compression, spec.memory_mb)
    with Merger(job.part.table, like, disk, area.spill(stamp)) as merger:
        written = merger.merge(
            [file.path for file in job.small], lambda number: draft.path / f"{merged(stamp, number)}.parquet", advance
        )
    sizes = [path.stat().st_size for path in written]
    area.replace(draft, {file.path.name: file.inode for file in job.small})
    area.settle(draft)
    before = job.plan
    return Merge(before.path, before.files_before, before.bytes_before, before.rows, len(sizes), sum(sizes))


@contextmanager
def _disk_errors(spec: CompactSpec) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"Cannot compact {spec.files.folder} ({error.strerror or error}); free space or make it writable."
        ) from error
