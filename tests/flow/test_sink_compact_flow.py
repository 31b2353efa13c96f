"""A sink, compactions and readers at once, each a process; some compactions are killed."""

import random
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests import crowd


@pytest.mark.parametrize("killed", [False, True], ids=["in peace", "killed at random"])
def test_readers_never_miss_a_row_or_see_one_twice_while_folders_are_exchanged(tmp_path: Path, *, killed: bool) -> None:
    context = get_context("spawn")
    stop, told, visible = context.Event(), context.Queue(), context.Value("q", 0)
    readers = [crowd.with_dataset, crowd.with_duckdb, crowd.with_pandas]
    # daemons, so that a failure here is the end of them too
    others = [context.Process(target=crowd.write, args=(tmp_path, stop, visible), daemon=True)]
    others[0].start()
    while visible.value < 60:
        assert others[0].is_alive()
        time.sleep(0.01)
    others += [
        context.Process(target=crowd.read, args=(tmp_path, how, stop, visible, told), daemon=True) for how in readers
    ]
    for process in others[1:]:
        process.start()
    for _ in range(3 if killed else 1):
        merging = context.Process(target=crowd.merge, args=(tmp_path, 100 if killed else 4), daemon=True)
        merging.start()
        merging.join(3 + 2 * random.random() if killed else None)
        merging.kill()
        merging.join()
        assert merging.exitcode == (-9 if killed else 0)
    crowd.merge(tmp_path, 1)
    stop.set()
    seen: dict[str, Counter[str]] = dict(told.get() for _ in readers)
    for process in others:
        process.join()
    everything = list(range(visible.value))

    assert set(seen["with_dataset"]) - {"right"} == {crowd.TWICE, crowd.MISSING}
    assert all(counts["right"] > 0 for counts in seen.values()), seen
    assert [(counts[crowd.TWICE], counts[crowd.MISSING]) for counts in seen.values()] == [(0, 0)] * 3, seen
    assert [sorted(how(tmp_path)) for how in readers] == [everything] * 3
