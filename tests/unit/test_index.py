"""The index of open windows: a dict of pairs, in a table."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.index import Index

PAIRS = st.tuples(st.integers(0, 7), st.integers(-3, 3) | st.integers(170_000_000, 170_000_002))


@settings(max_examples=300)
@given(steps=st.lists(st.lists(PAIRS, unique=True, max_size=12), max_size=12))
def test_it_finds_what_a_dict_finds(steps: list[list[tuple[int, int]]]) -> None:
    """Each step enters the pairs that are not there, and takes out those that are."""
    index, known = Index(), dict[tuple[int, int], int]()
    devices, windows = np.zeros(200, np.int64), np.zeros(200, np.int64)
    fresh = iter(range(200))
    for step in steps:
        gone = [known.pop(pair) for pair in step if pair in known]
        entered = {pair: next(fresh) for pair in step if pair not in known and len(known) + len(step) < 40}
        entered = {pair: row for pair, row in entered.items() if row not in gone}
        index.leave(devices, windows, np.array(gone, np.int64))
        for pair, row in entered.items():
            devices[row], windows[row] = pair
        index.enter(devices, windows, np.array(list(entered.values()), np.int64))
        known |= entered

        asked = [
            (device, window) for device in range(8) for window in (*range(-3, 4), *range(170_000_000, 170_000_003))
        ]
        device, window = np.array(asked).T
        found = index.find(devices, windows, device, window)
        assert found.tolist() == [known.get(pair, -1) for pair in asked]
        assert len(index) == len(known)


def test_it_grows_with_what_it_holds() -> None:
    index, count = Index(), 50_000
    devices, windows = np.arange(count) % 1_000, np.arange(count) // 1_000
    for rows in np.split(np.arange(count), 10):
        index.enter(devices, windows, rows)

    assert index.find(devices, windows, devices, windows).tolist() == list(range(count))

    index.leave(devices, windows, np.arange(0, count, 2))
    found = index.find(devices, windows, devices, windows)
    assert found.tolist() == [-1 if row % 2 == 0 else row for row in range(count)]
