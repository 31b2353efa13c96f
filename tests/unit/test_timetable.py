"""When entries of the schedule are due: no clock is read, so nothing waits."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewatch.entries import Entry, Missed
from tidewatch.history import Outcome, Run, Why
from tidewatch.timetable import EPOCH, LATE, again, due, following, latest, refused

BERLIN = ZoneInfo("Europe/Berlin")
CRONS = ["30 2 * * *", "0 */2 * * *", "*/15 * * * *", "0 9 * * MON-FRI", "15 1,2,3 * * *", "0 0 1 * *", "5 2 29 2 *"]
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)

DECADE_S = 315_360_000

moments = st.integers(0, DECADE_S * 1_000_000).map(lambda us: NOON - timedelta(microseconds=us))
entries = st.builds(Entry, command=st.just("train"), cron=st.sampled_from(CRONS), timezone=st.sampled_from(ZONES)) | (
    st.builds(Entry, command=st.just("train"), every_s=st.floats(1, 1e6).map(lambda s: round(s, 1)))
)


def at(year: int, month: int, day: int, hour: int = 0) -> datetime:
    return datetime(year, month, day, hour, tzinfo=BERLIN)


def nightly(**more: object) -> Entry:
    return Entry.model_validate({"command": "train", "cron": "30 2 * * *", **more})


def ran(outcome: Outcome, why: Why = Why.SCHEDULED, scheduled: datetime = NOON) -> Run:
    return Run(1, "nightly", ["train"], why, outcome, scheduled, scheduled, None, None, "", 1)


@given(entries, moments)
def test_each_moment_lies_between_two_times_and_nothing_is_due_between_them(entry: Entry, moment: datetime) -> None:
    before, after = latest(entry, moment), following(entry, moment)

    assert before <= moment < after
    assert following(entry, before) == after
    assert latest(entry, after) == after
    assert latest(entry, after - timedelta(microseconds=1)) == before


@given(entries, moments, moments)
def test_one_run_is_due_for_all_that_were_missed_and_none_before_its_time(
    entry: Entry, one: datetime, other: datetime
) -> None:
    settled, now = sorted([one, other])
    time = due(entry, settled, now)

    assert time > settled
    assert time == (latest(entry, now) if latest(entry, now) > settled else following(entry, now))


def test_intervals_count_from_1970_whatever_restarts() -> None:
    entry = Entry(command="train", every_s=3600)

    assert following(entry, NOON) == NOON + timedelta(hours=1)
    assert following(entry, NOON + timedelta(minutes=59)) == NOON + timedelta(hours=1)
    assert (latest(entry, NOON) - EPOCH) % timedelta(hours=1) == timedelta(0)


@pytest.mark.parametrize(
    ("cron", "after", "local"),
    [
        ("30 2 * * *", at(2026, 3, 28, 12), "2026-03-29T03:00:00+02:00"),  # 02:30 is skipped that night
        ("30 2 * * *", at(2026, 10, 24, 12), "2026-10-25T02:30:00+02:00"),  # 02:30 comes twice, the first counts
        ("0 9 * * 1", at(2026, 7, 1), "2026-07-06T09:00:00+02:00"),  # 1 is Monday, 0 and 7 Sunday
        ("0 9 * * 7", at(2026, 7, 1), "2026-07-05T09:00:00+02:00"),
        ("0 0 13 * FRI", at(2026, 7, 1), "2026-07-03T00:00:00+02:00"),  # either of the two days
    ],
)
def test_cron_is_read_as_debian_reads_it(cron: str, after: datetime, local: str) -> None:
    entry = nightly(cron=cron, timezone="Europe/Berlin")

    assert following(entry, after).astimezone(BERLIN).isoformat() == local


def test_a_time_that_clocks_show_twice_runs_once() -> None:
    entry = nightly(timezone="Europe/Berlin")
    first = following(entry, datetime(2026, 10, 24, 12, tzinfo=UTC))

    assert following(entry, first) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
    assert following(entry, first + timedelta(minutes=50)) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_what_runs_each_hour_runs_each_hour_when_clocks_change() -> None:
    entry = nightly(cron="0 * * * *", timezone="Europe/Berlin")
    times = [datetime(2026, 10, 24, 23, tzinfo=UTC)]
    while len(times) < 5:
        times.append(following(entry, times[-1]))

    assert {after - before for before, after in pairwise(times)} == {timedelta(hours=1)}


@pytest.mark.parametrize(
    ("missed", "late", "made"),
    [
        (Missed.ONCE, timedelta(0), True),
        (Missed.ONCE, timedelta(hours=1), True),
        (Missed.ONCE, timedelta(hours=2), False),
        (Missed.SKIP, LATE, True),
        (Missed.SKIP, LATE + timedelta(seconds=1), False),
    ],
)
def test_a_late_run_is_made_by_the_policy_and_within_its_grace(missed: Missed, late: timedelta, made: bool) -> None:
    assert (refused(nightly(missed=missed, grace_s=5400), NOON, NOON + late) is None) is made


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (ran(Outcome.CUT), True),
        (ran(Outcome.CUT, Why.MISSED), True),
        (ran(Outcome.CUT, Why.AGAIN), False),
        (ran(Outcome.CUT, Why.NOW), False),
        (ran(Outcome.STOPPED), True),
        (ran(Outcome.STOPPED, Why.AGAIN), True),
        (ran(Outcome.OK), False),
        (ran(Outcome.FAILED), False),
        (ran(Outcome.TIMEOUT), False),
    ],
)
def test_what_was_cut_or_stopped_is_made_again_once(run: Run, expected: bool) -> None:
    assert again(nightly(cron="0 12 * * *"), run, NOON + timedelta(hours=1)) is expected


def test_what_was_cut_is_not_made_again_where_a_later_run_makes_up_for_it() -> None:
    entry = nightly(cron="0 12 * * *")

    assert not again(entry, ran(Outcome.CUT), NOON + timedelta(days=1))
    assert not again(nightly(cron="0 12 * * *", missed="skip"), ran(Outcome.CUT), NOON + timedelta(hours=1))
    assert not again(nightly(cron="0 12 * * *", grace_s=60), ran(Outcome.CUT), NOON + timedelta(hours=1))
