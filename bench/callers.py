"""Callers of a service that go on while its models change and until it has left, and say how each request ended.

As a load balancer would see it: a request is *answered*; or the caller is *told* to go elsewhere, as its connection is
refused, or as a 503 with ``Retry-After`` (over gRPC UNAVAILABLE with ``grpc-retry-pushback-ms``) comes once the service
has said that it is not ready; all else has *failed*.
Nobody here stops at the first sign of leaving: they go on until there is nobody to connect to.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, NamedTuple

import grpc
import httptools
import msgspec
import numpy as np

from scorers.statistics import Floats
from serving.grpc import SERVICE, messages

HOST = "127.0.0.1"
PAUSE_S = 0.02
"""Those that pause between requests do so for less."""
SLOW_S = 1.0
"""Those that are slow take so long to send a body."""
_PROBE_S = 0.1
_PATIENCE_S = 60.0
_READY = "/v2/health/ready"


class Question(NamedTuple):
    """Rows for a model, and what each version decides of them."""

    model: str
    rows: Floats
    decisions: Mapping[str, Floats]

    def body(self) -> bytes:
        """As JSON."""
        tensor = {"name": "features", "datatype": "FP64", "shape": list(self.rows.shape)}
        inputs = [tensor | {"data": self.rows.ravel().tolist()}]
        return msgspec.json.encode({"inputs": inputs, "outputs": [{"name": "decision"}]})


@dataclass
class Tally:
    """How requests ended so far."""

    answered: Counter[str] = field(default_factory=Counter)
    """By kind of caller."""
    told: Counter[str] = field(default_factory=Counter)
    """By how."""
    failed: Counter[str] = field(default_factory=Counter)
    """By what came in the place of an answer."""
    versions: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    """Seconds of each that was answered."""
    leaving: bool = False
    """Whether the service has said that it is not ready."""

    def answer(self, kind: str, question: Question, version: str, decisions: Any, began: float) -> None:
        """Take an answer, if it is what the version that it names decides."""
        known = question.decisions.get(version)
        if known is None or not np.allclose(decisions, known, rtol=0, atol=1e-9):
            self.failed[f"{kind}: an answer that is not of version {version}"] += 1
            return
        self.latencies.append(time.perf_counter() - began)
        self.answered[kind] += 1
        self.versions[version] += 1


class _Output(msgspec.Struct):
    data: list[float]


class _Answer(msgspec.Struct):
    model_version: str
    outputs: list[_Output]


_decode = msgspec.json.Decoder(_Answer).decode


class _Reply(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes
    goes_on: bool


class Connection(asyncio.Protocol):
    """One connection of HTTP/1.1; a request at a time."""

    def __init__(self) -> None:
        self.open = True
        self._reply: asyncio.Future[_Reply] | None = None
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._body = b""

    async def ask(self, head: bytes, body: bytes, slow_s: float = 0.0) -> _Reply:
        """The answer to a request.

        Raises:
            ConnectionError: the connection ended without one.
        """
        reply: asyncio.Future[_Reply] = asyncio.get_running_loop().create_future()
        self._reply = reply
        if slow_s:
            self._transport.write(head + body[: len(body) // 2])
            await asyncio.sleep(slow_s)
            self._transport.write(body[len(body) // 2 :])
        else:
            self._transport.write(head + body)
        async with asyncio.timeout(_PATIENCE_S):
            return await reply

    def close(self) -> None:
        """End it."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # of a stream

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side has ended it."""
        self.open = False
        if self._reply and not self._reply.done():
            self._reply.set_exception(exc or ConnectionResetError("closed without an answer"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """An answer is whole."""
        told = _Reply(self._parser.get_status_code(), self._headers, self._body, self._parser.should_keep_alive())
        self._reset()
        if self._reply and not self._reply.done():
            self._reply.set_result(told)


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who asks over HTTP, again and again: with pauses, or slow to send what he asks."""

    kind: str
    port: int
    questions: Sequence[Question]
    pause_s: float = 0.0
    slow_s: float = 0.0

    async def go_on(self, tally: Tally) -> None:
        """Until there is nobody to connect to."""
        asked = cycle([(question, *self._request(question)) for question in self.questions])
        await asyncio.sleep(random.uniform(0, self.pause_s))  # noqa: S311 - no secret
        while (connection := await _connect(self.port)) is not None:
            while connection.open:
                question, head, body = next(asked)
                began = time.perf_counter()
                try:
                    reply = await connection.ask(head, body, self.slow_s)
                except (OSError, TimeoutError) as error:
                    tally.failed[f"{self.kind}: {error or type(error).__name__}"] += 1
                    break
                self._take(reply, question, began, tally)
                if not reply.goes_on:
                    break
                if self.pause_s:
                    await asyncio.sleep(random.uniform(0, self.pause_s))  # noqa: S311 - no secret
            connection.close()
        tally.told["connection refused"] += 1

    def _take(self, reply: _Reply, question: Question, began: float, tally: Tally) -> None:
        if reply.status == 200:  # noqa: PLR2004 - of HTTP
            answer = _decode(reply.body)
            tally.answer(self.kind, question, answer.model_version, answer.outputs[0].data, began)
        elif reply.status == 503 and tally.leaving and b"retry-after" in reply.headers:  # noqa: PLR2004
            tally.told["503 and Retry-After"] += 1
        else:
            tally.failed[f"{self.kind}: status {reply.status}"] += 1

    def _request(self, question: Question) -> tuple[bytes, bytes]:
        body = question.body()
        path = f"/v2/models/{question.model}/infer"
        head = f"POST {path} HTTP/1.1\r\nHost: {HOST}:{self.port}\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode(), body


