"""What Prometheus is told of the service: requests, how long they take, how many are at work, what is turned away."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""In the place of a route that is none, and of a method that nobody uses: labels take few values whatever is sent."""
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Meters:
    """The metrics of one service, in a registry of its own, to which others may add theirs."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        names = ("method", "route", "status")
        self._requests = Counter("tidewatch_http_requests", "Requests answered.", names, registry=self.registry)
        self._seconds = Histogram(
            "tidewatch_http_request_duration_seconds",
            "Time to answer a request, streams excepted.",
            names[:2],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge("tidewatch_http_requests_in_flight", "Requests at work.", registry=self.registry)
        self.streams = Gauge("tidewatch_http_streams", "Readers of a stream.", registry=self.registry)
        self.rejected = Counter(
            "tidewatch_http_rejected", "Requests turned away before any work.", ["reason"], registry=self.registry
        )
        self._counts: dict[tuple[str, str, int], Counter] = {}
        self._times: dict[tuple[str, str], Histogram] = {}

    def answered(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """Count a request; ``seconds`` is None for a stream."""
        method = method if method in METHODS else OTHER
        count = self._counts.get((method, route, status))
        if count is None:
            count = self._counts[method, route, status] = self._requests.labels(method, route, str(status))
        count.inc()
        if seconds is None:
            return
        times = self._times.get((method, route))
        if times is None:
            times = self._times[method, route] = self._seconds.labels(method, route)
        times.observe(seconds)

    def collected(self, counts: Mapping[str, int]) -> None:
        """Tell how many predictions were ``written`` and ``dropped``, as ``counts`` says at the moment."""
        self.registry.register(_Collected(counts))

    def page(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the text format that ``accept`` asks for, and its content type."""
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind


class _Collected(Collector):
    """Counters that others count."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        """As they are at the moment."""
        for name in ("written", "dropped"):
            yield CounterMetricFamily(f"tidewatch_collected_{name}", f"Predictions {name}.", self._counts[name])
