"""What passes between the parts of the forecaster: hours of a server, features of an hour to forecast.

Loads are whole millionths (``UNIT``) until they become features: whole numbers add up to the same sum in any order, so
that DuckDB, Spark and the live stream give the same bits.
"""

import pyarrow as pa

HOUR_MS = 3_600_000
BUCKET_MS = 300_000
"""Sessions are summed by the five minutes in which they start."""
UNIT = 1_000_000
"""Millionths to one."""
HORIZON = 48
"""Hours ahead that are forecast; nothing younger than this before a forecast hour may be used."""

LOADS = ("total", "mbytes", "sub_1", "sub_2", "sub_3", "sub_4", "sub_5", "secure")
"""What is summed of a session: ``TotalLoad``, ``MbytesTransferred``, the five sub-services, ``SecureBytes_Load``."""
LAGS = (48, 49, 50, 51, 52, 55, 60, 67, 72, 96, 168, 730)
"""Hours before a forecast hour whose peak load is a feature."""
DAYS = tuple(range(3, 10))
"""Days before a forecast hour's day whose means are averaged: a window of seven, two days behind."""

HOURS = pa.schema(
    [("server", pa.string()), ("hour", pa.int64()), ("sessions", pa.int64())]
    + [(f"peak_{name}", pa.int64()) for name in LOADS]
)
"""One row a server and hour: ``hour`` is the epoch ms (UTC) of its start; the five minutes of the hour with the largest
total (the first of them, where equal), their sessions, and their sums in millionths."""

CALENDAR = ("year", "month", "week", "day", "hour_of_day", "weekday", "holiday", "business", "morning")
"""Whole numbers about the hour in the fleet's timezone: ISO week, Monday 0; the last three are 0 or 1."""

FEATURES = pa.schema(
    [("server", pa.string()), ("hour", pa.int64())]
    + [(name, pa.int32()) for name in CALENDAR]
    + [("trend", pa.float64())]
    + [(f"day_{name}", pa.float64()) for name in LOADS]
    + [(f"lag_{hours}", pa.float64()) for hours in LAGS]
    + [("load", pa.float64())]
)
"""One row a server and hour to forecast. ``trend`` is days since the fleet's start; ``day_…`` the mean over ``DAYS`` of
the days' mean hourly peaks; ``lag_…`` the peak total so many hours before; null where not known, never another hour's.
``load`` is what the hour's peak total came to, null while nobody knows."""
