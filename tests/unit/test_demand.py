"""How busy simulated servers are."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.batch import Ints
from producers.demand import DAY_MS, HOUR_MS, DemandSpec
from scorers.errors import ConfigError

START = 1_717_200_000_000  # 2024-06-01T00:00Z, a Saturday
DAYS = START + DAY_MS * np.arange(60)


def hours(days: int) -> Ints:
    return START + HOUR_MS * np.arange(24 * days)


@given(st.lists(st.integers(0, 24 * 60 * 12), min_size=1, max_size=20))
@settings(max_examples=25, deadline=None)
def test_a_moment_is_the_same_whatever_else_is_asked(cells: list[int]) -> None:
    demand = DemandSpec(9, seed=3, start=START).build()
    at = START + 300_000 * np.array(cells)

    together = demand.activity(at)

    assert np.array_equal(together, np.concatenate([demand.activity(at[n : n + 1]) for n in range(len(at))]))


def test_days_off_are_quieter_where_weekends_are() -> None:
    demand = DemandSpec(400, start=START).build()
    by_day = np.array([demand.activity(day + HOUR_MS * np.arange(24)).mean(axis=0) for day in DAYS[:42]])
    api = by_day[:, demand.group == 2].mean(axis=1)
    thursdays, fourth_of_july = api[[26, 40]], api[33]

    assert fourth_of_july < 0.6 * thursdays.min()
    assert api[[0, 1]].max() < 0.8 * api[[2, 3]].min()


def test_a_day_begins_where_the_servers_are() -> None:
    at = hours(1)
    utc, tokyo = (DemandSpec(200, start=START, timezone=zone).build() for zone in ("UTC", "Asia/Tokyo"))
    web = utc.group == 0
    peaks = [int(demand.activity(at)[:, web].mean(axis=1).argmax()) for demand in (utc, tokyo)]

    assert abs((peaks[0] - peaks[1]) % 24 - 9) <= 2


def test_the_past_says_something_of_48_hours_later_but_not_all() -> None:
    level = np.log(DemandSpec(200, start=START).build().activity(hours(42)) + 0.02)
    own = level - level.mean(axis=0)

    two_days = np.corrcoef(own[48:].ravel(), own[:-48].ravel())[0, 1]
    a_week = np.corrcoef(own[168:].ravel(), own[:-168].ravel())[0, 1]

    assert 0.4 < two_days < 0.95
    assert 0.4 < a_week < 0.95


def test_servers_go_down_come_late_and_leave() -> None:
    activity = DemandSpec(400, start=START).build().activity(hours(60))
    away = activity == 0
    spells = np.diff(away.astype(int), axis=0) == 1

    assert 4 <= away[0].sum() <= 40, "they come later"
    assert 1 <= away[-1].sum() <= 30, "they have left"
    assert spells.sum() > 300, "maintenance and outages"


def test_groups_change_their_level_together() -> None:
    demand = DemandSpec(400, start=START).build()
    by_day = np.log([demand.activity(day + HOUR_MS * np.arange(24)).mean(axis=0) + 0.02 for day in DAYS])
    weekly = by_day[7:] - by_day[:-7]
    mates = np.corrcoef(weekly[:, demand.group == 1].T)

    assert np.median(mates[np.triu_indices_from(mates, 1)]) > 0.15


@pytest.mark.parametrize(
    "wrong", [{"servers": 0}, {"servers": 1, "timezone": "Mars/Olympus"}, {"servers": 1, "country": "Mars"}]
)
def test_a_demand_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"give|use one"):
        DemandSpec(**wrong)
