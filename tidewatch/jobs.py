"""Jobs: long work with a name, a status file, a log, and a way to be cancelled and taken up again.

::

    <jobs.folder>/<id>/status.json    what ``tidewatch jobs`` shows; replaced in one step
    <jobs.folder>/<id>/log            what happened, a line each
    <jobs.folder>/<id>/lock           held by the process that runs the job
    <jobs.folder>/<id>/cancel         somebody asked it to stop
    <jobs.folder>/<id>/work/          what a later run goes on with; gone once the job is done

A job that says it is running while nobody holds its lock is *lost*: its process was killed. Running it again under
the same id goes on where it stopped.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from scorers.errors import ConfigError, InputError, TidewatchError, UnavailableError
from sinks.disk import Disk, lock

NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
DISK = Disk()
PATIENCE_S = 2.0
"""Whoever looks whether a job is alive holds its lock for a moment."""


class State(StrEnum):
    """How a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


class Cancelled(Exception):  # noqa: N818 - it is no error
    """Somebody asked the job to stop, and it did."""


class Status(msgspec.Struct, kw_only=True):
    """What is known of a job. Moments are ISO-8601, UTC."""

    id: str
    kind: str
    state: State = State.QUEUED
    arguments: dict[str, Any] = {}
    """What was asked for; a later run must ask for the same."""
    created: str = ""
    started: str | None = None
    """When the latest run began."""
    ended: str | None = None
    pid: int | None = None
    runs: int = 0
    stage: str = ""
    done: int = 0
    total: int = 0
    """Pieces of work of the stage, done and in all."""
    counts: dict[str, int] = {}
    results: list[dict[str, Any]] = []
    """A row for each file and shard, and each device that failed: ``status``, done or failed, and its ``reason``."""
    failures: int = 0
    """Rows that failed, devices among them."""
    error: str | None = None


