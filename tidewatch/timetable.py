"""When an entry of the schedule is due: pure functions of time, which is passed in.

Cron expressions are read by cronsim, which follows Debian's cron: a time that the clocks skip runs when they have
moved on, a time that they show twice runs once, and what runs each hour or more often follows real time.
Intervals count from the epoch, so that a restart moves nothing.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from tidewatch.entries import Entry, Missed
from tidewatch.history import Outcome, Run, Why

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATE = timedelta(seconds=10)
"""A run noticed later than this was missed, for nothing was there to make it."""


def following(entry: Entry, moment: datetime) -> datetime:
    """The first time it is due after ``moment``, in UTC.

    >>> from datetime import datetime, UTC
    >>> entry = Entry(command="train", cron="30 2 * * *", timezone="Europe/Berlin")
    >>> following(entry, datetime(2026, 7, 1, tzinfo=UTC)).isoformat()
    '2026-07-01T00:30:00+00:00'
    """
    if entry.every_s is not None:
        return latest(entry, moment) + timedelta(seconds=entry.every_s)
    return _cron(entry, moment)


def latest(entry: Entry, moment: datetime) -> datetime:
    """The last time it was due at or before ``moment``, in UTC.

    >>> from datetime import datetime, UTC
    >>> latest(Entry(command="train", every_s=3600), datetime(2026, 7, 1, 12, 59, tzinfo=UTC)).isoformat()
    '2026-07-01T12:00:00+00:00'
    """
    if entry.every_s is not None:
        every = timedelta(seconds=entry.every_s)
        return EPOCH + (moment - EPOCH) // every * every
    return _last(entry, moment)


def due(entry: Entry, settled: datetime, now: datetime) -> datetime:
    """The time of the run to make next, where all up to ``settled`` are: the last one missed, or the next to come."""
    last = latest(entry, now)
    return last if last > settled else following(entry, now)


def refused(entry: Entry, scheduled: datetime, noticed: datetime) -> str | None:
    """Why a run whose time was noticed only now is not made up for; None if it is made."""
    late = noticed - scheduled
    if late <= LATE:
        return None
    if entry.missed is Missed.SKIP:
        return f"noticed {_span(late)} late, and the entry says missed = skip"
    if late > timedelta(seconds=entry.grace_s):
        return f"noticed {_span(late)} late, more than grace_s ({entry.grace_s:g})"
    return None


def again(entry: Entry, run: Run, now: datetime) -> bool:
    """Whether the entry's last run, cut or stopped, is made again: by the policy, if no later one makes up for it.

    A run that was cut twice is not: it may be what kills its scheduler.
    """
    unfinished = run.outcome is Outcome.STOPPED or (run.outcome is Outcome.CUT and run.why is not Why.AGAIN)
    wanted = run.why is not Why.NOW and entry.missed is Missed.ONCE and not refused(entry, run.scheduled, now)
    return unfinished and wanted and latest(entry, now) <= run.scheduled


def _cron(entry: Entry, moment: datetime, *, reverse: bool = False) -> datetime:
    """The nearest time on one side of ``moment``; where an hour comes twice cronsim may give one on the other."""
    times = CronSim(entry.cron or "", moment.astimezone(ZoneInfo(entry.timezone)), reverse=reverse)
    while True:
        found = next(times).astimezone(UTC)
        if (found < moment) if reverse else (found > moment):
            return found


def _last(entry: Entry, moment: datetime) -> datetime:
    """Back past every doubt about clocks, then forward: forward alone says what runs."""
    found = _cron(entry, moment - timedelta(hours=3), reverse=True)
    while (later := _cron(entry, found)) <= moment:
        found = later
    return found


def _span(late: timedelta) -> str:
    return str(timedelta(seconds=round(late.total_seconds())))
