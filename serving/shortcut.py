"""The short way: a small request for scores that comes whole is answered by calls of the event loop alone.

A task, its queue of messages and the layers of ASGI cost a request more than its scores do. What comes whole with its
headers, asks for scores of a model in memory and is refused nothing is therefore parsed, put with the others and
answered here, with the gate's own functions and the protocol's. Whatever is otherwise in any way, what is to be
refused too, goes the ordinary way, which does the same (``tests/unit/test_shortcut.py`` compares).
"""

import asyncio
import logging
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving import form, http, protocol, trace
from serving.errors import RefusedError
from serving.gate import FAILED, Entry, Gate, Headers, common
from serving.models import STAMP, Model
from serving.service import Service
from serving.tensors import Columns, Outputs

log = logging.getLogger(__name__)

SMALL = 64 * 1024
"""Bytes of a body that is taken."""
_INFER = re.compile(rb"/v2/models/([\w.:@+=~/-]+?)(?:/versions/([\w.:@+=~-]+))?/infer")
_SCORE = re.compile(rb"/score|/api/v1/service/([\w.:@+=~/-]+)/score")
_UNUSUAL = frozenset({
    b"origin", b"expect", b"upgrade", b"transfer-encoding", b"content-encoding",
    b"x-forwarded-for", b"x-forwarded-proto",
})  # fmt: skip
"""Headers of which the ordinary way makes something."""
_NOBODY = asyncio.Event()


class Shortcut:
    """Takes requests to one service from its connections."""

    def __init__(self, service: Service, gate: Gate) -> None:
        self.service = service
        self._gate = gate
        self._answered: list[Short] = []

    def fits(self, connection: HttpToolsProtocol) -> bool:
        """Whether a request may go the short way, as its headers say; none of the connection may be at work."""
        if connection.parser.get_method() != b"POST" or not _asking(connection.url):
            return False
        headers = dict(connection.headers)
        length = headers.get(b"content-length", b"")
        cycle: Any = connection.cycle
        return (
            length.isdigit()
            and int(length) <= SMALL
            and headers.keys().isdisjoint(_UNUSUAL)
            and (cycle is None or cycle.response_complete)
            and not connection.flow.write_paused
            and connection.parser.get_http_version() == "1.1"
        )

    def take(self, connection: HttpToolsProtocol, body: bytes) -> "Short | None":
        """Begin to answer a request; None where it is for the ordinary way."""
        scope: Any = connection.scope
        scope |= {"method": "POST", "path": connection.url.decode(), "raw_path": connection.url, "query_string": b""}
        headers = dict(connection.headers)
        entry = Entry(self._gate, scope, headers)
        try:
            entry.check()
            ask = _asked(connection.url, headers, body)
            model = ask and self.service.at_hand(ask.name, ask.version)
            if ask is None or model is None or STAMP in ask.columns:  # a file to be loaded, or readings
                return None
            prepared = model.prepare(ask.columns)
            entry.let_in()
        except Exception:  # noqa: BLE001 - whatever it is, the ordinary way tells of it
            return None
        short = Short(self, connection, entry, ask, model)
        self.service.put(model, prepared, short)
        return short

    def post(self, short: "Short") -> None:
        """Send an answer, with all others of this turn of the loop.

        They are sent one right after the other, before they are told of: a client that sleeps is woken once, and not
        by each, which costs more than an answer's own way through the kernel.
        """
        if not self._answered:
            asyncio.get_running_loop().call_soon(self._send)
        self._answered.append(short)

    def _send(self) -> None:
        answered, self._answered = self._answered, []
        for short in answered:
            short.send()
        for short in answered:
            short.end()


class Ask(NamedTuple):
    """What a request asks."""

    name: str
    """What it calls the model."""
    version: str
    columns: Columns
    answer: Callable[[Model, Outputs], tuple[bytes, int | None]]
    """The body of the answer, and where its JSON ends if binary data follow."""


