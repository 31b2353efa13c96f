"""A runner's process: started, listened to, its use of the machine read from ``/proc``, ended."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from scorers.errors import UnavailableError

PROJECT = Path(__file__).parents[1]
_NAP_S = 0.002
_GOODBYE_S = 20.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its descendants have used so far."""

    cpu_s: float
    peak_mb: float
    """The sum of each one's largest resident size."""


class Process:
    """A program running on its own; a context manager."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command = command
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # ends with us even if we are killed
        tether = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                [*tether, *self._command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, cwd=self._log.parent, env=_environment(),
            )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        child = self._running()
        child.terminate()
        try:
            child.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._running().pid

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._running().poll() is not None

    def succeeded(self) -> None:
        """See that it has ended well.

        Raises:
            UnavailableError: it did not; the end of its log is told.
        """
        code = self._running().wait()
        if code:
            tail = self._log.read_text("utf-8", errors="replace")[-2_000:]
            raise UnavailableError(
                f"{' '.join(self._command[:3])} ended with {code}; its log {self._log} ends:\n{tail}"
            )

    def usage(self) -> Usage:
        """What it has used so far."""
        return usage(self._running().pid)

    def hear(self, words: str, within_s: float) -> None:
        """Wait until its log says ``words``.

        Raises:
            UnavailableError: it ended, or kept silent; the end of its log is told.
        """
        self.wait(lambda: words in self._log.read_text("utf-8", errors="replace"), within_s)

    def wait(self, done: Callable[[], bool], within_s: float) -> None:
        """Wait until ``done``.

        Raises:
            UnavailableError: it ended, or it took longer; the end of its log is told.
        """
        deadline = time.monotonic() + within_s
        while not done():
            if self._running().poll() is not None or time.monotonic() > deadline:
                tail = self._log.read_text("utf-8", errors="replace")[-2_000:]
                raise UnavailableError(
                    f"{' '.join(self._command[:3])} ended or made no progress; its log {self._log} ends:\n{tail}"
                )
            time.sleep(_NAP_S)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise RuntimeError("use the process as a context manager")
        return self._child


def usage(pid: int) -> Usage:
    """What a process and its descendants have used so far."""
    pids = [pid, *descendants(pid)]
    return Usage(sum(map(_cpu_s, pids)), sum(map(_peak_mb, pids)))


def machine_cpu_s() -> float:
    """What everything on the machine has used of all its cores so far."""
    first = Path("/proc/stat").read_text("ascii").partition("\n")[0]
    user, nice, system, _, _, interrupt, soft, stolen, *_ = map(int, first.split()[1:])
    return (user + nice + system + interrupt + soft + stolen) * _TICK_S


def descendants(pid: int) -> list[int]:
    """Every process below ``pid``."""
    parents = {int(path.name): _stat(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()}
    found = [pid]
    for above in found:
        found += [child for child, stat in parents.items() if stat and int(stat[1]) == above]
    return found[1:]


def named(words: str) -> int | None:
    """The child of ours whose command line holds ``words``."""
    for pid in descendants(os.getpid()):
        if words.encode() in _read(pid, "cmdline"):
            return pid
    return None


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/<pid>/stat`` from the state on (proc(5)); empty once it has ended."""
    return _read(pid, "stat").decode().rpartition(")")[2].split()


def _cpu_s(pid: int) -> float:
    stat = _stat(pid)
    return (int(stat[11]) + int(stat[12])) * _TICK_S if stat else 0.0


def _peak_mb(pid: int) -> float:
    return _status_mb(pid, "VmHWM:")


def rss_mb(pid: int) -> float:
    """What a process holds of memory now."""
    return _status_mb(pid, "VmRSS:")


def _status_mb(pid: int, name: str) -> float:
    for line in _read(pid, "status").decode().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return 0.0


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _environment() -> dict[str, str]:
    """Ours, but for settings that would change the job."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TIDEWATCH_") or name.startswith("TIDEWATCH_KAFKA__OPTIONS")
    }
    return kept | {"PYTHONPATH": str(PROJECT), "LOG_LEVEL": "INFO"}
