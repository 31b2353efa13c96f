"""Sessions of a few servers, and what hours and features come of them when they are added up one by one."""

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from scorers.forecast.features import FeatureSpec
from scorers.forecast.schema import BUCKET_MS, HORIZON, HOUR_MS, HOURS
from scorers.statistics import Floats
from stream.forecast.sessions import NAMES
from stream.records import Records

START = 1_700_002_800_000
"""2023-11-14 23:00 UTC."""
ALIVE_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Session:
    """What counts of one."""

    server: str
    ts: int
    loads: tuple[float, ...]
    """In the order of ``LOADS``."""

    @property
    def value(self) -> bytes:
        """The record of ``server.sessions``."""
        loads = dict(zip(NAMES, self.loads, strict=True))
        return json.dumps(
            {"ServerIP": self.server, "SessionStart": self.ts, "ConcurrentConnectionCounts": 1, **loads}
        ).encode()


def sessions(servers: int, hours: int, *, seed: int = 1, an_hour: float = 3.0) -> list[Session]:
    """Sessions in the order of their starts, nearly: some come minutes late. Server 0 is away for two days, and
    the last one new in the last third."""
    chance, found = random.Random(seed), []
    for server in range(servers):
        size = chance.choice([3.0, 30.0, 200.0])
        for hour in range(hours):
            away = server == 0 and 30 <= hour < 80
            if away or (server == servers - 1 and hour < hours * 2 // 3):
                continue
            for _ in range(chance.randrange(int(2 * an_hour) + 1)):
                ts = START + hour * HOUR_MS + chance.randrange(HOUR_MS)
                found.append(Session(f"10.0.0.{server}", ts, tuple(size * chance.random() for _ in NAMES)))
    return sorted(found, key=lambda one: one.ts + chance.randrange(200_000))


def log(found: Sequence[Session | bytes], *, topic: str = "server.sessions") -> Records:
    """One partition that holds them."""
    values = [one if isinstance(one, bytes) else one.value for one in found]
    count = len(values)
    arrival = np.full(count, START + 365 * 24 * HOUR_MS)
    return Records(topic, 0, np.arange(count), arrival, [None] * count, values, [()] * count)


def hours(found: Iterable[Session], until: int, alive_ms: int = ALIVE_MS) -> pa.Table:
    """``HOURS`` of the sessions that began before ``until``, added up one by one."""
    buckets: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0] * 9)
    starts: dict[str, list[int]] = defaultdict(list)
    for one in found:
        if one.ts < until:
            sums = buckets[one.server, one.ts // BUCKET_MS * BUCKET_MS]
            for at, value in enumerate((1, *(round(load * 1e6) for load in one.loads))):
                sums[at] += value
            starts[one.server].append(one.ts)
    rows = []
    for server, began in sorted(starts.items()):
        for hour in range(min(began) // HOUR_MS * HOUR_MS, until, HOUR_MS):
            held = [buckets[server, at] for at in range(hour, hour + HOUR_MS, BUCKET_MS) if (server, at) in buckets]
            last = max((ts for ts in began if ts < hour), default=-ALIVE_MS)
            if held:
                rows.append((server, hour, *max(held, key=lambda sums: sums[1])))
            elif hour - last < alive_ms:
                rows.append((server, hour, *[0] * 9))
    return pa.table([pa.array(column) for column in zip(*rows, strict=True)], schema=HOURS)


def ahead(servers: Iterable[str], issued: int) -> pa.Table:
    """The targets of forecasts issued then."""
    named = sorted(servers)
    hour = issued + np.arange(HORIZON) * HOUR_MS
    return pa.table({"server": pa.array(np.repeat(named, HORIZON), pa.string()), "hour": np.tile(hour, len(named))})


@dataclass
class StandIn:
    """A forecaster that remembers what it was asked, and answers by the newest hour it may know."""

    version: str = "v1"
    spec: FeatureSpec = field(default_factory=lambda: FeatureSpec("America/New_York", START))
    asked: list[pa.Table] = field(default_factory=list)

    def fill(self, features: pa.Table) -> tuple[pa.Table, "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]"]:
        """Without a load two days before there is no history."""
        self.asked.append(features)
        return features, features["lag_48"].is_null().to_numpy()

    def predict(self, features: pa.Table) -> Floats:
        """More load, higher."""
        high = np.tanh(features["lag_48"].fill_null(0.0).to_numpy() / 300)
        low = (1 - high) * np.exp(-features["lag_49"].fill_null(0.0).to_numpy() / 100)
        return np.stack([low, 1 - low - high, high], axis=1)