def _asking(url: bytes) -> bool:
    return (_INFER.fullmatch(url) or _SCORE.fullmatch(url)) is not None


def _asked(url: bytes, headers: dict[bytes, bytes], body: bytes) -> Ask | None:
    """What a request asks; None where it is more than scores of columns.

    Raises:
        RefusedError: its body is not what its address is for.
    """
    if found := _INFER.fullmatch(url):
        name, version = (part.decode() for part in found.groups(b""))
        request, columns = protocol.parse(body, headers.get(http.JSON_BYTES))
        return Ask(
            name, version, columns, lambda model, outputs: protocol.answer(request, name, model.version, outputs)
        )
    if found := _SCORE.fullmatch(url):
        call = form.parse(body)
        called = found[1].decode() if found[1] else call.model_name
        given = form.columns(call.data)
        if given is not None and called is not msgspec.UNSET:
            return Ask(
                called, "", given,
                lambda model, outputs: (form.answer(called, model, model.results(given, outputs), call.id), None),
            )  # fmt: skip
    return None


class Short:
    """A request on the short way: to uvicorn one of its cycles, to the batcher who asked."""

    def __init__(self, lane: Shortcut, connection: HttpToolsProtocol, entry: Entry, ask: Ask, model: Model) -> None:
        self.response_complete = self.disconnected = False
        self.keep_alive = connection.parser.should_keep_alive()
        self.message_event = _NOBODY
        self._lane, self._connection, self._entry = lane, connection, entry
        self._ask, self._model = ask, model
        self._status = 0
        self._answer = b""
        entry.gate.at_work += 1

    def done(self) -> bool:
        """Whether there is an answer."""
        return bool(self._status)

    def set_result(self, found: Outputs) -> None:
        """Answer with outputs."""
        token = trace.current.set(self._entry.context)
        try:
            self._lane.service.told(self._model, self._ask.columns, found)
            content, json = self._ask.answer(self._model, found)
            if json is None:
                self._reply(200, content, http.JSON)
            else:
                self._reply(200, content, http.BINARY, [(http.JSON_BYTES, b"%d" % json)])
        except Exception as error:  # noqa: BLE001 - who else waits is to be answered
            self.set_exception(error)
        finally:
            trace.current.reset(token)

    def set_exception(self, error: BaseException) -> None:
        """Answer with what went wrong."""
        if isinstance(error, RefusedError):
            self._reply(error.status, http.fault(str(error)), http.JSON, http.later(error))
        else:
            log.error("An answer failed", exc_info=error, extra={"fields": {"route": self._entry.route()}})
            self._entry.gate.meters.rejected.labels("failed").inc()
            self._reply(500, http.fault(FAILED), http.JSON)

    def _reply(self, status: int, content: bytes, kind: bytes, extra: Headers = []) -> None:  # noqa: B006 - nobody adds
        given = [*self._connection.server_state.default_headers, (b"content-type", kind)]
        given += [(b"content-length", b"%d" % len(content)), *extra]
        given.append((b"x-request-id", self._entry.context.request_id.encode()))
        self.keep_alive = self.keep_alive and not self._entry.gate.draining
        common = _common(self._entry.scope["scheme"], last=not self.keep_alive)
        self._answer = b"".join((STATUS_LINE[status], _lines(given), common, content))
        self._status = status
        self._lane.post(self)

    def send(self) -> None:
        """Write the answer."""
        self.response_complete = True
        self._entry.gate.at_work -= 1
        transport = self._connection.transport
        if not transport.is_closing():
            transport.write(self._answer)
            if not self.keep_alive:
                transport.close()

    def end(self) -> None:
        """Let the connection go on, and tell of the request."""
        self._connection.on_response_complete()
        self._entry.tell(self._status)


@lru_cache(maxsize=4)
def _common(scheme: str, *, last: bool) -> bytes:
    """The end of an answer's headers."""
    return _lines(common({}, https=scheme == "https", last=last)) + b"\r\n"


def _lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])
