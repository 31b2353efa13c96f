"""Windows in columns: where a reading belongs, and what a window is summarised by."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.errors import ConfigError
from scorers.statistics import Floats, Ints
from stream.window import Arrivals, Closed, Values, Windows, WindowSpec

TUMBLING = WindowSpec()
EVERYTHING = 2**60


def add(windows: Windows, values: Floats, *, ts: Ints | None = None, device: int = 0, offset: int = 0) -> None:
    """One tumbling window's readings of ``values``, shape (n,) or (n, m), metrics m0, m1, …"""
    values = values.reshape(len(values), -1)
    names = [f"m{column}" for column in range(values.shape[1])]
    count = len(values)
    stamps = np.arange(count) if ts is None else ts
    windows.grow(device + 1)
    numbers = np.full(count, device)
    if not {*names} <= {*windows.metrics(int(windows.blocks(numbers[:1])[0]))}:
        windows.widen(numbers[:1], names)
    block = int(windows.blocks(numbers[:1])[0])
    clock = np.arange(offset, offset + count)
    number = stamps // windows.spec.hop_ms
    start = np.arange(count) * len(names)
    arrivals = Arrivals(numbers, number, stamps % windows.spec.hop_ms, clock, clock, np.zeros(count, np.int64), start)
    windows.add(block, arrivals, Values(values.ravel(), np.array([0, len(names)]), windows.columns(block, names)))


def close(windows: Windows, until: int = EVERYTHING, devices: int = 4) -> list[Closed]:
    return list(windows.close(np.full(devices, until)))


def summary(values: Floats) -> pd.Series:
    """count, mean, std, min, max, last of one metric."""
    windows = Windows(WindowSpec(10**9, 10**9))
    add(windows, values)
    (closed,) = close(windows)
    names = ("count", "mean", "std", "min", "max", "last")
    return pd.Series({name: getattr(closed.statistics, name)[0, 0] for name in names})


# --- which windows -----------------------------------------------------------------------------


@settings(max_examples=300)
@given(ts=st.integers(0, 2**43), size=st.integers(1, 10**8), data=st.data())
def test_the_last_window_that_holds_a_reading_starts_at_a_multiple_of_the_hop(
    ts: int, size: int, data: st.DataObject
) -> None:
    hop = data.draw(st.integers(1, size))
    spec = WindowSpec(size, hop)
    end = int(spec.last_end(np.array([ts]))[0])
    start = end - size

    assert start % hop == 0
    assert start <= ts < end
    assert start + hop > ts
    assert start - (spec.overlap - 1) * hop + size > ts or size % hop
    assert start - spec.overlap * hop + size <= ts


@pytest.mark.parametrize(("size", "hop", "overlap"), [(10, 10, 1), (10, 5, 2), (10, 3, 4), (10, 1, 10), (10, 9, 2)])
def test_a_reading_belongs_to_size_over_hop_windows_at_the_most(size: int, hop: int, overlap: int) -> None:
    spec = WindowSpec(size, hop)
    held = [sum(start <= ts < start + size for start in range(-20 * hop, 1000, hop)) for ts in range(100)]

    assert spec.overlap == max(held) == overlap


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"size_ms": 0, "hop_ms": 0}, "window.hop"),
        ({"size_ms": 25 * 86_400_000}, "window.size"),
        ({"hop_ms": 0}, "window.hop"),
        ({"hop_ms": 10_001}, "window.hop"),
        ({"grace_ms": -1}, "window.grace"),
        ({"idle_ms": 0}, "window.idle"),
    ],
)
def test_lengths_that_make_no_sense_are_refused_by_name(changes: dict[str, int], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        WindowSpec(**changes)


def test_a_window_closes_at_its_end_and_not_before() -> None:
    windows = Windows(TUMBLING)
    add(windows, np.array([1.0, 2.0, 3.0]), ts=np.array([0, 9_999, 10_000]))
    before, at = close(windows, 9_999), close(windows, 10_000)

    assert before == []
    assert [(closed.start.tolist(), closed.count.tolist()) for closed in at] == [([0], [2])]
    assert len(windows) == 1


def test_a_window_that_closed_starts_from_nothing_when_its_row_is_used_again() -> None:
    windows = Windows(TUMBLING)
    for _ in range(3):
        add(windows, np.array([5.0, 7.0]))
        (closed,) = close(windows)

        assert (closed.count.tolist(), closed.statistics.mean.tolist()) == ([2], [[6.0]])


def test_windows_come_out_by_device_and_time() -> None:
    windows = Windows(TUMBLING)
    for device, second in ((2, 25), (0, 15), (2, 5), (0, 5)):
        add(windows, np.array([1.0]), ts=np.array([second * 1000]), device=device)
    (closed,) = close(windows)

    assert closed.device.tolist() == [0, 0, 2, 2]
    assert closed.start.tolist() == [0, 10_000, 0, 20_000]


def test_the_floor_is_the_lowest_offset_an_open_window_needs() -> None:
    windows = Windows(TUMBLING)
    empty = windows.floor()
    add(windows, np.array([1.0]), offset=7)
    add(windows, np.array([1.0]), device=1, offset=3)
    add(windows, np.array([1.0]), device=1, offset=9)

    assert empty is None
    assert windows.floor() == (3, 3)


def test_a_metric_that_appears_later_keeps_what_was_there() -> None:
    windows = Windows(TUMBLING)
    add(windows, np.array([[1.0], [3.0]]), offset=4)
    add(windows, np.array([[5.0, 70.0]]), offset=6)
    (closed,) = close(windows)

    assert closed.count.tolist() == [3]
    assert closed.statistics.count.tolist() == [[3, 1]]
    assert closed.statistics.mean.tolist() == [[3.0, 70.0]]


@settings(max_examples=50)
@given(readings=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 99_999)), min_size=1, max_size=300))
def test_many_windows_grow_and_shrink_without_mixing(readings: list[tuple[int, int]]) -> None:
    windows = Windows(TUMBLING)
    for device, ts in readings:
        add(windows, np.array([float(ts)]), ts=np.array([ts]), device=device)
    found: dict[tuple[int, int], int] = {}
    for closed in close(windows):
        keys = zip(closed.device.tolist(), closed.start.tolist(), strict=True)
        found |= dict(zip(keys, closed.count.tolist(), strict=True))

    assert found == Counter((device, ts // 10_000 * 10_000) for device, ts in readings)
    assert len(windows) == 0


# --- statistics --------------------------------------------------------------------------------

SERIES = st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 3)), min_size=1, max_size=50).map(np.array)


