"""What an hour is called where the fleet is: date, week, weekday, holidays. Hours in, a small table out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from itertools import groupby
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import holidays
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scorers.errors import ConfigError
from scorers.forecast.schema import CALENDAR, HOUR_MS

DAY_MS = 24 * HOUR_MS
BUSINESS = range(8, 18)
"""Hours of a business day, whatever the weekday."""
MORNING = range(6, 9)
SATURDAY = 6
"""Of ISO weekdays, Monday 1."""

TABLE = pa.schema(
    [("hour", pa.int64()), ("date", pa.int32()), ("dawn", pa.int64())]
    + [(name, pa.int32()) for name in CALENDAR]
    + [("trend", pa.float64())]
)
"""One row an hour: ``date`` is the day in the fleet's timezone, counted from 1970-01-01; ``dawn`` the epoch ms at which
that day begins; ``trend`` days since the fleet's start."""


@dataclass(frozen=True)
class FeatureSpec:
    """Where and since when a fleet is: what features depend on beside its hours.

    ``start`` is the epoch ms that ``trend`` counts days from; ``country`` an ISO 3166 code whose public holidays count,
    with a subdivision as in ``US-CA``, or empty for none.
    """

    timezone: str
    start: int
    country: str = "US"

    def __post_init__(self) -> None:
        self.zone  # noqa: B018 - see that it is one
        self.holidays  # noqa: B018

    @cached_property
    def zone(self) -> ZoneInfo:
        """The timezone.

        Raises:
            ConfigError: there is none of that name.
        """
        try:
            return ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(
                f"load.timezone {self.timezone!r} is unknown; use one such as America/New_York."
            ) from error

    @cached_property
    def holidays(self) -> "holidays.HolidayBase":
        """The public holidays.

        Raises:
            ConfigError: the country or subdivision is unknown.
        """
        country, _, subdivision = self.country.partition("-")
        if not country:
            return holidays.HolidayBase()
        try:
            return holidays.country_holidays(country, subdiv=subdivision or None)
        except NotImplementedError as error:
            raise ConfigError(f"load.country {self.country!r} is unknown; use one such as US or US-CA.") from error


def calendar(hours: Iterable[int] | NDArray[np.int64], spec: FeatureSpec) -> pa.Table:
    """The calendar of these hours (epoch ms), each once and in order; see ``TABLE``."""
    distinct = np.unique(np.fromiter(hours, np.int64) if not isinstance(hours, np.ndarray) else hours)
    local = [datetime.fromtimestamp(hour / 1000, UTC).astimezone(spec.zone) for hour in distinct.tolist()]
    rows = [row for day, times in groupby(local, datetime.date) for row in _day(day, times, spec)]
    columns = zip(*rows, strict=True) if rows else ([] for _ in TABLE.names[1:-1])
    trend = (distinct - spec.start) / DAY_MS
    return pa.table([distinct, *map(list, columns), trend], schema=TABLE)


def _day(day: date, times: Iterable[datetime], spec: FeatureSpec) -> Iterator[tuple[int, ...]]:
    """Rows of the hours of one day, without their first and last column."""
    ordinal = day.toordinal() - date(1970, 1, 1).toordinal()
    dawn = round(datetime(day.year, day.month, day.day, tzinfo=spec.zone).timestamp() * 1000)
    week, weekday = day.isocalendar()[1:]
    known = (day.year, day.month, week, day.day)
    holiday = int(day in spec.holidays)
    for time in times:
        hour = time.hour
        yield (ordinal, dawn, *known, hour, weekday - 1, holiday, int(hour in BUSINESS), int(hour in MORNING))
