"""Forecasts of the next hours of servers: hours known and a forecaster in, classes and probabilities out."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scorers.errors import ConfigError
from scorers.forecast.features import features
from scorers.forecast.labels import CLASSES
from scorers.forecast.metrics import named
from scorers.forecast.model import Forecaster
from scorers.forecast.schema import DAYS, HORIZON, HOUR_MS, LAGS

FORECASTS = pa.schema(
    [
        ("server", pa.string()),
        ("issued", pa.int64()),
        ("hour", pa.int64()),
        ("basis", pa.string()),
        ("load", pa.string()),
        ("low", pa.float64()),
        ("medium", pa.float64()),
        ("high", pa.float64()),
        ("model_version", pa.string()),
    ]
)
"""One row a server and hour: ``issued`` is the end of the last hour known and ``hour`` the start of that forecast, both
epoch ms; ``load`` the likeliest class, beside the probabilities of all."""
REACH_MS = (max(*LAGS, 24 * (max(DAYS) + 2)) + 1) * HOUR_MS
"""Hours older than this before the first one to forecast are not looked at."""
OWN, FLEET = "own", "fleet"


def forecast(
    forecaster: Forecaster, hours: pa.Table, servers: Sequence[str], issued: int, count: int = HORIZON
) -> pa.Table:
    """What the next hours of servers will be like.

    Args:
        forecaster: the model.
        hours: ``HOURS``; those that begin at ``issued`` or later are not looked at.
        servers: whom to forecast, each once. One without any history of its own is forecast from the fleet's average.
        issued: epoch ms, a whole hour: when the first hour to forecast begins.
        count: how many hours, at most 48.

    Returns:
        ``FORECASTS``, by server and hour. A server's ``basis`` is ``fleet`` if any of its hours had no history.

    Raises:
        ConfigError: so many hours cannot be forecast, or ``issued`` is not a whole hour.
    """
    if not 1 <= count <= HORIZON or issued % HOUR_MS:
        raise ConfigError(f"{count} hours from {issued} cannot be forecast; ask for 1 to {HORIZON} from a whole hour.")
    seen = pc.and_(pc.less(hours["hour"], issued), pc.greater_equal(hours["hour"], issued - REACH_MS))
    mine = pc.is_in(hours["server"], value_set=pa.array(servers, pa.string()))
    rows = features(hours.filter(pc.and_(seen, mine)), targets(servers, issued, count), forecaster.spec)
    filled, strangers = forecaster.fill(rows)
    probabilities = forecaster.predict(filled)
    whole = strangers.reshape(-1, count).any(axis=1).repeat(count)
    columns: list[Any] = [
        rows["server"],
        np.full(len(rows), issued),
        rows["hour"],
        np.where(whole, FLEET, OWN),
        np.array(CLASSES)[named(probabilities)],
        *probabilities.T,
        np.full(len(rows), forecaster.version),
    ]
    return pa.table(columns, schema=FORECASTS)


def targets(servers: Sequence[str], since: int, count: int) -> pa.Table:
    """``server`` and ``hour`` of so many hours of each server from ``since`` (epoch ms)."""
    clock = since + np.arange(count, dtype=np.int64) * HOUR_MS
    names = pa.array(servers, pa.string()).take(pa.array(np.repeat(np.arange(len(servers)), count)))
    return pa.table({"server": names, "hour": np.tile(clock, len(servers))})


def messages(forecasts: pa.Table) -> Iterator[dict[str, Any]]:
    """Forecasts as they go out on ``server.forecasts``, one of each server."""
    rows = forecasts.to_pylist()
    count = len({row["hour"] for row in rows}) or 1
    for at in range(0, len(rows), count):
        own = rows[at : at + count]
        plain = {name: own[0][name] for name in ("server", "issued", "basis", "model_version")}
        hours = [
            {"hour": row["hour"], "load": row["load"], "probabilities": [row[name] for name in CLASSES]} for row in own
        ]
        yield {**plain, "hours": hours}
