"""What the schedule remembers, in an SQLite file."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scorers.errors import InputError, UnavailableError
from tidewatch.history import History, Outcome, Why

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "schedule")


def begun(history: History, entry: str = "nightly") -> int:
    return history.begin(entry, ["train", "--workers", "2"], Why.SCHEDULED, scheduled=NOON, now=NOON)


def test_a_run_is_told_from_begin_to_end(history: History) -> None:
    number = begun(history)
    (before,) = history.runs()
    history.end(number, Outcome.FAILED, 3, "exit code 3", LATER)
    (after,) = History(history.path.parent).runs()

    assert (before.outcome, before.began, before.ended) == (Outcome.RUNNING, NOON, None)
    assert (after.outcome, after.code, after.ended, after.words) == (
        Outcome.FAILED,
        3,
        LATER,
        ["train", "--workers", "2"],
    )
    assert after.plain()["ended"] == "2026-07-01T13:00:00+00:00"


def test_nothing_is_written_by_looking(history: History) -> None:
    assert history.runs() == []
    assert history.last("nightly") is None
    assert not history.path.exists()


def test_what_was_under_way_is_cut_and_only_of_its_entry(history: History) -> None:
    mine, other = begun(history), begun(history, "other")
    (cut,) = history.cut("nightly", LATER)

    assert (cut.id, cut.outcome, cut.ended) == (mine, Outcome.CUT, LATER)
    assert [run.id for run in history.under_way()] == [other]
    assert history.cut("nightly", LATER) == []


def test_the_same_skip_again_is_counted_and_not_repeated(history: History) -> None:
    number = begun(history)
    for minute in range(3):
        history.tell("nightly", Outcome.SKIPPED, "busy", scheduled=NOON + timedelta(minutes=minute), now=LATER)
    history.tell("nightly", Outcome.MISSED, "late", scheduled=LATER, now=LATER)
    missed, skipped, run = history.runs("nightly")

    assert (missed.times, skipped.times, skipped.scheduled) == (1, 3, NOON + timedelta(minutes=2))
    assert run.id == number
    last = history.last("nightly")
    assert last is not None
    assert last.id == number


def test_only_the_newest_rows_are_kept_and_never_one_under_way_is_lost(history: History) -> None:
    first = begun(history)
    ended = [begun(history) for _ in range(5)]
    for number in ended:
        history.end(number, Outcome.OK, 0, "", LATER)

    assert history.prune("nightly", 2) == ended[:3]
    assert [run.id for run in history.runs()] == [*reversed(ended[3:]), first]


def test_times_are_settled_from_when_an_entry_is_first_seen(history: History) -> None:
    assert history.settled("nightly", "30 2 * * * UTC", NOON) == NOON
    assert history.settled("nightly", "30 2 * * * UTC", LATER) == NOON

    history.settle("nightly", NOON + timedelta(minutes=5))
    history.settle("nightly", NOON)

    assert history.settled("nightly", "30 2 * * * UTC", LATER) == NOON + timedelta(minutes=5)


def test_what_begins_is_settled_with_it_but_not_by_hand(history: History) -> None:
    history.settled("nightly", "30 2 * * * UTC", NOON)
    history.begin("nightly", [], Why.NOW, scheduled=LATER, now=LATER)
    by_hand = history.settled("nightly", "30 2 * * * UTC", LATER)
    history.begin("nightly", [], Why.MISSED, scheduled=LATER, now=LATER)

    assert (by_hand, history.settled("nightly", "30 2 * * * UTC", LATER)) == (NOON, LATER)


def test_an_entry_that_is_timed_otherwise_begins_anew(history: History) -> None:
    history.settled("nightly", "30 2 * * * UTC", NOON)

    assert history.settled("nightly", "30 3 * * * UTC", LATER) == LATER


def test_an_entry_that_was_away_begins_anew(history: History) -> None:
    history.settled("nightly", "30 2 * * * UTC", NOON)
    history.settled("other", "30 2 * * * UTC", NOON)
    history.forget({"other"})

    assert history.settled("nightly", "30 2 * * * UTC", LATER) == LATER
    assert history.settled("other", "30 2 * * * UTC", LATER) == NOON


def test_a_newer_format_and_a_foreign_file_are_refused(history: History) -> None:
    begun(history)
    base = sqlite3.connect(history.path)
    base.execute("PRAGMA user_version = 99")
    base.close()
    with pytest.raises(InputError, match="format 99, newer than 1"):
        history.runs()

    history.path.write_bytes(b"no database at all, by no means" * 100)
    with pytest.raises(InputError, match="is no history of runs"):
        history.runs()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="check its disk"):
        begun(History(tmp_path / "file" / "schedule"))
