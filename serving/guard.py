"""The gate before the service: who may call, how much is let in, and what is logged and counted of it.

One plain ASGI layer, so that a request costs microseconds: no task, no queue and no copy of its own. In this order a
request is refused: tricks in the path and foreign hosts 400 and 421, keys in the URL 400, no or a wrong key 401 (RFC
6750), a key without the scope 403, too large a body 413, too many requests of one caller 429, too many at all 503.
What takes too long ends with 408 (the client) or 504 (we). Errors are ``{"error": …}``, as the Open Inference
Protocol has them.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import access, trace
from serving.access import LOOPBACK, OPEN, RULES, Rule
from serving.keys import Ring
from serving.limits import Buckets, Limits
from serving.meters import METHODS, OTHER, Meters

log = logging.getLogger(__name__)
requests_log = logging.getLogger("serving.requests")

READY = "/v2/health/ready"
METRICS = "/metrics"
STREAM = "/stream"
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


def guard(app: FastAPI, spec: GuardSpec) -> Gate:
    """Put the gate before an app, and ``/metrics`` into it."""
    gate = Gate(spec)
    gate.routed = lambda scope: _routed(app, scope)
    app.add_middleware(Guard, gate=gate)
    if spec.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[*spec.origins],
            allow_methods=[*sorted(METHODS)],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id", "traceparent", "Last-Event-ID"],
            expose_headers=["X-Request-Id", "Retry-After", "Link"],
        )

    @app.get(METRICS, include_in_schema=False)
    async def metrics(request: Request) -> Response:
        body, kind = gate.meters.page(request.headers.get("accept", ""))
        return Response(body, media_type=None, headers={"content-type": kind})

    return gate


def _routed(app: FastAPI, scope: Scope) -> bool:
    hot = access.template(scope["path"]) is not None and scope["method"] in {"GET", "POST"}
    return hot or any(route.matches(scope)[0] is Match.FULL for route in app.routes)


class Refusal(Exception):  # noqa: N818 - it is an answer
    """An answer in the place of the app's."""

    def __init__(self, status: int, reason: str, message: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.headers = headers


class Guard:
    """The ASGI layer."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it; no WebSocket is spoken here."""
        if scope["type"] == "http":
            await _Exchange(self._app, self._gate, scope, receive, send).run()
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})


