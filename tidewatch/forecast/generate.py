"""Session logs to disk: days to processes, whole files into the folder, and beside them what is true of them."""

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from signal import SIGINT
from tempfile import TemporaryDirectory

from producers.sessions import lines
from producers.synthesis import Log, LogSpec, Truth
from scorers.crew import unheard
from scorers.errors import InputError, UnavailableError
from tidewatch.batch.spread import begin

TRUTH = "truth.json"
"""Beside the log: how many rows there are, and how many of them are spoilt, by kind and by column."""
Progress = Callable[[int, int], None]


def sized(spec: LogSpec, size: float) -> LogSpec:
    """The spec with as many sessions as make ``size`` bytes, by the rows of a day in the middle."""
    guess = replace(spec, sessions=max(size / 160, 1.0))
    sample = next((table for table in guess.build().tables(spec.days // 2) if len(table)), None)
    return guess if sample is None else replace(spec, sessions=max(size * len(sample) / len(lines(sample)), 1.0))


def generate(spec: LogSpec, folder: Path, *, workers: int, progress: Progress) -> Truth:
    """Write the log; ``progress`` hears of days done and days in all, and may raise to stop: then nothing is left.

    Raises:
        InputError: the folder holds a log already.
        UnavailableError: it cannot be written, or a process was killed.
    """
    there = next((path for path in folder.glob("*/**/request.csv")), None)
    if there is not None:
        raise InputError(f"{str(folder)!r} holds a log already ({there.relative_to(folder)}); give another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".making-") as making:
            truth = _files(spec.build(), Path(making), workers, progress)
            for name in spec.build().files():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(making) / name).rename(folder / name)
        (folder / TRUTH).write_text(json.dumps(truth.plain(), indent=1) + "\n")
    except OSError as error:
        raise UnavailableError(
            f"The log cannot be written to {str(folder)!r} ({error.strerror}); free space, or give another folder."
        ) from error
    return truth


def _files(log: Log, making: Path, workers: int, progress: Progress) -> Truth:
    """Days as they are done, in order, put together to files."""
    truth, days = Truth(), log.spec.days
    where = {day: name for name, within in log.files().items() for day in within}
    with _days(log.spec, making, workers) as made:
        for day, written in enumerate(made):
            truth.add(written)
            _place(making / f"{day}.csv", making / "whole.csv")
            if day + 1 == days or where[day + 1] != where[day]:
                (making / where[day]).parent.mkdir(parents=True, exist_ok=True)
                (making / "whole.csv").rename(making / where[day])
            progress(day + 1, days)
    return truth


def _place(day: Path, whole: Path) -> None:
    """Put a day behind those of its file."""
    if not whole.exists():
        day.rename(whole)
        return
    with day.open("rb") as source, whole.open("ab") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    day.unlink()


@contextmanager
def _days(spec: LogSpec, making: Path, workers: int) -> Iterator[Iterator[Truth]]:
    """What is true of each day, in order, once its file is there; a few days are made ahead."""
    tasks = ((spec, day, making / f"{day}.csv") for day in range(spec.days))
    if min(workers, spec.days) == 1:
        yield (_day(*task) for task in tasks)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), begin)
    try:
        waiting: dict[int, Future[Truth]] = {}

        def results() -> Iterator[Truth]:
            for day in range(spec.days):
                with unheard(SIGINT):
                    for task in islice(tasks, 2 * workers - len(waiting)):
                        waiting[task[1]] = pool.submit(_day, *task)
                yield waiting.pop(day).result()

        yield results()
    except BrokenProcessPool as error:
        raise UnavailableError("A process was killed, most likely for want of memory; use fewer --workers.") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _day(spec: LogSpec, day: int, path: Path) -> Truth:
    with path.open("wb", buffering=1 << 20) as file:
        return _log(spec).write_day(day, file)


@lru_cache(1)
def _log(spec: LogSpec) -> Log:
    return spec.build()
