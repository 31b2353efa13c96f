"""One run of a scheduled command: a child process of its own, locked, logged, timed and told of in the history.

The child holds its entry's lock too. It is free only when nobody runs the entry any more, whoever was killed.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from tidewatch.children import environment
from tidewatch.entries import Entry, Scheduler
from tidewatch.history import History, Outcome, Run, Why
from tidewatch.locks import lock
from tidewatch.servers import tether
from tidewatch.settings import InForce
from tidewatch.timetable import latest

OVERLAP = "the run before is still under way"
KILL_S = 10.0
"""From SIGTERM to SIGKILL."""
_LOOK_S = 0.1
_CHUNK = 65_536


def clock() -> datetime:
    """Now."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Stop:
    """Asks the runs of this process to end; ``patience_s`` is how long they may still go on."""

    patience_s: float
    asked: threading.Event = field(default_factory=threading.Event)
    at_once: threading.Event = field(default_factory=threading.Event)


class Log:
    """What a run prints, in a file: when that is full it becomes ``.1``, and another begins.

    Raises:
        OSError: the disk does not take it.
    """

    def __init__(self, path: Path, limit: int, echo: Callable[[bytes], object] | None = None) -> None:
        self._path, self._limit, self._echo = path, limit, echo
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb", buffering=0)
        self._size = 0

    def write(self, chunk: bytes) -> None:
        """Add to it."""
        if self._echo is not None:
            with suppress(OSError):
                self._echo(chunk)
        if self._size and self._size + len(chunk) > self._limit:
            self._file.close()
            self._path.rename(older(self._path))
            self._file = self._path.open("wb", buffering=0)
            self._size = 0
        self._file.write(chunk)
        self._size += len(chunk)

    def close(self) -> None:
        """End it."""
        self._file.close()


def older(log: Path) -> Path:
    """Where the part of a log before ``log`` is, if there is one."""
    return log.with_name(f"{log.name}.1")


@dataclass(frozen=True)
class Runner:
    """Makes runs of entries, under the settings in force here: runs read no file, which may say otherwise by now."""

    in_force: InForce
    stop: Stop
    echo: Callable[[bytes], object] | None = None

    @property
    def spec(self) -> Scheduler:
        """How runs are made."""
        return self.in_force.settings.scheduler

    @property
    def history(self) -> History:
        """Where runs are told of."""
        return History(self.spec.folder)

    def entry_lock(self, name: str) -> Path:
        """The lock of an entry."""
        return self.spec.folder / "locks" / f"{name}.lock"

    def log(self, name: str, run: int) -> Path:
        """The log of a run."""
        return self.spec.folder / "logs" / name / f"{run}.log"

    def cut(self, name: str, now: datetime) -> list[Run]:
        """Runs of the entry whose runner died, told as cut just now; none while one is under way."""
        with lock(self.entry_lock(name), tries=1) as held:
            return [] if held is None else self.history.cut(name, now)

    def sweep(self) -> list[Run]:
        """Every run that says it is under way and whose runner died, told as cut just now."""
        names = sorted({run.entry for run in self.history.under_way()})
        return [run for name in names for run in self.cut(name, clock())]

    def make(self, name: str, entry: Entry, why: Why, scheduled: datetime) -> Run | None:
        """Run it and wait; None where another run of the entry is under way, which is told of unless it is ``now``."""
        with lock(self.entry_lock(name)) as held:
            if held is None:
                if why is not Why.NOW:
                    self.history.tell(name, Outcome.SKIPPED, OVERLAP, scheduled=scheduled, now=clock())
                return None
            self.history.cut(name, clock())
            words = entry.words(self._start(name, entry, scheduled), scheduled)
            run = self.history.begin(name, words, why, scheduled=scheduled, now=clock())
            outcome, code, reason = Outcome.CUT, None, "what ran it failed"
            try:
                outcome, code, reason = self._child(self.log(name, run), words, entry.timeout_s, held)
            finally:
                self.history.end(run, outcome, code, reason, clock())
            for old in self.history.prune(name, self.spec.keep_runs):
                for path in (self.log(name, old), older(self.log(name, old))):
                    path.unlink(missing_ok=True)
            return self.history.run(run)

    def _start(self, name: str, entry: Entry, scheduled: datetime) -> datetime:
        """Where the last run that went well ended its period; without one, the time before ``scheduled``."""
        well = self.history.last(name, Outcome.OK)
        if well is not None and well.scheduled < scheduled:
            return well.scheduled
        return latest(entry, datetime.fromtimestamp(scheduled.timestamp() - 0.001, UTC))

    def _child(self, path: Path, words: Sequence[str], timeout_s: float, held: int) -> tuple[Outcome, int | None, str]:
        command = [*tether(), sys.executable, "-m", "tidewatch", "--config", os.devnull, *words]
        try:
            log = Log(path, self.spec.log_bytes, self.echo)
            process = subprocess.Popen(  # noqa: S603 - our own commands, by a fixed list, without a shell
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                start_new_session=True, pass_fds=(held,), env=environment(self.in_force) | {"PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        except OSError as error:
            return Outcome.FAILED, None, f"it could not be started: {error}"
        pump = threading.Thread(target=_pump, args=(process.stdout, log), daemon=True)
        pump.start()
        try:
            return self._await(process, timeout_s)
        finally:
            _end(process, signal.SIGKILL)  # what it has started ends with it
            process.wait()
            pump.join(KILL_S)  # or something that it started has left its group, and holds on to the pipe

    def _await(self, process: subprocess.Popen[bytes], timeout_s: float) -> tuple[Outcome, int, str]:
        deadline, why = time.monotonic() + timeout_s, (Outcome.TIMEOUT, f"longer than timeout_s ({timeout_s:g})")
        while not self.stop.at_once.is_set():
            if self.stop.asked.is_set() and why[0] is Outcome.TIMEOUT:
                until = time.monotonic() + self.stop.patience_s
                if until < deadline:
                    deadline, why = until, (Outcome.STOPPED, "told to stop")
            with suppress(subprocess.TimeoutExpired):
                return _judged(process.wait(min(_LOOK_S, max(0.0, deadline - time.monotonic()))))
            if time.monotonic() >= deadline:
                break
        else:
            why = (Outcome.STOPPED, "told to stop")
        _end(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            return why[0], process.wait(KILL_S), why[1]
        _end(process, signal.SIGKILL)
        return why[0], process.wait(), f"{why[1]}, and killed, for it did not end in {KILL_S:g} s"


def _judged(code: int) -> tuple[Outcome, int, str]:
    if code == 0:
        return Outcome.OK, code, ""
    return Outcome.FAILED, code, f"signal {-code}" if code < 0 else f"exit code {code}"


def _end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _pump(source: IO[bytes] | None, log: Log) -> None:
    """All that a child prints to its log; where the disk takes no more the child goes on unlogged."""
    full = False
    while source is not None and (chunk := os.read(source.fileno(), _CHUNK)):
        if not full:
            try:
                log.write(chunk)
            except OSError:
                full = True
    log.close()
    if source is not None:
        source.close()
