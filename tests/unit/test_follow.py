"""The limit that follows a device's own windows: learned in order, from healthy windows, in any batching."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.errors import ConfigError
from scorers.follow import HIGHEST, MARGIN, RAISED, STEADY, TOLERATED, FollowSpec, Trails
from scorers.statistics import Floats, Ints

SPEC = FollowSpec(deviations=4, memory=50, warmup=20, least=0.2, calm=1, patience=0)
PATIENT = replace(SPEC, patience=30)
REACH = 100.0


def healthy(windows: int, level: float = 0.4, seed: int = 1) -> Floats:
    """Distances whose roots lie about ``level`` of the trained limit's."""
    return np.asarray(REACH * np.clip(np.random.default_rng(seed).normal(level, 0.02, windows), 0, None) ** 2)


def follow(
    trails: Trails, distance: Floats, device: Ints | None = None, reach: float = REACH, *, fresh: bool = True
) -> Floats:
    """Limits of these windows, all of device 0 unless told, as shares of the root of the trained limit."""
    count = len(distance)
    trails.grow(3)
    share = trails.follow(
        np.zeros(count, np.int64) if device is None else device,
        distance, np.full(count, reach), np.full(count, fresh),
    )  # fmt: skip
    return np.sqrt(share)


def test_the_trained_limit_holds_until_the_device_is_known() -> None:
    limits = follow(Trails(SPEC), healthy(60))

    assert (limits[:20] == 1).all()
    assert (limits[20:] < 0.6).all()


def test_a_limit_is_the_mean_and_so_many_deviations_of_what_was() -> None:
    distance = healthy(41)
    before = np.sqrt(distance[:40] / REACH)

    assert follow(Trails(SPEC), distance)[40] == pytest.approx(before.mean() + 4 * before.std())


def test_what_was_is_forgotten() -> None:
    trails = Trails(SPEC)
    follow(trails, healthy(200, 0.30))
    follow(trails, healthy(50 * 6, 0.32))  # a little at a time, so that it stays within the limit

    assert trails.mean[0] == pytest.approx(0.32, abs=0.01)


def test_a_shift_far_below_the_trained_limit_is_found_and_not_learned() -> None:
    trails = Trails(SPEC)
    follow(trails, healthy(100, 0.3))
    shifted = healthy(500, 0.6)
    limits = follow(trails, shifted)

    assert (np.sqrt(shifted / REACH) > limits).all()
    assert (limits == limits[0]).all()


def test_nothing_is_learned_until_so_many_windows_were_calm() -> None:
    trails = Trails(replace(SPEC, calm=3))
    follow(trails, healthy(100, 0.3))
    known = trails.count[0]
    follow(trails, np.array([0.09, 0.81, 0.09, 0.09, 0.81, 0.09, 0.09, 0.09, 0.09]) * REACH)

    assert trails.count[0] == known + 3


def test_a_limit_never_exceeds_the_trained_one_nor_falls_below_its_share() -> None:
    loud = follow(Trails(SPEC), healthy(100, 0.97))
    still = follow(Trails(SPEC), np.full(100, 1e-6))

    assert loud.max() == 1
    assert still[-1] == pytest.approx(SPEC.least)


def restless(windows: int, level: float = 0.8) -> Floats:
    """Distances whose roots lie about ``level`` of the trained limit's and vary by half of it, as faults do."""
    return np.asarray(REACH * np.random.default_rng(2).uniform(0.75 * level, 1.25 * level, windows) ** 2)


def steady(windows: int, level: float) -> Floats:
    """Distances whose roots keep within a share of ``level``."""
    return np.asarray(REACH * (level * np.random.default_rng(3).uniform(1 - STEADY / 2, 1 + STEADY / 2, windows)) ** 2)


def test_a_device_that_stays_odd_but_steady_has_settled_once_patience_ends() -> None:
    trails, shifted = Trails(PATIENT), steady(400, 0.8)
    usual = follow(trails, healthy(100, 0.3))[-1]
    limits = follow(trails, shifted)

    assert limits[:30] == pytest.approx(usual, rel=0.01)
    assert limits[30:] == pytest.approx((1 + MARGIN) * 0.8, rel=STEADY)
    # nothing of it was learned
    assert trails.mean[0] == pytest.approx(0.3, abs=0.01)


def test_a_device_that_has_settled_is_odd_a_margin_beyond_that() -> None:
    trails = Trails(PATIENT)
    follow(trails, healthy(100, 0.3))
    follow(trails, steady(60, 0.8))
    farther = restless(20, 2.0)

    assert (np.sqrt(farther / REACH) > follow(trails, farther)).all()