def moment() -> str:
    """Now, ISO-8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Run:
    """A job under way, in the process that holds its lock."""

    def __init__(self, folder: Path, status: Status, asked: Callable[[], bool]) -> None:
        self.folder = folder
        self.status = status
        self._asked = asked

    @property
    def work(self) -> Path:
        """Where the job keeps what a later run goes on with."""
        return self.folder / "work"

    @property
    def stopped(self) -> bool:
        """Whether the job is to stop."""
        return self._asked() or (self.folder / "cancel").exists()

    def check(self) -> None:
        """See that nobody asked the job to stop.

        Raises:
            Cancelled: somebody did.
        """
        if self.stopped:
            raise Cancelled

    def save(self) -> None:
        """Make the status visible."""
        _write(self.folder, self.status)

    def log(self, text: str) -> None:
        """A line for ``tidewatch jobs logs``."""
        with (self.folder / "log").open("a", encoding="utf-8") as file:
            file.write(f"{moment()} {' '.join(text.split())}\n")


class Jobs:
    """The jobs of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list(self) -> list[Status]:
        """All of them, the oldest first."""
        if not self.folder.is_dir():
            return []
        names = [path.parent.name for path in self.folder.glob("*/status.json")]
        found = [self._shown(name) for name in names if NAMED.fullmatch(name)]
        return sorted(found, key=lambda status: (status.created, status.id))

    def get(self, name: str) -> Status:
        """A job as it is now.

        Raises:
            InputError: there is none of that id.
        """
        path = self.place(name) / "status.json"
        try:
            status = msgspec.json.decode(path.read_bytes(), type=Status)
        except FileNotFoundError:
            raise InputError(f"There is no job {name!r} in {self.folder}; `tidewatch jobs list` names them.") from None
        except (OSError, msgspec.DecodeError) as error:
            raise InputError(f"{path} cannot be read ({error}); delete its folder if the job is over.") from error
        if status.state is State.RUNNING and not self._alive(name):
            status.state = State.LOST
        return status

    def _shown(self, name: str) -> Status:
        """A job as it is listed, whatever its file is like."""
        try:
            return self.get(name)
        except InputError as error:
            return Status(id=name, kind="unknown", state=State.FAILED, error=str(error))

    def create(self, kind: str, arguments: Mapping[str, Any], name: str | None = None) -> Status:
        """A job to be run, or the one of that id, to be run again.

        Raises:
            ConfigError: the id is none, or belongs to a job that was asked for something else.
        """
        if name is None:
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            name = f"{kind}-{stamp}-{secrets.token_hex(2)}"
        if (self.place(name) / "status.json").exists():
            status = self.get(name)
            _same(status, kind, arguments)
            return status
        status = Status(id=name, kind=kind, arguments=dict(arguments), created=moment())
        _write(self.place(name), status)
        return status

    @contextmanager
    def run(self, name: str, stop: Callable[[], bool] = lambda: False) -> Iterator[Run]:
        """Run a job: it is told as running within the block, and afterwards as what became of it.

        ``stop`` is asked now and then whether to stop, as a ``cancel`` is looked for.

        Raises:
            UnavailableError: it is being run already.
        """
        folder = self.place(name)
        held = self._hold(name)
        try:
            status = self.get(name)
            status.state, status.started, status.ended, status.pid = State.RUNNING, moment(), None, os.getpid()
            status.runs, status.error = status.runs + 1, None
            (folder / "cancel").unlink(missing_ok=True)
            run = Run(folder, status, stop)
            run.save()
            run.log(f"run {status.runs} begins as process {status.pid}")
            try:
                yield run
            except BaseException as error:
                cancelled = isinstance(error, Cancelled | KeyboardInterrupt)
                status.state = State.CANCELLED if cancelled else State.FAILED
                status.error = None if cancelled else _told(error)
                raise
            else:
                status.state = State.DONE
                shutil.rmtree(run.work, ignore_errors=True)
            finally:
                status.ended, status.pid = moment(), None
                run.log(f"{status.state}{f': {status.error}' if status.error else ''}")
                run.save()
        finally:
            os.close(held)

    def cancel(self, name: str) -> Status:
        """Ask a job to stop; one that nobody runs is cancelled at once.

        Raises:
            ConfigError: it is over.
        """
        status = self.get(name)
        if status.state is State.RUNNING:
            (self.place(name) / "cancel").touch()
        elif status.state in {State.QUEUED, State.LOST}:
            status.state, status.ended, status.pid = State.CANCELLED, moment(), None
            _write(self.place(name), status)
        else:
            raise ConfigError(f"Job {name!r} is {status.state} already; there is nothing to cancel.")
        return status

    def delete(self, name: str) -> None:
        """Forget a job that is not running; what it wrote elsewhere stays.

        Raises:
            ConfigError: it is running.
        """
        if self.get(name).state is State.RUNNING:
            raise ConfigError(f"Job {name!r} is running; cancel it first.")
        shutil.rmtree(self.place(name))

    def place(self, name: str) -> Path:
        """The folder of a job.

        Raises:
            ConfigError: the id is none.
        """
        if not NAMED.fullmatch(name):
            raise ConfigError(
                f"{name!r} is no job id; use up to 100 letters, digits, dots, dashes and underscores, none of the marks"
                " first."
            )
        return self.folder / name

    def _alive(self, name: str) -> bool:
        descriptor = lock(self.place(name) / "lock")
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    def _hold(self, name: str) -> int:
        deadline = time.monotonic() + PATIENCE_S
        while (descriptor := lock(self.place(name) / "lock")) is None:
            if time.monotonic() > deadline:
                raise UnavailableError(f"Job {name!r} is being run by another process; `tidewatch jobs show {name}`.")
            time.sleep(0.05)
        return descriptor


def _same(status: Status, kind: str, arguments: Mapping[str, Any]) -> None:
    """Refuse to take a job up for something else."""
    if status.kind != kind:
        raise ConfigError(f"Job {status.id!r} is a {status.kind}; give another --job-id.")
    known = msgspec.to_builtins(dict(arguments))
    for field in sorted({*known, *status.arguments}):
        before, now = status.arguments.get(field), known.get(field)
        if before != now:
            raise ConfigError(
                f"Job {status.id!r} was begun with {field} {before!r}, not {now!r}; ask for the same, or give another"
                " --job-id."
            )


def _told(error: BaseException) -> str:
    return str(error) if isinstance(error, TidewatchError) else f"{type(error).__name__}: {error}"


def _write(folder: Path, status: Status) -> None:
    try:
        DISK.make(folder)
        draft = folder / f"status.{os.getpid()}"
        DISK.write(draft, lambda file: file.write(msgspec.json.format(msgspec.json.encode(status))))
        DISK.move(draft, folder / "status.json")
        DISK.sync(folder)
    except OSError as error:
        raise UnavailableError(
            f"Cannot write to {folder} ({error.strerror or error}); free space, or set jobs.folder."
        ) from error
