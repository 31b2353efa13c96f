"""Which servers share a machine."""

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.errors import ConfigError, InputError
from scorers.forecast.plan import Plan, likely, plan

HOUR_MS = 3_600_000


def table(loads: Sequence[Sequence[float | None]]) -> pa.Table:
    """Rows of servers ``s00``, ``s01``, …; None is an hour not forecast."""
    rows = [
        (f"s{server:02}", hour * HOUR_MS, peak)
        for server, peaks in enumerate(loads)
        for hour, peak in enumerate(peaks)
        if peak is not None
    ]
    names, hours, peaks = zip(*rows, strict=True)
    return pa.table({"server": names, "hour": hours, "peak": pa.array(peaks, pa.float64())})


def loads(most: float, hours: int, servers: int = 12) -> st.SearchStrategy[list[list[float]]]:
    # hundredths, so that a sum here is no rounding error above a sum there
    cell = st.integers(0, round(100 * most)).map(lambda cents: cents / 100)
    return st.lists(st.lists(cell, min_size=hours, max_size=hours), min_size=1, max_size=servers)


def fewest(sizes: Sequence[int], room: int) -> int:
    """Bins that sizes need, by trying all ways."""

    def fits(left: list[int], rest: Sequence[int]) -> bool:
        if not rest:
            return True
        first, *others = rest
        for place in range(len(left)):
            if left[place] >= first and left[place] not in left[:place]:
                left[place] -= first
                if fits(left, others):
                    return True
                left[place] += first
        return False

    ordered = sorted(sizes, reverse=True)
    return next(bins for bins in count(1) if fits([room] * bins, ordered))


def everyone(made: Plan) -> list[str]:
    return sorted([name for group in made.groups for name in group.servers] + [heavy.server for heavy in made.heavy])


@given(loads(150, 3), st.sampled_from([0.0, 0.2, 0.5]))
@settings(max_examples=150, deadline=None)
def test_laws_of_a_plan(given_loads: list[list[float]], headroom: float) -> None:
    made = plan(table(given_loads), 100, headroom=headroom)
    by_name = {f"s{number:02}": np.array(peaks) for number, peaks in enumerate(given_loads)}

    assert made.room == pytest.approx(100 * (1 - headroom))
    assert everyone(made) == sorted(by_name), "every server once"
    for group in made.groups:
        together = np.sum([by_name[name] for name in group.servers], axis=0)
        assert together.max() <= made.room + 1e-9, "no group above what a machine bears"
        assert group.peak <= made.room
        assert by_name[group.servers[0]].max() == max(by_name[name].max() for name in group.servers), (
            "the largest stays"
        )
    for heavy in made.heavy:
        assert heavy.peak > made.room
        assert (heavy.machines - 1) * made.room < heavy.peak <= heavy.machines * made.room + 1e-6
    assert len(made.groups) <= len(by_name) - len(made.heavy), "never more than before"
    assert made.before == len(by_name)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=9))
@settings(max_examples=150, deadline=None)
def test_groups_are_within_the_bound_of_first_fit_decreasing(sizes: list[int]) -> None:
    made = plan(table([[float(size)] for size in sizes]), 20, headroom=0)
    best = fewest(sizes, 20)

    assert best <= len(made.groups) <= 11 / 9 * best + 6 / 9


@given(loads(100, 4))
@settings(max_examples=60, deadline=None)
def test_looking_at_hours_never_needs_more_than_looking_at_peaks(given_loads: list[list[float]]) -> None:
    flat = [[max(peaks)] * 4 for peaks in given_loads]

    assert len(plan(table(given_loads), 100).groups) <= len(plan(table(flat), 100).groups)


def test_servers_that_are_busy_at_different_times_share_a_machine() -> None:
    made = plan(table([[70, 10], [10, 70], [60, 60]]), 100, headroom=0.1)

    assert made.by == "hours"
    assert [group.servers for group in made.groups] == [("s00", "s01"), ("s02",)]
    assert (made.groups[0].peak, made.before, made.after) == (80, 3, 2)


def test_without_a_gain_from_hours_groups_rest_on_peaks_alone() -> None:
    made = plan(table([[30, 10], [10, 30], [40, 10]]), 100, headroom=0)

    assert made.by == "peaks"
    assert [(group.servers, group.peak) for group in made.groups] == [(("s02", "s00", "s01"), 100)]


def test_a_heavy_server_is_spread() -> None:
    made = plan(table([[250, 90], [10, 10]]), 100, headroom=0)
    heavy = made.heavy[0]

    assert (heavy.server, heavy.peak, heavy.hour, heavy.hours, heavy.machines) == ("s00", 250, 0, 1, 3)
    assert (made.before, made.after) == (2, 4)


def test_an_hour_without_a_forecast_is_as_heavy_as_the_heaviest() -> None:
    made = plan(table([[70, None], [10, 70]]), 100, headroom=0)

    assert len(made.groups) == 2


@pytest.mark.parametrize("wrong", [{"capacity": 0}, {"capacity": float("nan")}, {"headroom": 1}, {"headroom": -0.1}])
def test_a_plan_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is"):
        plan(table([[1]]), **({"capacity": 100.0} | wrong))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "no forecasts"),
        ([("a", 0, 1.0), ("a", 0, 2.0)], "two forecasts"),
        ([("a", 0, -1.0)], "peak of -1"),
        ([("a", 0, float("nan"))], "peak of nan"),
    ],
)
def test_forecasts_that_are_none_are_refused(rows: list[Any], told: str) -> None:
    columns = [[row[place] for row in rows] for place in range(3)]
    kinds = (pa.string(), pa.int64(), pa.float64())
    given_rows = pa.table(
        [pa.array(cells, kind) for cells, kind in zip(columns, kinds, strict=True)], ["server", "hour", "peak"]
    )

    with pytest.raises(InputError, match=told):
        plan(given_rows, 100)


@given(st.lists(st.tuples(*[st.floats(0.01, 1)] * 3), min_size=1, max_size=5), st.floats(0.05, 0.95))
@settings(deadline=None)
def test_a_load_is_exceeded_as_seldom_as_asked(given_shares: list[tuple[float, ...]], confidence: float) -> None:
    shares = np.array(given_shares)
    shares /= shares.sum(axis=1, keepdims=True)
    peaks = likely(shares, (100, 500, 1000), confidence)
    below = [
        np.interp(peak, [0, 100, 500, 1000], [0, *np.cumsum(row)]) for peak, row in zip(peaks, shares, strict=True)
    ]

    assert below == pytest.approx([confidence] * len(shares))


def test_a_sure_class_gives_a_load_within_it() -> None:
    peaks = likely(np.eye(3), (100, 500, 1000), 0.9)

    assert peaks.tolist() == pytest.approx([90, 460, 950])


@pytest.mark.parametrize(("limits", "confidence"), [((1, 2), 0.9), ((2, 1, 3), 0.9), ((1, 2, 3), 1.0)])
def test_limits_that_do_not_rise_are_refused(limits: tuple[float, ...], confidence: float) -> None:
    with pytest.raises(ConfigError, match="give"):
        likely(np.eye(3), limits, confidence)
