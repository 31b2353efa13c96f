"""What answers with scores, as bare ASGI: what a request costs beyond its scoring is what limits the service."""

import logging
import re
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.types import ASGIApp

from serving import form, protocol
from serving.errors import OverloadedError, RefusedError, TooLargeError
from serving.service import Service

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = dict[bytes, bytes]

JSON, BINARY = b"application/json", b"application/octet-stream"
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
RETRY_S = b"1"
JSON_BYTES = b"inference-header-content-length"
"""Header that tells where the JSON ends and binary tensors begin."""


class Answering:
    """An ASGI application that answers one kind of request; what is refused becomes ``{"error": …}``."""

    methods: tuple[str, ...] = ("POST",)

    def __init__(self, service: Service, max_bytes: int) -> None:
        self.service = service
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["method"] not in self.methods:
            await respond(send, 405, fault("Method Not Allowed"), JSON, (b"allow", ", ".join(self.methods).encode()))
            return
        try:
            headers: Headers = dict(scope["headers"])
            body = b"" if scope["method"] == "GET" else await read(headers, receive, self.max_bytes)
            await self.answer(scope, body, send)
        except RefusedError as error:
            await refuse(send, error)

    async def answer(self, scope: Scope, body: bytes, send: Send) -> None:
        """Answer a request whose body is there.

        Raises:
            RefusedError: it cannot be answered.
        """
        raise NotImplementedError


class Infer(Answering):
    """``POST /v2/models/{name}[/versions/{version}]/infer``."""

    async def answer(self, scope: Scope, body: bytes, send: Send) -> None:
        """Score the tensors of a request."""
        path = scope["path_params"]
        model = await self.service.model(path["name"], path.get("version", ""))
        request, columns = protocol.parse(body, dict(scope["headers"]).get(JSON_BYTES))
        found = await self.service.infer(model, columns)
        content, json = protocol.answer(request, path["name"], model.version, found)
        if json is None:
            await respond(send, 200, content, JSON)
        else:
            await respond(send, 200, content, BINARY, (JSON_BYTES, b"%d" % json))


class Score(Answering):
    """``POST /api/v1/service/{name}/score``."""

    async def answer(self, scope: Scope, body: bytes, send: Send) -> None:
        """Score the data of a call."""
        call = form.parse(body)
        name = scope["path_params"].get("name") or call.model_name
        if name is msgspec.UNSET:
            raise RefusedError("model_name: missing; expected the name of a model.")
        await respond(send, 200, await form.score(self.service, name, call.data, call.id), JSON)


class Query(Score):
    """``POST /score`` and ``GET /score?model_name=…&data=…``."""

    methods = ("GET", "POST")

    async def answer(self, scope: Scope, body: bytes, send: Send) -> None:
        """Score the data of a call, or of a query."""
        if scope["method"] == "POST":
            await super().answer(scope, body, send)
            return
        try:
            query = dict(parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict"))
        except ValueError as error:
            raise RefusedError("The query is not UTF-8.") from error
        for name in ("model_name", "data"):
            if name not in query:
                raise RefusedError(f"{name}: missing; expected GET /score?model_name=NAME&data=[[…]].")
        await respond(send, 200, await form.score(self.service, query["model_name"], query["data"].encode()), JSON)


class Fast:
    """Middleware that answers what is to be scored, and lets everything else pass on: no router is asked first."""

    def __init__(self, app: ASGIApp, service: Service, max_bytes: int) -> None:
        self._app = app
        infer, score = Infer(service, max_bytes), Score(service, max_bytes)
        self._query = Query(service, max_bytes)
        self._routes = ((_INFER, infer), (_SCORE, score))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] == "http":
            path = scope["path"]
            if path == "/score":
                scope["path_params"] = {}
                await self._query(scope, receive, send)
                return
            for pattern, answering in self._routes:
                if (found := pattern.fullmatch(path)) is not None:
                    scope["path_params"] = found.groupdict("")
                    await answering(scope, receive, send)
                    return
        await self._app(scope, receive, send)


_INFER = re.compile(r"/v2/models/(?P<name>.+?)(?:/versions/(?P<version>[^/]+))?/infer", re.DOTALL)
_SCORE = re.compile(r"/api/v1/service/(?P<name>.+)/score", re.DOTALL)


async def read(headers: Headers, receive: Receive, most: int) -> bytes:
    """The body of a request, inflated if it is compressed.

    Raises:
        RefusedError: it is compressed in a way that is not known, or not as it says.
        TooLargeError: it has too many bytes.
    """
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > most:
        raise TooLargeError(f"The body has {int(length)} bytes; {most} are taken.")
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError("The client has gone.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise TooLargeError(f"The body has more than {most} bytes.")
        more = message.get("more_body", False)
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    coding = headers.get(b"content-encoding", b"identity").strip().lower()
    return body if coding in (b"identity", b"") else _inflated(body, coding, most)


def _inflated(body: bytes, coding: bytes, most: int) -> bytes:
    if coding not in (b"gzip", b"deflate", b"x-gzip"):
        raise RefusedError(f"Content-Encoding {coding[:40].decode('latin-1')!r} is unknown; use gzip or deflate.")
    machine = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        found = machine.decompress(body, most + 1)
    except zlib.error as error:
        raise RefusedError(f"The body is not {coding.decode('latin-1')}.") from error
    if len(found) > most:
        raise TooLargeError(f"The body has more than {most} bytes when it is inflated.")
    if not machine.eof:
        raise RefusedError("The compressed body is cut short.")
    return found


async def respond(send: Send, status: int, content: bytes, kind: bytes, *headers: tuple[bytes, bytes]) -> None:
    """Send a response."""
    head = [(b"content-type", kind), (b"content-length", b"%d" % len(content)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": content})


async def refuse(send: Send, error: RefusedError) -> None:
    """Say what is wrong with a request."""
    await respond(send, error.status, fault(str(error)), JSON, *later(error))


def later(error: RefusedError) -> list[tuple[bytes, bytes]]:
    """The header that says when to come again, where that may help."""
    return [(b"retry-after", RETRY_S)] if isinstance(error, OverloadedError) else []


def fault(said: str) -> bytes:
    """The protocol's error object."""
    return msgspec.json.encode({"error": said.encode("utf-8", "replace").decode()})
