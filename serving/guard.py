"""The gate as a layer of ASGI before the service's app.

One plain layer, so that a request costs microseconds: no task, no queue and no copy of its own. Who may enter is the
gate's (``serving/gate.py``); what takes too long ends here, with 408 (the client) or 504 (we). Errors are
``{"error": …}``, as the Open Inference Protocol has them.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import access, trace
from serving.gate import FAILED, METRICS, READY, Entry, Gate, GuardSpec, Refusal
from serving.meters import METHODS

log = logging.getLogger(__name__)


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
        "_app", "_body_end", "_entry", "_gate", "_gone", "_limits", "_read", "_receive", "_refused", "_scope", "_send",
        "_status",
    )  # fmt: skip

    def __init__(self, app: ASGIApp, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        self._app = app
        self._gate = gate
        self._limits = gate.spec.limits
        self._scope = scope
        self._receive = receive
        self._send = send
        self._entry = Entry(gate, scope, dict(scope["headers"]))
        self._status = 0
        self._gone = False
        self._read = 0
        self._body_end: float | None = None
        self._refused: Refusal | None = None

    async def run(self) -> None:
        """Answer, whatever happens; then count and log."""
        token = trace.current.set(self._entry.context)
        try:
            self._entry.check()
            self._entry.let_in()
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
            log.exception("An answer failed", extra={"fields": {"route": self._entry.route()}})
            await self._refuse(Refusal(500, "failed", FAILED))
        finally:
            self._entry.tell(self._status)
            trace.current.reset(token)

    async def _answer(self) -> None:
        gate = self._gate
        if gate.draining and self._scope["path"] == READY:
            raise Refusal(503, "draining", "The service is leaving.", (b"retry-after", b"1"))
        if self._entry.stream:
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
            self._refused = self._entry.too_large()
            raise self._refused
        if not message.get("more_body", False):
            self._body_end = float("inf")
        return message

    async def _sent(self, message: Message) -> None:
        if self._refused and not self._status:
            return  # the app's own words on a body that we cut off
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = [*message.get("headers", ())]
            await self._send({**message, "headers": [*headers, *self._entry.added(headers)]})
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
        await self._send({**start, "headers": [*headers, *self._entry.added(headers)]})
        await self._send({"type": "http.response.body", "body": body})

    def _abort(self) -> None:
        abort: Callable[[], Any] | None = (self._scope.get("extensions") or {}).get("tidewatch.abort", {}).get("call")
        if abort:
            abort()