class _Exchange:
    """One request and its answer."""

    __slots__ = (
        "_app", "_body_end", "_context", "_gate", "_gone", "_headers", "_limits", "_read", "_receive",
        "_refused", "_scope", "_send", "_started", "_status", "_stream",
    )  # fmt: skip

    def __init__(self, app: ASGIApp, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        self._app = app
        self._gate = gate
        self._limits = gate.spec.limits
        self._scope = scope
        self._receive = receive
        self._send = send
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._started = gate.spec.clock()
        self._status = 0
        self._gone = False
        self._read = 0
        self._body_end: float | None = None
        self._refused: Refusal | None = None
        self._stream = scope["path"] == STREAM
        self._context = trace.Context(
            trace.request_id(self._headers.get(b"x-request-id")), trace.trace(self._headers.get(b"traceparent"))
        )

    async def run(self) -> None:
        """Answer, whatever happens; then count and log."""
        token = trace.current.set(self._context)
        try:
            self._admit()
            await self._answer()
            if self._refused and not self._status:
                await self._refuse(self._refused)
        except Refusal as refusal:
            await self._refuse(refusal)
        except ClientDisconnect:
            self._gone = True
        except Exception:
            if self._gone:
                return
            log.exception("An answer failed", extra={"fields": {"route": self._route()}})
            await self._refuse(Refusal(500, "failed", "The service failed; its log tells of this request id."))
        finally:
            self._tell()
            trace.current.reset(token)

    def _admit(self) -> None:
        """Refuse what may not enter."""
        scope = self._scope
        path, raw = scope["path"], scope.get("raw_path") or scope["path"].encode()
        if wrong := access.trick(raw):
            raise Refusal(400, "path", f"The path holds {wrong}.")
        if access.key_in_url(raw, scope["query_string"]):
            raise Refusal(
                400, "key_in_url", "Keys go into the header `Authorization: Bearer KEY`; revoke one that was in a URL."
            )
        self._check_host()
        caller = self._authorise(path)
        self._check_length()
        if path in OPEN or path == METRICS:
            return
        buckets = self._gate.buckets
        if buckets and (wait := buckets.take(caller, self._started)):
            raise Refusal(429, "rate", "Too many requests of this caller.", (b"retry-after", b"%d" % ceil(wait)))
        held, most = (
            (self._gate.streams, self._limits.streams)
            if self._stream
            else (self._gate.at_work, self._limits.concurrency)
        )
        if held >= most:
            raise Refusal(503, "concurrency", "The service is busy.", (b"retry-after", b"1"))

    def _check_host(self) -> None:
        spec = self._gate.spec
        host = access.hostname(self._headers.get(b"host"))
        allowed = spec.hosts or (frozenset() if spec.keys else LOOPBACK)
        if allowed and host not in allowed:
            raise Refusal(421, "host", "This service is not known under that host name; see serving.hosts.")
        if spec.keys is None and (origin := self._headers.get(b"origin")):
            text = origin.decode("latin-1")
            if text not in spec.origins and access.hostname(origin.partition(b"://")[2]) != host:
                raise Refusal(403, "origin", "Pages of other origins may not call; see serving.cors.")

    def _authorise(self, path: str) -> str:
        """Who calls, for its rate."""
        spec = self._gate.spec
        address = (self._scope.get("client") or ("",))[0]
        if spec.keys is None or path in OPEN or access.PAGES.fullmatch(path):
            return f"@{address}"
        given = access.bearer(self._headers.get(b"authorization"))
        if given is None:
            raise _unknown("This call needs a key: `Authorization: Bearer KEY`.", b"Bearer")
        key = spec.keys.find(given, spec.now())
        if key is None:
            raise _unknown("The key is not known, or is revoked or expired.", b'Bearer error="invalid_token"')
        self._context.key = key.name
        scope = access.needed(self._scope["method"], path, spec.rules)
        if not key.may(scope) and self._gate.routed(self._scope):  # what there is not is told by the app
            asked = b'Bearer error="insufficient_scope", scope="%s"' % scope.encode()
            raise Refusal(403, "scope", f"This call needs a key with the scope {scope}.", (b"www-authenticate", asked))
        return key.id

    def _check_length(self) -> None:
        length = self._headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise Refusal(400, "length", "Content-Length is no number.")
        if int(length) > self._limits.body_bytes:
            raise self._too_large()

    def _too_large(self) -> Refusal:
        return Refusal(
            413, "body", f"The body is larger than {self._limits.body_bytes} bytes.", (b"connection", b"close")
        )

    async def _answer(self) -> None:
        gate = self._gate
        if gate.draining and self._scope["path"] == READY:
            raise Refusal(503, "draining", "The service is leaving.", (b"retry-after", b"1"))
        if self._stream:
            gate.streams += 1
            try:
                await self._app(self._scope, self._receive, self._sent)
            finally:
                gate.streams -= 1
            return
        gate.at_work += 1
        try:
            async with asyncio.timeout(self._limits.request_s) as limit:
                await self._app(self._scope, self._received, self._sent)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Refusal(504, "timeout", f"No answer within {self._limits.request_s:g} s.") from None
        finally:
            gate.at_work -= 1

    async def _received(self) -> Message:
        """A piece of the body, unless it is too much or too late; once it is whole, whatever comes."""
        if self._refused:
            raise self._refused
        if self._status or self._body_end == float("inf"):
            return await self._receive()
        loop = asyncio.get_running_loop()
        if self._body_end is None:
            self._body_end = loop.time() + self._limits.body_s
        try:
            async with asyncio.timeout_at(self._body_end):
                message = await self._receive()
        except TimeoutError:
            self._refused = Refusal(408, "slow", "The body came too slowly.", (b"connection", b"close"))
            raise self._refused from None
        self._read += len(message.get("body", b""))
        if self._read > self._limits.body_bytes:
            self._refused = self._too_large()
            raise self._refused
        if not message.get("more_body", False):
            self._body_end = float("inf")
        return message

    async def _sent(self, message: Message) -> None:
        if self._refused and not self._status:
            return  # the app's own words on a body that we cut off
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self._added(message)]}
            await self._send(message)
        elif message.get("more_body"):
            await self._piece(message)
        else:
            await self._send(message)

    async def _piece(self, message: Message) -> None:
        """A piece of a long answer, to a client that takes it."""
        try:
            async with asyncio.timeout(self._limits.write_s):
                await self._send(message)
        except TimeoutError:
            self._gate.meters.rejected.labels("slow_reader").inc()
            self._gone = True
            self._abort()
            raise BrokenPipeError("the client took no more of its answer") from None

    def _added(self, message: Message) -> Headers:
        """Headers that every answer has."""
        given = {name.lower(): value for name, value in message.get("headers", ())}
        added = [(b"x-request-id", self._context.request_id.encode()), *_SECURE]
        if b"cache-control" not in given:
            added.append(_NO_STORE)
        if b"content-security-policy" not in given:
            page = given.get(b"content-type", b"").startswith(b"text/html")
            added.append(_PAGE_POLICY if page else _DATA_POLICY)
        if self._scope["scheme"] == "https":
            added.append(_STRICT)
        if self._gate.draining and b"connection" not in given:
            added.append((b"connection", b"close"))
        return added

    async def _refuse(self, refusal: Refusal) -> None:
        refusal = self._refused or refusal
        self._gate.meters.rejected.labels(refusal.reason).inc()
        if self._status:  # half an answer is out: only a cut tells the client that it is not whole
            self._abort()
            return
        body = msgspec.json.encode({"error": str(refusal)})
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *refusal.headers,
        ]
        start: Message = {"type": "http.response.start", "status": refusal.status, "headers": headers}
        self._status = refusal.status
        await self._send({**start, "headers": [*headers, *self._added(start)]})
        await self._send({"type": "http.response.body", "body": body})

    def _abort(self) -> None:
        abort: Callable[[], Any] | None = (self._scope.get("extensions") or {}).get("tidewatch.abort", {}).get("call")
        if abort:
            abort()

    def _route(self) -> str:
        return getattr(self._scope.get("route"), "path", None) or access.template(self._scope["path"]) or OTHER

    def _tell(self) -> None:
        """Count the request, and log its line: never bodies, keys, queries or the path as it was sent."""
        seconds = self._gate.spec.clock() - self._started
        method, route = self._scope["method"], self._route()
        self._gate.meters.answered(method, route, self._status or GONE, None if self._stream else seconds)
        if requests_log.isEnabledFor(logging.INFO):
            fields = {
                "method": method if method in METHODS else OTHER,
                "route": route,
                "status": self._status or GONE,
                "ms": round(seconds * 1000, 3),
                "key": self._context.key,
            }
            requests_log.info("request", extra={"fields": fields})


def _unknown(message: str, challenge: bytes) -> Refusal:
    return Refusal(401, "key", message, (b"www-authenticate", challenge))
