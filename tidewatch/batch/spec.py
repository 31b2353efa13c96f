"""What a batch is to do, and what its tasks need to know: values that any process can be given."""

import fnmatch
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from producers.columns import Columns
from scorers.errors import ConfigError, InputError
from sinks.disk import Disk
from stream.contracts import Topics
from stream.decode import EARLIEST, LATEST
from stream.partition import StreamSpec
from tidewatch.jobs import Cancelled
from tidewatch.places import Place


class Kind(StrEnum):
    """What the input holds."""

    READINGS = "readings"
    STATISTICS = "statistics"


class Format(StrEnum):
    """What windows are written as."""

    PARQUET = "parquet"
    """The tables of the Parquet sink."""
    CSV = "csv"
    """``TS,Device,Sensor,Val,Prediction``, a row for each window, device and metric."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which devices: names and patterns; none chooses all.

    >>> Choice(("pump-*", "fan-1")).takes("pump-7"), Choice(("fan-1",)).takes("fan-10")
    (True, False)
    """

    patterns: tuple[str, ...] = ()

    @classmethod
    def of(cls, words: Iterable[str]) -> "Choice":
        """Names and patterns separated by commas; ``@file`` stands for the lines of a file.

        Raises:
            ConfigError: the file cannot be read, or nothing is named.
        """
        patterns: list[str] = []
        for word in words:
            if not word.startswith("@"):
                patterns += [part.strip() for part in word.split(",") if part.strip()]
                continue
            try:
                lines = Path(word[1:]).read_text("utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"--devices {word}: the file cannot be read ({error}).") from error
            patterns += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if words and not patterns:
            raise ConfigError("--devices names no device; leave it out for all.")
        return cls(tuple(dict.fromkeys(patterns)))

    def takes(self, device: str) -> bool:
        """Whether a device is one of them."""
        return not self.patterns or any(
            device == pattern or fnmatch.fnmatchcase(device, pattern) for pattern in self.patterns
        )


@dataclass(frozen=True, slots=True)
class Span:
    """The windows that end in ``[since, until)``, epoch ms, and what is read before them to let limits settle."""

    since: int = EARLIEST
    until: int = LATEST
    warm_ms: int | None = None
    """So long before ``since``; None: all there is."""

    def __post_init__(self) -> None:
        if self.since >= self.until:
            raise ConfigError("--from is not before --to; swap them.")

    def first(self, size_ms: int) -> int:
        """The earliest stamp that is read."""
        if self.warm_ms is None or self.since == EARLIEST:
            return EARLIEST
        return max(EARLIEST, self.since - size_ms - self.warm_ms)


@dataclass(frozen=True, slots=True)
class Plan:
    """What every task of a batch is told."""

    source: Place
    target: Place
    work: Path
    """Where runs, staged files and receipts are kept."""
    fleet: Path | None
    """None: every device is still learning, and windows are all there is to write."""
    job: str
    stream: StreamSpec
    topics: Topics
    asof: int
    """When the job was made, epoch ms: what is stamped far beyond is from the future."""
    kind: Kind = Kind.READINGS
    columns: Columns = field(default_factory=Columns)
    choice: Choice = field(default_factory=Choice)
    span: Span = field(default_factory=Span)
    formats: tuple[Format, ...] = (Format.PARQUET,)
    shards: int = 16
    memory: int = 512 * 1024 * 1024
    """Bytes that one task may keep for sorting."""
    stop: Callable[[], bool] | None = None
    """Asked beside :attr:`halt` where tasks run in the process of the job."""

    def shard(self, device: str) -> int:
        """Which shard a device is in: always the same one."""
        return zlib.crc32(device.encode("utf-8", "surrogatepass")) % self.shards

    @property
    def halt(self) -> Path:
        """A file that tells tasks to stop where they are."""
        return self.work / "halt"

    def check(self) -> None:
        """See that the task is to go on.

        Raises:
            Cancelled: it is not.
        """
        if self.halt.exists() or (self.stop is not None and self.stop()):
            raise Cancelled

    def receipt(self, stage: str, number: int) -> Path:
        """Where the result of a finished task is."""
        return self.work / stage / f"{number:06d}.json"


Result = dict[str, Any]
"""What a task tells: ``status`` done or failed, ``reason``, counts, and the files it leaves."""
DISK = Disk()


def receive(path: Path) -> Result | None:
    """The result that a finished task left, None where it has not finished."""
    try:
        result: Result = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise InputError(f"{path} is damaged ({error}); give another --job-id to begin anew.") from error
    return result


def leave(path: Path, result: Result) -> Result:
    """Leave a finished task's result; in one step."""
    DISK.make(path.parent)
    draft = path.with_suffix(".tmp")
    DISK.write(draft, lambda file: file.write(msgspec.json.encode(result)))
    DISK.move(draft, path)
    DISK.sync(path.parent)
    return result


Task = Callable[[Plan, Any], Result]
