"""What Prometheus is told of the service: requests, how long they take, how many are at work, what is turned away."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""In the place of a route that is none, and of a method that nobody uses: labels take few values whatever is sent."""
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Meters:
    """The metrics of one service, in a registry of its own, to which others may add theirs."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._counts: Counter[tuple[str, str, int]] = Counter()
        self._times: dict[tuple[str, str], _Times] = defaultdict(_Times)
        self.registry.register(_Requests(self._counts, self._times))
        self.in_flight = Gauge("tidewatch_http_requests_in_flight", "Requests at work.", registry=self.registry)
        self.streams = Gauge("tidewatch_http_streams", "Readers of a stream.", registry=self.registry)
        self.rejected = prometheus_client.Counter(
            "tidewatch_http_rejected", "Requests turned away before any work.", ["reason"], registry=self.registry
        )

    def answered(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """Count a request; ``seconds`` is None for a stream."""
        method = method if method in METHODS else OTHER
        self._counts[method, route, status] += 1
        if seconds is not None:
            times = self._times[method, route]
            times.counts[bisect_left(BUCKETS, seconds)] += 1
            times.total += seconds

    def collected(self, counts: Mapping[str, int]) -> None:
        """Tell how many predictions were ``written`` and ``dropped``, as ``counts`` says at the moment."""
        self.registry.register(_Collected(counts))

    def page(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the text format that ``accept`` asks for, and its content type."""
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind


@dataclass(slots=True)
class _Times:
    """How long requests of one route took."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    """In each bucket alone; the last is without end."""
    total: float = 0.0
    """Seconds."""


class _Requests(Collector):
    """Counts of requests, which are only added up when somebody asks: they are counted at each request."""

    def __init__(self, counts: Mapping[tuple[str, str, int], int], times: Mapping[tuple[str, str], _Times]) -> None:
        self._counts = counts
        self._times = times

    def collect(self) -> Iterator[Metric]:
        """As they are at the moment."""
        requests = CounterMetricFamily(
            "tidewatch_http_requests", "Requests answered.", labels=("method", "route", "status")
        )
        for (method, route, status), count in self._counts.items():
            requests.add_metric((method, route, str(status)), count)
        yield requests
        seconds = HistogramMetricFamily(
            "tidewatch_http_request_duration_seconds",
            "Time to answer a request, streams excepted.",
            labels=("method", "route"),
        )
        bounds = [*map(floatToGoString, BUCKETS), "+Inf"]
        for names, times in self._times.items():
            seconds.add_metric(names, [*zip(bounds, accumulate(times.counts), strict=True)], times.total)
        yield seconds


class _Collected(Collector):
    """Counters that others count."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        """As they are at the moment."""
        for name in ("written", "dropped"):
            yield CounterMetricFamily(f"tidewatch_collected_{name}", f"Predictions {name}.", self._counts[name])
