import os
import signal
import time
from functools import partial
from itertools import chain

from scorers.crew import Crew, Pool, at_most

Task = list[int]
DEADLY, ENDLESS = 13, 17


def work(task: Task, limit: float | None = None) -> Task:
    """Squares; 13 kills its process, and 17 never ends."""
    for number in task:
        with at_most(limit):
            if number == DEADLY:
                os.kill(os.getpid(), signal.SIGKILL)
            while number == ENDLESS:
                time.sleep(0.1)
    return [number * number for number in task]


def os_ids(_: Task) -> Task:
    """Of the process that it is done in."""
    return [os.getpid()]


def halves(task: Task) -> list[Task]:
    half = len(task) // 2
    return [part for part in (task[:half], task[half:]) if part]


def lost(task: Task) -> Task:
    return [-number for number in task]


def done(tasks: list[Task], limit: float | None = None) -> list[int]:
    with Pool(2) as pool:
        return list(chain.from_iterable(Crew(pool, partial(work, limit=limit), halves, lost, attempts=1).run(tasks)))


def test_results_come_in_the_order_of_tasks() -> None:
    tasks = [[number, number + 1] for number in range(0, 12, 2)]

    assert done(tasks) == [number * number for number in range(12)]


def test_what_kills_its_process_is_lost_alone() -> None:
    found = done([[1, 2], [3, DEADLY, 4], [5, 6], [7]])

    assert found == [1, 4, 9, -DEADLY, 16, 25, 36, 49]


def test_what_takes_too_long_is_lost_alone() -> None:
    found = done([[1], [ENDLESS, 2], [3]], limit=1.0)

    assert found == [1, -ENDLESS, 4, 9]


def test_crews_share_processes_also_after_one_was_left_early() -> None:
    with Pool(2) as pool:
        pool.start()
        first = Crew(pool, os_ids, halves, lost).run([[number] for number in range(20)])
        (one,) = next(first)
        first.close()
        others = set(chain.from_iterable(Crew(pool, os_ids, halves, lost).run([[number] for number in range(20)])))

    assert one in others
    assert len(others) <= 2


def test_no_limit_holds_outside_a_crew() -> None:
    with at_most(0.001):
        time.sleep(0.01)
