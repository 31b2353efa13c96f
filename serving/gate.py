"""The gate before the service: who may enter, what every answer has, and what is counted and logged of a request.

In this order a request is refused: tricks in the path and foreign hosts 400 and 421, keys in the URL 400, no or a wrong
key 401 (RFC 6750), a key without the scope 403, too large a body 413, too many requests of one caller 429, too many at
all 503.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil

from starlette.types import Scope

from serving import access, trace
from serving.access import LOOPBACK, OPEN, RULES, Rule
from serving.keys import Ring
from serving.limits import Buckets, Limits
from serving.meters import METHODS, OTHER, Meters

requests_log = logging.getLogger("serving.requests")

READY = "/v2/health/ready"
METRICS = "/metrics"
STREAM = "/stream"
FAILED = "The service failed; its log tells of this request id."
GONE = 499
"""Told as the status where the client left before there was one."""
Headers = list[tuple[bytes, bytes]]

_SECURE: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_STRICT = (b"strict-transport-security", b"max-age=31536000")
_NO_STORE = (b"cache-control", b"no-store")
_DATA_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_PAGE = (
    b"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'; "
    b"worker-src 'self' blob:"
)
"""Of the documents; ReDoc searches in a worker that it makes of a blob."""
_PAGE_POLICY = (b"content-security-policy", _PAGE)


@dataclass(frozen=True, slots=True)
class GuardSpec:
    """Who may call, and how much.

    ``keys`` None lets everybody in: only for a service bound to loopback. ``hosts`` empty means any host, or, without
    keys, this machine's own names, so that no web page reaches the service through a name of its own (DNS rebinding).
    """

    keys: Ring | None = None
    limits: Limits = field(default_factory=Limits)
    rules: tuple[Rule, ...] = RULES
    hosts: frozenset[str] = frozenset()
    origins: tuple[str, ...] = ()
    """Origins that browsers may call from; none by default."""
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    """Epoch seconds, for keys that expire."""


class Gate:
    """What the guard of one service knows: metrics, requests at work, and whether the service is leaving."""

    def __init__(self, spec: GuardSpec) -> None:
        self.spec = spec
        self.meters = Meters()
        self.draining = False
        self.closing = False
        """Whether the notice is over: over gRPC, whose connections cannot be given back, calls are sent elsewhere."""
        self.at_work = 0
        self.streams = 0
        self.routed: Callable[[Scope], bool] = lambda _: True
        """Whether there is a route of this path and method."""
        self.on_drain: list[Callable[[], None]] = []
        """Called once, when the service begins to leave: streams end themselves."""
        self.buckets = Buckets(spec.limits.rate, spec.limits.burst) if spec.limits.rate else None
        self.meters.in_flight.set_function(lambda: self.at_work)
        self.meters.streams.set_function(lambda: self.streams)

    def drain(self) -> None:
        """Say that the service is leaving: not ready any more, and connections are given back."""
        if not self.draining:
            self.draining = True
            for call in self.on_drain:
                call()


class Refusal(Exception):  # noqa: N818 - it is an answer
    """An answer in the place of the app's."""

    def __init__(self, status: int, reason: str, message: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.headers = headers


class Entry:
    """A request at the gate."""

    __slots__ = ("_caller", "context", "gate", "headers", "scope", "started", "stream")

    def __init__(self, gate: Gate, scope: Scope, headers: dict[bytes, bytes]) -> None:
        self.gate = gate
        self.scope = scope
        self.headers = headers
        self.started = gate.spec.clock()
        self.stream = scope["path"] == STREAM
        self.context = trace.Context.of(headers.get(b"x-request-id"), headers.get(b"traceparent"))
        self._caller = ""

    def check(self) -> None:
        """Refuse who may not enter.

        Raises:
            Refusal: it may not.
        """
        scope = self.scope
        path, raw = scope["path"], scope.get("raw_path") or scope["path"].encode()
        if wrong := access.trick(raw):
            raise Refusal(400, "path", f"The path holds {wrong}.")
        if access.key_in_url(raw, scope["query_string"]):
            raise Refusal(
                400, "key_in_url", "Keys go into the header `Authorization: Bearer KEY`; revoke one that was in a URL."
            )
        self._check_host()
        self._caller = self._authorise(path)
        self._check_length()

    def let_in(self) -> None:
        """Refuse what is too much, of a caller or of all.

        Raises:
            Refusal: it is.
        """
        if self.scope["path"] in OPEN or self.scope["path"] == METRICS:
            return
        buckets, limits = self.gate.buckets, self.gate.spec.limits
        if buckets and (wait := buckets.take(self._caller, self.started)):
            raise Refusal(429, "rate", "Too many requests of this caller.", (b"retry-after", b"%d" % ceil(wait)))
        held, most = (self.gate.streams, limits.streams) if self.stream else (self.gate.at_work, limits.concurrency)
        if held >= most:
            raise Refusal(503, "concurrency", "The service is busy.", (b"retry-after", b"1"))

    def _check_host(self) -> None:
        spec = self.gate.spec
        host = access.hostname(self.headers.get(b"host"))
        allowed = spec.hosts or (frozenset() if spec.keys else LOOPBACK)
        if allowed and host not in allowed:
            raise Refusal(421, "host", "This service is not known under that host name; see serving.hosts.")
        if spec.keys is None and (origin := self.headers.get(b"origin")):
            text = origin.decode("latin-1")
            if text not in spec.origins and access.hostname(origin.partition(b"://")[2]) != host:
                raise Refusal(403, "origin", "Pages of other origins may not call; see serving.cors.")

    def _authorise(self, path: str) -> str:
        """Who calls, for its rate."""
        spec = self.gate.spec
        address = (self.scope.get("client") or ("",))[0]
        if spec.keys is None or path in OPEN or access.PAGES.fullmatch(path):
            return f"@{address}"
        given = access.bearer(self.headers.get(b"authorization"))
        if given is None:
            raise _unknown("This call needs a key: `Authorization: Bearer KEY`.", b"Bearer")
        key = spec.keys.find(given, spec.now())
        if key is None:
            raise _unknown("The key is not known, or is revoked or expired.", b'Bearer error="invalid_token"')
        self.context.key = key.name
        scope = access.needed(self.scope["method"], path, spec.rules)
        if not key.may(scope) and self.gate.routed(self.scope):  # what there is not is told by the app
            asked = b'Bearer error="insufficient_scope", scope="%s"' % scope.encode()
            raise Refusal(403, "scope", f"This call needs a key with the scope {scope}.", (b"www-authenticate", asked))
        return key.id

    def _check_length(self) -> None:
        length = self.headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise Refusal(400, "length", "Content-Length is no number.")
        if int(length) > self.gate.spec.limits.body_bytes:
            raise self.too_large()

    def too_large(self) -> Refusal:
        """The answer to too much."""
        return Refusal(
            413, "body", f"The body is larger than {self.gate.spec.limits.body_bytes} bytes.", (b"connection", b"close")
        )

    def added(self, headers: Headers) -> Headers:
        """Headers that every answer has, beside its own."""
        given = {name.lower(): value for name, value in headers}
        added = common(given, https=self.scope["scheme"] == "https", last=self.gate.draining)
        return [(b"x-request-id", self.context.request_id.encode()), *added]

    def route(self) -> str:
        """The route that answers, by its template."""
        return getattr(self.scope.get("route"), "path", None) or access.template(self.scope["path"]) or OTHER

    def tell(self, status: int) -> None:
        """Count the request, and log its line: never bodies, keys, queries or the path as it was sent."""
        seconds = self.gate.spec.clock() - self.started
        method, route = self.scope["method"], self.route()
        self.gate.meters.answered(method, route, status or GONE, None if self.stream else seconds)
        if requests_log.isEnabledFor(logging.INFO):
            fields = {
                "method": method if method in METHODS else OTHER,
                "route": route,
                "status": status or GONE,
                "ms": round(seconds * 1000, 3),
                "key": self.context.key,
            }
            trace.tell(requests_log, "request", fields, self.context)


def common(given: Mapping[bytes, bytes], *, https: bool, last: bool) -> Headers:
    """Headers that every answer has, whoever asks.

    Args:
        given: those it has already, by their names in lower case.
        https: whether it goes by TLS.
        last: whether its connection ends with it.
    """
    added = [*_SECURE]
    if b"cache-control" not in given:
        added.append(_NO_STORE)
    if b"content-security-policy" not in given:
        page = given.get(b"content-type", b"").startswith(b"text/html")
        added.append(_PAGE_POLICY if page else _DATA_POLICY)
    if https:
        added.append(_STRICT)
    if last and b"connection" not in given:
        added.append((b"connection", b"close"))
    return added


def _unknown(message: str, challenge: bytes) -> Refusal:
    return Refusal(401, "key", message, (b"www-authenticate", challenge))
