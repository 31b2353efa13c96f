"""Tasks to processes and results back, such that what kills a process is lost alone.

A process may be killed for want of memory, crash in compiled code, or take too long: the standard library's pool
then gives up everything. Here the pool is made anew, and the task at which it broke is done by itself, in halves.
"""

import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from threadpoolctl import threadpool_limits

Task = TypeVar("Task")
Result = TypeVar("Result")


class Pool:
    """Processes for crews, one crew after another; the calling script needs its ``__main__`` guard.

    They are made when they are needed, or before that by ``start``, for it takes them two seconds to be ready, and
    ended with the block.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._processes: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def start(self) -> None:
        """Make the processes; does not wait for them."""
        for _ in range(self.workers):
            self.submit(nothing)

    def submit(self, work: Callable[..., Result], *given: Any) -> Future[Result]:
        """As that of an executor, but where a process has ended this is told by the future."""
        if self._processes is None:
            self._processes = ProcessPoolExecutor(self.workers, multiprocessing.get_context("spawn"), single_threaded)
        try:
            with unheard(signal.SIGINT):
                return self._processes.submit(work, *given)
        except BrokenProcessPool as error:
            broken: Future[Result] = Future()
            broken.set_exception(error)
            return broken

    def end(self) -> None:
        """End the processes, and what waits for them; others are made when they are needed."""
        if self._processes is not None:
            self._processes.shutdown(cancel_futures=True)
            self._processes = None


@dataclass(frozen=True, slots=True)
class Crew(Generic[Task, Result]):
    """Processes that do ``work``, which must be picklable as tasks and results are."""

    pool: Pool
    work: Callable[[Task], Result]
    split: Callable[[Task], list[Task]]
    """The halves of a task; itself alone where it has none."""
    lost: Callable[[Task], Result]
    """The result of a task without parts whose process ends each time."""
    attempts: int = 2
    """Times that a task without parts is tried by itself."""

    def run(self, tasks: Iterable[Task]) -> Generator[Result, None, None]:
        """Results in the order of tasks; only a few tasks are taken ahead."""
        waiting: deque[tuple[Task, Future[Result]]] = deque()
        try:
            for task in tasks:
                waiting.append((task, self.pool.submit(self.work, task)))
                if len(waiting) > 2 * self.pool.workers:
                    yield from self._first(waiting)
            while waiting:
                yield from self._first(waiting)
        finally:
            for _, future in waiting:
                future.cancel()

    def _first(self, waiting: deque[tuple[Task, Future[Result]]]) -> Iterator[Result]:
        task, future = waiting.popleft()
        try:
            yield future.result()
        except BrokenProcessPool:
            self.pool.end()
            yield from self._alone(task)
            for place, (other, done) in enumerate(waiting):
                if not done.done() or done.exception():
                    waiting[place] = other, self.pool.submit(self.work, other)

    def _alone(self, task: Task) -> Iterator[Result]:
        """A task in a process that does nothing else; if that ends, its parts."""
        parts = self.split(task)
        for _ in range(self.attempts if len(parts) == 1 else 1):
            with Pool(1) as alone:
                try:
                    result = alone.submit(self.work, task).result()
                except BrokenProcessPool:
                    continue
            yield result
            return
        if len(parts) == 1:
            yield self.lost(task)
            return
        for part in parts:
            yield from self._alone(part)


def nothing() -> None:
    """What a process is asked for that is only to be made."""


def single_threaded() -> None:
    """Processes share the cores already; threads below them would only fight."""
    import_module("sklearn.svm")  # brings a BLAS of its own, to be limited too
    threadpool_limits(1, user_api="blas")


@contextmanager
def unheard(number: signal.Signals) -> Iterator[None]:
    """Processes that start meanwhile never hear of the signal, not even while they import; here it comes after."""
    come: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    main = threading.current_thread() is threading.main_thread()
    # where this thread blocks it another one may take it, and Python would have the main thread break off
    handler = signal.signal(number, lambda *_: come.append(number)) if main else None
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if main:
            signal.signal(number, handler)
        if come:
            signal.raise_signal(number)


@contextmanager
def at_most(seconds: float | None) -> Iterator[None]:
    """End this process if it is still here after so long, whatever it is doing; nothing in a process of no crew."""
    if seconds is None or multiprocessing.parent_process() is None:
        yield
        return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends it, even in compiled code
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
