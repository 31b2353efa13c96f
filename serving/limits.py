"""How much is let in: bodies, time, requests at work, requests a second."""

from collections import OrderedDict
from dataclasses import dataclass

from scorers.errors import hold

CALLERS = 10_000
"""Callers whose rate is remembered; the one not heard of for longest is forgotten, full."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one service takes; times in seconds.

    Raises:
        ConfigError: a limit is not positive; ``rate`` may be 0, which is none.
    """

    body_bytes: int = 8 * 1024 * 1024
    body_s: float = 30.0
    """A body takes so long at most."""
    request_s: float = 60.0
    """An answer takes so long at most; streams are not meant."""
    write_s: float = 30.0
    """A client takes so long at most to take a piece of its answer."""
    concurrency: int = 256
    streams: int = 64
    rate: float = 0.0
    """Requests a second of one caller, over any length of time."""
    burst: int = 100
    """Requests of one caller that may come at once."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        names = ("body_bytes", "body_s", "request_s", "write_s", "concurrency", "streams", "burst")
        hold("serving", self, [(name, getattr(self, name) > 0, "more than 0") for name in names])
        hold("serving", self, [("rate", self.rate >= 0, "0 or more")])


class Buckets:
    """A token bucket for each caller, filled at ``rate`` a second up to ``burst``."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str, now: float) -> float:
        """Take a token: 0, or the seconds until there is one.

        >>> buckets = Buckets(rate=2, burst=1)
        >>> buckets.take("a", 0.0), buckets.take("a", 0.0), buckets.take("b", 0.0), buckets.take("a", 0.5)
        (0.0, 0.5, 0.0, 0.0)
        """
        tokens, at = self._held.pop(caller, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._held[caller] = (tokens if wait else tokens - 1, now)
        if len(self._held) > CALLERS:
            self._held.popitem(last=False)
        return wait