async def _connect(port: int) -> Connection | None:
    """A connection; None where it is refused."""
    try:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, HOST, port)
    except ConnectionRefusedError:
        return None
    return connection


async def probe(port: int, tally: Tally) -> None:
    """Ask whether the service is ready, as a balancer does, until there is nobody to connect to."""
    head = f"GET {_READY} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n".encode()
    while (connection := await _connect(port)) is not None:
        try:
            reply = await connection.ask(head, b"")
        except OSError as error:
            tally.failed[f"probe: {error}"] += 1
        else:
            tally.leaving |= reply.status == 503  # noqa: PLR2004 - of HTTP
        connection.close()
        await asyncio.sleep(_PROBE_S)


@dataclass(frozen=True, slots=True)
class GrpcCaller:
    """Somebody who asks over gRPC, on a connection of his own."""

    kind: str
    port: int
    questions: Sequence[Question]

    async def go_on(self, tally: Tally) -> None:
        """Until there is nobody to connect to."""
        known = messages()
        asked = cycle([(question, _message(known, question)) for question in self.questions])
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        async with grpc.aio.insecure_channel(f"{HOST}:{self.port}", options) as channel:
            call: Callable[..., Any] = channel.unary_unary(
                f"/{SERVICE}/ModelInfer", lambda it: it.SerializeToString(), known["ModelInferResponse"].FromString
            )
            while True:
                question, message = next(asked)
                began = time.perf_counter()
                try:
                    reply = await call(message, timeout=_PATIENCE_S)
                except grpc.aio.AioRpcError as error:
                    if told := _told(error, tally):
                        tally.told[told] += 1
                        return
                    tally.failed[f"{self.kind}: {error.code().name}: {error.details()}"] += 1
                    continue
                decisions = np.frombuffer(reply.raw_output_contents[0])
                tally.answer(self.kind, question, reply.model_version, decisions, began)


def _told(error: grpc.aio.AioRpcError, tally: Tally) -> str | None:
    """How a caller was told to go elsewhere, if he was."""
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return None
    if "failed to connect" in (error.details() or "").lower():
        return "gRPC: connection refused"
    pushed = any(name == "grpc-retry-pushback-ms" for name, _ in error.trailing_metadata() or ())
    return "gRPC: UNAVAILABLE and when to try again" if pushed and tally.leaving else None


def _message(known: Mapping[str, Any], question: Question) -> Any:
    inputs = [{"name": "features", "datatype": "FP64", "shape": question.rows.shape}]
    return known["ModelInferRequest"](
        model_name=question.model,
        inputs=inputs,
        outputs=[{"name": "decision"}],
        raw_input_contents=[question.rows.astype("<f8").tobytes()],
    )
