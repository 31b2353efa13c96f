"""The gate of gRPC: the same keys, scopes and rates as over HTTP, in ``authorization`` of a call's metadata."""

from collections.abc import Awaitable, Callable
from math import ceil
from typing import Any

import grpc

from serving.access import bearer
from serving.guard import Gate
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
Continue = Callable[[Any], Awaitable[Any]]
Fault = tuple[grpc.StatusCode, str, str]
"""Code, reason for the metrics, message."""


class KeyInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpcio is without types
    """Refuses calls that ``Gate`` would refuse over HTTP; without keys it lets everything in."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def intercept_service(self, continuation: Continue, details: Any) -> Any:
        """The handler of a call, or one that refuses it."""
        call = details.method.rpartition("/")[2]
        fault = self._leaving(call) or self._fault(call, dict(details.invocation_metadata or ()))
        if fault is None:
            return await continuation(details)
        code, reason, message = fault
        self._gate.meters.rejected.labels(reason).inc()

        async def refuse(_: Any, context: Any) -> None:
            await context.abort(code, message)

        return grpc.unary_unary_rpc_method_handler(refuse)

    def _leaving(self, call: str) -> Fault | None:
        if self._gate.draining and call == "ServerReady":
            return grpc.StatusCode.UNAVAILABLE, "draining", "The service is leaving."
        return None

    def _fault(self, call: str, metadata: dict[str, Any]) -> Fault | None:
        spec = self._gate.spec
        if spec.keys is None or call in OPEN:
            return None
        given = bearer(str(metadata.get("authorization", "")).encode("utf-8", "replace"))
        if given is None:
            return (
                grpc.StatusCode.UNAUTHENTICATED,
                "key",
                "This call needs a key as `authorization: Bearer KEY`.",
            )
        key = spec.keys.find(given, spec.now())
        if key is None:
            return grpc.StatusCode.UNAUTHENTICATED, "key", "The key is not known, or is revoked or expired."
        if context := current.get():
            context.key = key.name
        scope = _SCOPES.get(call, Scope.ADMIN)
        if not key.may(scope):
            return grpc.StatusCode.PERMISSION_DENIED, "scope", f"This call needs a key with the scope {scope}."
        buckets = self._gate.buckets
        if buckets and (wait := buckets.take(key.id, spec.clock())):
            message = f"Too many requests of this caller; try again in {ceil(wait)} s."
            return grpc.StatusCode.RESOURCE_EXHAUSTED, "rate", message
        return None