def test_a_device_that_settles_nearer_is_judged_from_there() -> None:
    trails = Trails(PATIENT)
    follow(trails, healthy(100, 0.3))
    follow(trails, steady(60, 1.2))
    follow(trails, steady(60, 0.8))

    assert follow(trails, steady(1, 0.8))[0] == pytest.approx((1 + MARGIN) * 0.8, rel=0.1)


def test_a_device_that_is_far_out_and_unsteady_is_odd_for_ever() -> None:
    trails, broken = Trails(PATIENT), restless(3000)
    usual = follow(trails, healthy(100, 0.3))[-1]
    limits = follow(trails, broken)

    assert (np.sqrt(broken / REACH) > limits).all()
    assert limits.max() == pytest.approx(RAISED * usual, rel=0.01)


def test_a_limit_rises_where_a_device_stays_odd_and_unsteady_once_patience_ends() -> None:
    trails, restive = Trails(PATIENT), np.asarray(REACH * np.random.default_rng(2).uniform(0.4, 0.5, 3000) ** 2)
    follow(trails, healthy(100, 0.3))
    limits = follow(trails, restive)
    odd = np.sqrt(restive / REACH) > limits

    assert odd[:30].all()
    assert (limits[:30] == limits[0]).all()
    assert (np.diff(limits[32:36]) > 0).all()
    # in the long run odd is what is tolerated, and nothing of it was learned
    assert odd[1000:].mean() < 3 * TOLERATED
    assert trails.mean[0] == pytest.approx(0.3, abs=0.01)


def test_a_limit_that_rose_falls_back() -> None:
    trails = Trails(PATIENT)
    usual = follow(trails, healthy(100, 0.3))[-1]
    follow(trails, restless(230))
    raised = follow(trails, healthy(1, 0.3))[0]

    assert raised > 1.2 * usual
    assert follow(trails, healthy(10_000, 0.3))[-1] == pytest.approx(usual, rel=0.1)


def test_a_device_that_was_mended_has_settled_nowhere() -> None:
    trails = Trails(PATIENT)
    usual = follow(trails, healthy(100, 0.3))[-1]
    follow(trails, steady(60, 0.8))
    limits = follow(trails, healthy(PATIENT.memory + 1, 0.3))

    assert limits[:-1] == pytest.approx((1 + MARGIN) * 0.8, rel=STEADY)
    assert limits[-1] == pytest.approx(usual, rel=0.1)


def test_whoever_was_well_has_settled_nowhere() -> None:
    trails = Trails(PATIENT)
    usual = follow(trails, healthy(100, 0.3))[-1]
    follow(trails, steady(60, 0.8))
    trails.forgive(0)

    assert follow(trails, steady(20, 0.8)) == pytest.approx(usual, rel=0.01)


def test_without_patience_no_device_settles() -> None:
    trails = Trails(SPEC)
    usual = follow(trails, healthy(100, 0.3))[-1]

    assert follow(trails, steady(1000, 0.8)) == pytest.approx(usual, rel=0.01)


def test_what_is_odd_lies_a_margin_beyond_what_hardly_varies() -> None:
    trails = Trails(SPEC)
    limits = follow(trails, REACH * np.random.default_rng(1).uniform(0.299, 0.301, 100) ** 2)

    assert limits[-1] == pytest.approx((1 + MARGIN) * 0.3, rel=0.001)


def test_a_device_that_was_mended_is_soon_judged_as_before() -> None:
    trails = Trails(PATIENT)
    usual = follow(trails, healthy(100, 0.3))[-1]
    follow(trails, healthy(3000, 6.0))
    limits = follow(trails, healthy(PATIENT.memory + 1, 0.3))

    assert limits[0] > 2 * usual
    assert limits[-1] == pytest.approx(usual, rel=0.1)


def test_what_lies_far_beyond_training_is_never_taken_as_healthy() -> None:
    trails, broken = Trails(PATIENT), healthy(3000, 6.0)
    follow(trails, healthy(100, 0.3))
    limits = follow(trails, broken)

    assert (np.sqrt(broken / REACH) > limits).all()
    assert limits.max() <= HIGHEST


def test_odd_windows_that_are_tolerated_raise_no_limit() -> None:
    trails = Trails(PATIENT)
    distance = healthy(5000, 0.3)
    distance[:: int(1 / TOLERATED) + 1] = REACH
    limits = follow(trails, distance)

    assert limits[-1] < 0.5


