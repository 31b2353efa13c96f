"""Tasks over processes: a few wait at a time, each ends with its parent, and all stop when the job is to."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process
from signal import SIGINT
from threading import Thread
from typing import Any

import pyarrow as pa
from threadpoolctl import threadpool_limits

from scorers.crew import unheard
from scorers.errors import TidewatchError, UnavailableError
from tidewatch.batch.spec import Plan, Result, Task
from tidewatch.jobs import Cancelled, Run

Submit = Callable[[Any], "Future[Result]"]
NAP_S = 0.2
"""How often somebody looks whether to stop."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Where tasks are done, elsewhere than in processes here."""

    make: Callable[[], Executor]
    width: int
    """Tasks that go on at the same time."""


def spread(run: Run, plan: Plan, task: Task, items: Sequence[Any], workers: int | Pool) -> Iterator[tuple[Any, Result]]:
    """Results as they come; tasks go to processes, unless there is but one to use, or to a pool."""
    if workers == 1 or (isinstance(workers, int) and len(items) <= 1):
        here = replace(plan, stop=lambda: run.stopped)
        with threadpool_limits(1, user_api="blas"):
            for item in items:
                run.check()
                yield item, _attempt(task, here, item)
        return
    own = workers if isinstance(workers, Pool) else _processes(workers)
    pool = own.make()
    try:
        yield from _pooled(run, lambda item: pool.submit(_attempt, task, plan, item), iter(items), 2 * own.width)
    except BrokenProcessPool as error:
        raise UnavailableError(
            "A scoring process was killed, most likely for want of memory; use fewer --workers or a lower"
            " batch.memory_mb, and run the job again to go on."
        ) from error
    finally:
        plan.halt.touch()
        pool.shutdown(cancel_futures=True)
        plan.halt.unlink()


def _processes(count: int) -> Pool:
    return Pool(partial(ProcessPoolExecutor, count, get_context("spawn"), begin), count)


def _pooled(run: Run, submit: Submit, items: Iterator[Any], most: int) -> Iterator[tuple[Any, Result]]:
    """Only a few tasks wait at a time, and somebody looks often whether to stop."""
    waiting: dict[Future[Result], Any] = {}
    while True:
        with unheard(SIGINT):
            for item in islice(items, most - len(waiting)):
                waiting[submit(item)] = item
        if not waiting:
            return
        done, _ = wait(waiting, NAP_S, FIRST_COMPLETED)
        for future in done:
            yield waiting.pop(future), future.result()
        run.check()


def _attempt(task: Task, plan: Plan, item: Any) -> Result:
    """Do a task; what goes wrong with its input is its result.

    Raises:
        Cancelled: the job is to stop.
        UnavailableError: the disk that the job works on is full, say.
    """
    begun = time.monotonic()
    try:
        result = task(plan, item) | {"status": "done", "reason": ""}
    except Cancelled:
        raise
    except OSError as error:
        raise UnavailableError(
            f"The job cannot work in {plan.work} ({error.strerror or error}); free space and run it again to go on."
        ) from error
    except Exception as error:  # noqa: BLE001 - one file must never stop the others
        told = str(error) if isinstance(error, TidewatchError) else f"{type(error).__name__}: {error}"
        result = {"status": "failed", "reason": told}
    return result | {"number": item[0], "seconds": round(time.monotonic() - begun, 3)}


def begin() -> None:
    """What a process of ours does first: share the cores, and end with its parent, to which Ctrl-C is left."""
    threadpool_limits(1, user_api="blas")
    pa.set_cpu_count(1)
    Thread(target=_end_with, args=(parent_process(),), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
