"""Features of hours to forecast: by time, per server, and nothing younger than 48 hours."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import holidays
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.errors import ConfigError, InputError
from scorers.forecast.calendar import calendar
from scorers.forecast.encode import INPUTS
from scorers.forecast.features import FeatureSpec, features
from scorers.forecast.schema import CALENDAR, FEATURES, HORIZON, HOUR_MS, HOURS, LAGS, LOADS, UNIT

START = 1_709_251_200_000  # 2024-03-01, nine days before clocks go forward in New York
NEW_YORK = FeatureSpec("America/New_York", START)
DAY = 24 * HOUR_MS
Known = dict[tuple[str, int], list[int]]


def table(known: Known) -> pa.Table:
    """Hours of servers, their eight peaks in millionths."""
    rows = [(server, hour, 1, *peaks) for (server, hour), peaks in known.items()]
    return pa.table([list(column) for column in zip(*rows, strict=True)] or [[]] * len(HOURS), schema=HOURS)


def every_hour(hours: int, server: str = "a", start: int = START) -> Known:
    """One server whose peak total is the number of the hour."""
    return {(server, start + n * HOUR_MS): [n * UNIT] * len(LOADS) for n in range(hours)}


def row(known: Known, server: str, hour: int, spec: FeatureSpec = NEW_YORK) -> dict[str, Any]:
    """The features of one hour."""
    found: dict[str, Any] = features(table(known), targets([(server, hour)]), spec).to_pylist()[0]
    return found


def targets(pairs: list[tuple[str, int]]) -> pa.Table:
    names = pa.schema([HOURS.field("server"), HOURS.field("hour")])
    return pa.table([[server for server, _ in pairs], [hour for _, hour in pairs]], schema=names)


def oracle(known: Known, server: str, hour: int, spec: FeatureSpec) -> dict[str, Any]:
    """The same, slowly."""
    zone = ZoneInfo(spec.timezone)
    local = datetime.fromtimestamp(hour / 1000, UTC).astimezone(zone)
    found: dict[str, Any] = {"server": server, "hour": hour}
    found |= {"year": local.year, "month": local.month, "week": local.isocalendar().week, "day": local.day}
    found |= {"hour_of_day": local.hour, "weekday": local.weekday()}
    found |= {"holiday": int(local.date() in holidays.country_holidays(spec.country))}
    found |= {"business": int(8 <= local.hour < 18), "morning": int(6 <= local.hour < 9)}
    found["trend"] = (hour - spec.start) / DAY
    for place, name in enumerate(LOADS):
        means = []
        for back in range(3, 10):
            day = local.date() - timedelta(days=back)
            peaks = [
                peaks[place]
                for (whose, when), peaks in known.items()
                if whose == server and datetime.fromtimestamp(when / 1000, UTC).astimezone(zone).date() == day
            ]
            means += [sum(peaks) // len(peaks)] if peaks else []
        found[f"day_{name}"] = sum(means) // len(means) / UNIT if means else None
    for lag in LAGS:
        then = known.get((server, hour - lag * HOUR_MS))
        found[f"lag_{lag}"] = then and then[0] / UNIT
    now = known.get((server, hour))
    return found | {"load": now and now[0] / UNIT}


some_hours = st.dictionaries(
    st.tuples(st.sampled_from("ab"), st.integers(-24 * 14, 24 * 14).map(lambda n: START + n * HOUR_MS)),
    st.lists(st.integers(0, 10**15), min_size=len(LOADS), max_size=len(LOADS)),
    max_size=60,
)
some_targets = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 24 * 16).map(lambda n: START + n * HOUR_MS)),
    unique=True,
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(some_hours, some_targets, st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata"]))
def test_features_are_those_of_a_slow_oracle(known: Known, wanted: list[tuple[str, int]], zone: str) -> None:
    spec = FeatureSpec(zone, START)
    found = features(table(known), targets(wanted), spec)

    assert found.schema == FEATURES
    assert found.to_pylist() == [oracle(known, *pair, spec) for pair in sorted(wanted)]


@settings(max_examples=25, deadline=None)
@given(some_hours, some_hours, st.sampled_from(["UTC", "America/New_York", "Pacific/Apia"]), st.integers(0, 24 * 16))
def test_nothing_younger_than_the_horizon_is_used(known: Known, others: Known, zone: str, at: int) -> None:
    hour = START + at * HOUR_MS
    young = {pair: peaks for pair, peaks in others.items() if pair[1] > hour - HORIZON * HOUR_MS}
    old = {pair: peaks for pair, peaks in known.items() if pair[1] <= hour - HORIZON * HOUR_MS}
    spec = FeatureSpec(zone, START)
    before, after = row(old, "a", hour, spec), row(old | young, "a", hour, spec)

    assert before | {"load": None} == after | {"load": None}


def test_a_day_that_a_timezone_leaves_out_lets_nothing_young_in() -> None:
    # Samoa had no 30 December 2011: the day three days before the 31st ended 24 hours before it
    spec = FeatureSpec("Pacific/Apia", START)
    hour = round(datetime(2011, 12, 31, 5, tzinfo=ZoneInfo("Pacific/Apia")).timestamp() * 1000)
    known = every_hour(29, start=hour - 47 * HOUR_MS)

    assert row(known, "a", hour, spec)["day_total"] is None


def test_lags_are_by_time_and_not_by_row() -> None:
    known = every_hour(800)
    target = START + 799 * HOUR_MS
    for gone in (49, 60, 61, 200):
        del known["a", target - gone * HOUR_MS]
    found = row(known, "a", target)

    assert {lag: found[f"lag_{lag}"] for lag in LAGS} == {
        lag: None if lag in {49, 60} else float(799 - lag) for lag in LAGS
    }


def test_a_server_never_sees_the_hours_of_another() -> None:
    known = every_hour(800, "a")
    found = row(known, "b", START + 799 * HOUR_MS)

    assert [found[f"lag_{lag}"] for lag in LAGS] == [None] * len(LAGS)
    assert [found[f"day_{name}"] for name in LOADS] == [None] * len(LOADS)


def test_each_feature_is_there_once() -> None:
    names = FEATURES.names

    assert len(names) == len(set(names))
    assert sum(name.startswith(("day_", "lag_")) for name in names) == 20
    assert sorted(INPUTS) == sorted(set(names) - {"hour", "load"})


def test_the_day_of_the_month_is_no_hour() -> None:
    # 02:30 UTC on 5 March is still the evening of the 4th in New York
    hour = START + 4 * DAY + 2 * HOUR_MS
    found = row({}, "a", hour)

    assert (found["day"], found["hour_of_day"], found["weekday"]) == (4, 21, 0)
    assert row({}, "a", hour, FeatureSpec("UTC", START))["day"] == 5


def test_the_trend_counts_days_and_does_not_stand_still() -> None:
    hours = [START + n * DAY // 2 for n in range(4)]
    found = features(table({}), targets([("a", hour) for hour in hours]), NEW_YORK)

    assert found["trend"].to_pylist() == [0.0, 0.5, 1.0, 1.5]


def test_a_day_with_hours_missing_is_the_mean_of_the_others() -> None:
    spec = FeatureSpec("UTC", START)
    known = every_hour(24)
    for hour in range(12):
        del known["a", START + hour * HOUR_MS]
    one_day = row(known, "a", START + 3 * DAY, spec)

    assert one_day["day_total"] == sum(range(12, 24)) // 12 + 0.5
    assert row(known, "a", START + 2 * DAY, spec)["day_total"] is None
    assert row(known, "a", START + 9 * DAY, spec)["day_total"] == one_day["day_total"]
    assert row(known, "a", START + 10 * DAY, spec)["day_total"] is None


def test_holidays_are_those_of_the_country_and_the_days_they_are_observed_on() -> None:
    def holiday(day: str, country: str = "US") -> int:
        hour = round(datetime.fromisoformat(f"{day}T12:00Z").timestamp() * 1000)
        found: int = calendar([hour], FeatureSpec("UTC", START, country))["holiday"][0].as_py()
        return found

    # Independence Day of 2026 is a Saturday, and observed on the Friday
    assert [holiday(day) for day in ("2026-07-03", "2026-07-04", "2026-07-06", "2024-11-28")] == [1, 1, 0, 1]
    assert [holiday("2024-10-03", country) for country in ("US", "DE", "")] == [0, 1, 0]


def test_the_calendar_has_each_hour_once_and_in_order() -> None:
    hours = np.array([START + HOUR_MS, START, START + HOUR_MS])
    found = calendar(hours, NEW_YORK)

    assert found["hour"].to_pylist() == [START, START + HOUR_MS]
    assert set(CALENDAR) < set(found.column_names)


def test_an_hour_given_twice_is_told_of() -> None:
    known = every_hour(100)
    twice = pa.concat_tables([table(known), table(known)])

    with pytest.raises(InputError, match="each server's hour once"):
        features(twice, targets([("a", START + 99 * HOUR_MS)]), NEW_YORK)


@pytest.mark.parametrize(("zone", "country"), [("Mars/Olympus", "US"), ("UTC", "XX"), ("UTC", "US-XX"), ("", "US")])
def test_an_unknown_place_is_named(zone: str, country: str) -> None:
    with pytest.raises(ConfigError, match=country if zone == "UTC" else zone or "timezone"):
        FeatureSpec(zone, START, country)
