"""Calls of gRPC, told of as requests over HTTP are: the same meters and log lines.

A call is a POST to its method's path, over HTTP/2; its code is counted as the status that stands for it in HTTP
(``google/rpc/code.proto``), so that one rule of Prometheus watches both. ``x-request-id`` and ``traceparent`` come in a
call's metadata; the id goes back in the trailing metadata.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from serving import trace
from serving.gate import Gate, requests_log
from serving.grpc import CALLS, SERVICE
from serving.meters import OTHER

Code = grpc.StatusCode
Behaviour = Callable[[Any, Any], Awaitable[Any]]
STATUS = {
    Code.OK: 200, Code.INVALID_ARGUMENT: 400, Code.UNAUTHENTICATED: 401, Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404, Code.RESOURCE_EXHAUSTED: 429, Code.CANCELLED: 499, Code.UNKNOWN: 500, Code.INTERNAL: 500,
    Code.UNIMPLEMENTED: 501, Code.UNAVAILABLE: 503, Code.DEADLINE_EXCEEDED: 504,
}  # fmt: skip
"""What the codes that there are here mean in HTTP."""
REQUEST_ID = "x-request-id"
_ROUTES = frozenset(f"/{SERVICE}/{name}" for name in CALLS)
_CODES = {code.value[0]: code for code in Code}


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpcio is without types
    """Before ``KeyInterceptor``: whatever it and the call itself say is counted and logged."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """The handler of a call, told of when it has answered."""
        metadata = {name: value for name, value in details.invocation_metadata or () if isinstance(value, str)}
        given = {name: metadata[name].encode() for name in (REQUEST_ID, "traceparent") if name in metadata}
        context = trace.Context.of(given.get(REQUEST_ID), given.get("traceparent"))
        trace.current.set(context)
        told = _Told(self._gate, context, details.method)
        handler = await continuation(details)
        if handler is None:
            told.end(Code.UNIMPLEMENTED)
            return None
        return grpc.stream_unary_rpc_method_handler(
            told.around(handler.stream_unary), handler.request_deserializer, handler.response_serializer
        )


class _Told:
    """One call."""

    def __init__(self, gate: Gate, context: trace.Context, method: str) -> None:
        self._gate = gate
        self._context = context
        self._method = method
        self._started = gate.spec.clock()

    def around(self, behaviour: Behaviour) -> Behaviour:
        """What a handler does, and the end of it told."""

        async def behave(messages: Any, context: Any) -> Any:
            trace.current.set(self._context)
            context.set_trailing_metadata(((REQUEST_ID, self._context.request_id),))
            try:
                return await behaviour(messages, context)
            except grpc.aio.AbortError:
                raise
            except BaseException as error:
                context.set_code(Code.CANCELLED if isinstance(error, asyncio.CancelledError) else Code.UNKNOWN)
                raise
            finally:
                self.end(_code(context.code()))

        return behave

    def end(self, code: Any) -> None:
        """Count the call, and log its line: never its tensors or metadata."""
        route = self._method if self._method in _ROUTES else OTHER
        status, seconds = STATUS.get(code, 500), self._gate.spec.clock() - self._started
        self._gate.meters.answered("POST", route, status, seconds)
        if requests_log.isEnabledFor(logging.INFO):
            fields = {
                "method": "POST",
                "route": route,
                "status": status,
                "code": code.name,
                "ms": round(seconds * 1000, 3),
                "key": self._context.key,
            }
            trace.tell(requests_log, "request", fields, self._context)


def _code(given: Any) -> Any:
    """What a context says of how its call ended, which is a number in one place and the code itself in another."""
    return given if isinstance(given, Code) else _CODES[given or 0]