@settings(max_examples=200)
@given(values=SERIES)
def test_statistics_are_those_of_pandas(values: Floats) -> None:
    expected = pd.Series(values).agg(["count", "mean", "std", "min", "max"])
    got = summary(values)

    assert got["last"] == values[-1]
    assert got[["count", "min", "max"]].tolist() == expected[["count", "min", "max"]].tolist()
    assert got["mean"] == pytest.approx(expected["mean"], rel=1e-12, abs=1e-9)
    assert got["std"] == pytest.approx(expected["std"], rel=1e-9, abs=1e-7, nan_ok=True)


@pytest.mark.parametrize("level", [0.0, 1e3, 1e6, 1e9, -1e9, 1e12])
def test_a_small_noise_on_a_huge_level_keeps_its_deviation(level: float) -> None:
    noise = np.random.default_rng(7).normal(0, 1e-2, 2_000)
    values = level + noise
    got = summary(values)
    # what the rounding of the readings themselves leaves of the noise
    left = np.std((values - level).astype(np.longdouble), ddof=1)

    assert got["std"] == pytest.approx(float(left), rel=1e-9)
    assert got["mean"] == pytest.approx(level + float(np.mean((values - level).astype(np.longdouble))), rel=1e-15)


def test_a_first_reading_far_off_costs_digits_and_not_the_deviation() -> None:
    values = np.append(1e6, np.random.default_rng(7).normal(0, 1, 2_000))
    got = summary(values)

    assert got["std"] == pytest.approx(float(np.std(values.astype(np.longdouble), ddof=1)), rel=1e-10)


@pytest.mark.parametrize("value", [0.1, 1e9 + 0.1, -3e99, 5e-324])
def test_a_stuck_sensor_deviates_by_nothing(value: float) -> None:
    got = summary(np.full(1_000, value))

    assert got["std"] == 0
    assert got["mean"] == got["min"] == got["max"] == got["last"] == value


def test_one_reading_has_no_deviation() -> None:
    assert np.isnan(summary(np.array([4.0]))["std"])


@settings(max_examples=200)
@given(values=st.lists(st.floats(-1e100, 1e100), min_size=1, max_size=30).map(np.array))
def test_the_mean_lies_between_the_extremes_whatever_is_measured(values: Floats) -> None:
    got = summary(values)

    assert got["min"] <= got["mean"] <= got["max"]
    assert np.isfinite(got.drop("std")).all()
    assert len(values) == 1 or got["std"] >= 0


@pytest.mark.parametrize(("stamps", "last"), [([1, 2, 3], 30), ([3, 2, 1], 10), ([1, 3, 3], 30), ([2, 2, 1], 20)])
def test_the_last_reading_is_the_one_with_the_highest_stamp_and_of_those_the_latest(
    stamps: list[int], last: float
) -> None:
    values = np.array([10.0, 20.0, 30.0])
    together, apart = Windows(TUMBLING), Windows(TUMBLING)
    add(together, values, ts=np.array(stamps))
    for value, ts in zip(values, stamps, strict=True):
        add(apart, np.array([value]), ts=np.array([ts]))

    assert [closed.statistics.last.item() for windows in (together, apart) for closed in close(windows)] == [last, last]


@settings(max_examples=100)
@given(values=SERIES, cuts=st.lists(st.integers(0, 50)))
def test_statistics_are_the_same_bits_however_the_readings_were_batched(values: Floats, cuts: list[int]) -> None:
    whole, parts = Windows(TUMBLING), Windows(TUMBLING)
    add(whole, values)
    for part in np.split(np.arange(len(values)), sorted(cuts)):
        if len(part):
            add(parts, values[part], ts=part)
    (one,), (other,) = close(whole), close(parts)

    for name in ("count", "mean", "std", "min", "max", "last"):
        np.testing.assert_array_equal(getattr(one.statistics, name), getattr(other.statistics, name))
