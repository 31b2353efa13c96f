"""Lag from what Kafka and the checkpoints tell: unread, held, and what is nobody's to read."""

import pytest

from stream.state import Progress
from tidewatch.lag import Group, Part, exceeding, part, reading
from tidewatch.tail import Span

PLACE = ("sensor.readings", 3)
SPAN = Span(100, 1_000)
STAMP = 1_700_000_000_000


def checkpoint(next_offset: int, floor: int) -> Progress:
    return Progress(next_offset, floor)


def group(unread: int, *, role: str = "worker", state: str = "stable", committed: int | None = 7) -> Group:
    parts = (Part(*PLACE, 1_000, committed, unread, None, STAMP), Part(*PLACE, 1_000, committed, 0, None, None))
    return Group("g", role, state, 1, parts)


def test_the_worker_has_read_up_to_its_checkpoint_and_holds_what_open_windows_need() -> None:
    # 100          700         900        1000
    # first        floor       next       end
    #              └── held ───┘└ unread ─┘
    found = part(PLACE, SPAN, 700, checkpoint(900, 700), STAMP)

    assert (found.unread, found.held, found.committed, found.oldest) == (100, 200, 700, STAMP)


def test_a_sink_has_read_what_it_has_committed_and_holds_nothing() -> None:
    found = part(PLACE, SPAN, 700, None, STAMP)

    assert (found.unread, found.held) == (300, None)


def test_where_no_record_is_left_the_marks_of_transactions_are_no_lag() -> None:
    found = part(PLACE, SPAN, 700, checkpoint(999, 999), None)

    assert (found.unread, found.held, found.oldest) == (0, 0, None)


@pytest.mark.parametrize(
    ("known", "told", "begins"),
    [(None, None, 100), (40, None, 100), (500, None, 500), (500, checkpoint(800, 500), 800)],
)
def test_reading_goes_on_at_the_checkpoint_the_commit_or_the_first_record(
    known: int | None, told: Progress | None, begins: int
) -> None:
    assert reading(SPAN, known, told) == begins


def test_a_record_that_came_after_the_end_was_asked_for_is_no_lag_yet() -> None:
    found = part(PLACE, SPAN, 1_000, checkpoint(1_001, 1_000), STAMP)

    assert (found.unread, found.oldest) == (0, None)


def test_more_unread_than_the_limit_is_told_of_every_group_but_a_sink_nobody_runs() -> None:
    late = group(11)
    fine = group(10)
    absent = group(11, role="redis", state="missing", committed=None)
    worker = group(11, state="missing", committed=None)

    assert exceeding([late, fine, absent, worker], 10) == [late, worker]


def test_a_group_sums_its_partitions() -> None:
    whole = Group("g", "worker", "stable", 1, (
        Part(*PLACE, 9, 1, 2, 3, STAMP + 5), Part(*PLACE, 9, 1, 4, 5, STAMP), Part(*PLACE, 9, 9, 0, 0, None),
    ))  # fmt: skip

    assert (whole.unread, whole.held, whole.oldest) == (6, 8, STAMP)
    assert group(3).held is None