def test_windows_that_the_model_was_trained_on_are_not_learned_from() -> None:
    trails = Trails(SPEC)
    limits = follow(trails, healthy(100), fresh=False)

    assert (limits == 1).all()
    assert trails.remember(np.array([0])) == [None]


def test_another_model_begins_anew() -> None:
    trails = Trails(SPEC)
    follow(trails, healthy(100))

    assert (follow(trails, healthy(10), reach=REACH + 1) == 1).all()


def test_a_window_without_a_model_is_passed_over() -> None:
    trails = Trails(SPEC)

    assert (follow(trails, np.full(50, np.nan)) == 1).all()
    assert trails.remember(np.array([0])) == [None]


def test_no_deviations_judge_by_the_trained_limit_alone() -> None:
    assert (follow(Trails(FollowSpec(deviations=0)), healthy(500)) == 1).all()


@given(cuts=st.lists(st.integers(0, 300), max_size=6), seed=st.integers(0, 99))
def test_batches_and_restarts_change_no_bit(cuts: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    distance, device = (
        healthy(300, 0.5, seed) * random.choice([1, 3], 300, p=[0.6, 0.4]),
        random.integers(3, size=300),
    )
    whole = follow(Trails(PATIENT), distance, device)
    parts, trails = [], Trails(PATIENT)
    for rows in np.split(np.arange(300), sorted(cuts)):
        parts.append(follow(trails, distance[rows], device[rows]))
        known, trails = trails.remember(np.arange(3)), Trails(PATIENT)
        trails.grow(3)
        for number, trail in enumerate(known):
            if trail:
                trails.recall(number, trail)

    assert np.concatenate(parts).tolist() == whole.tolist()


@pytest.mark.parametrize(
    ("name", "value"),
    [("deviations", -1), ("memory", 0), ("warmup", 1), ("least", 0), ("least", 1.1), ("calm", 0), ("patience", -1)],
)
def test_a_rule_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"following.{name}"):
        FollowSpec(**{name: value})  # type: ignore[arg-type]


OVERLAPPING = replace(SPEC, overlap=10)


def test_where_windows_overlap_less_is_odd_the_longer_it_lasts() -> None:
    trails = Trails(OVERLAPPING)
    follow(trails, healthy(100, 0.3))
    limits = follow(trails, np.full(30, REACH * 0.4**2))

    assert (limits < 0.4).all()
    assert (np.diff(limits) < 0).all()


def test_a_window_is_compared_by_the_geometric_mean_of_its_distance_and_the_trailing_one() -> None:
    trails = Trails(OVERLAPPING)
    distance = healthy(40, 0.3)
    limits = follow(trails, distance)
    trailing = np.empty(40)
    trailing[0] = distance[0]
    for row in range(1, 40):
        trailing[row] = trailing[row - 1] + (distance[row] - trailing[row - 1]) / 10

    assert limits[:20] ** 2 * trailing[:20] / REACH == pytest.approx(np.ones(20))
    assert trails.lasting[0] == pytest.approx(trailing[-1] / REACH)


def test_severity_is_the_geometric_mean_with_what_trails_it_in_any_batching() -> None:
    severity, device = np.array([1.0, 2.0, np.nan, 4.0, 3.0]), np.zeros(5, np.int64)
    whole, parts = Trails(OVERLAPPING), Trails(OVERLAPPING)
    whole.grow(1)
    parts.grow(1)
    found = whole.last(device, severity)
    one_by_one = [parts.last(device[:1], severity[row : row + 1])[0] for row in range(5)]

    assert found[:2] == pytest.approx([1.0, (4 * 1.3) ** 0.25])
    assert np.array_equal(found, one_by_one, equal_nan=True)
    assert np.isnan(found[2])


def test_severity_is_a_windows_own_where_windows_do_not_overlap() -> None:
    severity = np.array([1.0, 9.0])

    assert Trails(SPEC).last(np.zeros(2, np.int64), severity) is severity


def test_a_trail_that_an_earlier_version_wrote_is_recalled() -> None:
    trails = Trails(OVERLAPPING)
    trails.grow(1)
    trails.recall(0, (REACH, 40, 0.3, 0.01, 3, 0.0))

    assert trails.remember(np.array([0])) == [(REACH, 40, 0.3, 0.01, 3, 0.0, 0.0, 0.0, 0.0, 0, 0.0)]
