"""The gate of gRPC: the keys, scopes and limits of HTTP, for calls; the key is in ``authorization`` of their metadata.

A message has as long to come as a body over HTTP, so every call is taken as one that may stream: a client who sends
nothing, or what is no message, is told so.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError

from serving.access import bearer
from serving.gate import Gate
from serving.keys import Scope
from serving.trace import current

OPEN = frozenset({"ServerLive", "ServerReady"})
"""Calls of probes."""
_SCOPES = {
    "ModelInfer": Scope.SCORE,
    "ServerMetadata": Scope.READ,
    "ModelReady": Scope.READ,
    "ModelMetadata": Scope.READ,
    "RepositoryIndex": Scope.READ,
}
"""Every other call needs ``admin``."""
_AGAIN = (("grpc-retry-pushback-ms", "1000"),)
"""When to try again, as gRPC's clients know it (gRFC A6)."""
_PASSING = frozenset({"rate", "concurrency", "draining"})
Continue = Callable[[Any], Awaitable[Any]]


class Fault(NamedTuple):
    """How a call is refused."""

    code: grpc.StatusCode
    reason: str
    """For the metrics."""
    message: str


class KeyInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpcio is without types
    """Refuses calls that ``Gate`` would refuse over HTTP; without keys it lets everybody in."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def intercept_service(self, continuation: Continue, details: Any) -> Any:
        """The handler of a call, or one that refuses it."""
        handler = await continuation(details)
        metadata = {name: _bytes(value) for name, value in details.invocation_metadata or ()}
        call = _Call(self._gate, details.method.rpartition("/")[2], metadata, handler)
        if handler is None:
            return handler if call.key_fault() is None else grpc.stream_unary_rpc_method_handler(call.run)
        return grpc.stream_unary_rpc_method_handler(call.run, handler.request_deserializer, handler.response_serializer)


@dataclass(slots=True)
class _Call:
    """One call."""

    gate: Gate
    name: str
    metadata: dict[str, bytes]
    handler: Any
    """What answers; None where there is no such call."""
    caller: str = ""
    """For its rate."""

    async def run(self, _: Any, context: Any) -> Any:
        """Answer, or refuse."""
        if fault := self.key_fault() or self._limit(context.peer()):
            await self._refuse(context, fault)
        return await self._answer(context)

    def key_fault(self) -> Fault | None:
        """What is wrong with the call's key, None where nothing is; its name is told of in the log."""
        spec = self.gate.spec
        if spec.keys is None or self.name in OPEN:
            return None
        given = bearer(self.metadata.get("authorization"))
        if given is None:
            message = "This call needs a key as `authorization: Bearer KEY`."
            return Fault(grpc.StatusCode.UNAUTHENTICATED, "key", message)
        key = spec.keys.find(given, spec.now())
        if key is None:
            return Fault(grpc.StatusCode.UNAUTHENTICATED, "key", "The key is not known, or is revoked or expired.")
        self.caller = key.id
        if context := current.get():
            context.key = key.name
        scope = _SCOPES.get(self.name, Scope.ADMIN)
        if not key.may(scope):
            message = f"This call needs a key with the scope {scope}."
            return Fault(grpc.StatusCode.PERMISSION_DENIED, "scope", message)
        return None

    def _limit(self, peer: str) -> Fault | None:
        """What of the limits a call is beyond."""
        gate = self.gate
        if self.name in OPEN:
            return None
        if gate.closing:  # what comes while the server stops would be cancelled without a word
            return Fault(grpc.StatusCode.UNAVAILABLE, "draining", "The service leaves; ask another one.")
        wait = gate.buckets.take(self.caller or f"@{address(peer)}", gate.spec.clock()) if gate.buckets else 0.0
        if wait:
            message = f"Too many requests of this caller; try again in {ceil(wait)} s."
            return Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "rate", message)
        if gate.at_work >= gate.spec.limits.concurrency:
            return Fault(grpc.StatusCode.UNAVAILABLE, "concurrency", "The service is busy.")
        return None

    async def _answer(self, context: Any) -> Any:
        limits = self.gate.spec.limits
        self.gate.at_work += 1
        limit = asyncio.timeout(limits.request_s)
        try:
            message = await self._message(context, limits.body_s)
            async with limit:
                return await self.handler.unary_unary(message, context)
        except TimeoutError:
            if not limit.expired():
                raise
            text = f"No answer within {limits.request_s:g} s."
            await self._refuse(context, Fault(grpc.StatusCode.DEADLINE_EXCEEDED, "timeout", text))
        finally:
            self.gate.at_work -= 1

    async def _message(self, context: Any, within_s: float) -> Any:
        fault = Fault(grpc.StatusCode.INVALID_ARGUMENT, "body", "The call has no message.")
        try:
            async with asyncio.timeout(within_s):
                message = await context.read()
        except TimeoutError:
            fault = Fault(grpc.StatusCode.DEADLINE_EXCEEDED, "slow", "The message came too slowly.")
        except DecodeError:
            fault = Fault(grpc.StatusCode.INVALID_ARGUMENT, "body", "The message is none of this call.")
        else:
            if message is not grpc.aio.EOF:
                return message
        return await self._refuse(context, fault)

    async def _refuse(self, context: Any, fault: Fault) -> None:
        self.gate.meters.rejected.labels(fault.reason).inc()
        trailing = _AGAIN if fault.reason in _PASSING else ()
        await context.abort(fault.code, fault.message, (*(context.trailing_metadata() or ()), *trailing))


def address(peer: str) -> str:
    """A caller's address, as HTTP has it.

    >>> address("ipv4:10.0.0.7:5031"), address("ipv6:%5B::1%5D:5031"), address("unix:/run/x")
    ('10.0.0.7', '::1', 'unix:/run/x')
    """
    scheme, _, rest = peer.partition(":")
    return unquote(rest.rpartition(":")[0]).strip("[]") if scheme in {"ipv4", "ipv6"} else peer


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "replace")
