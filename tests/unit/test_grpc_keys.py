"""gRPC asks for the same keys and scopes as HTTP, over a real channel."""

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.grpckeys import KeyInterceptor
from serving.guard import Gate, GuardSpec
from serving.keys import KeyFile, Ring, Scope
from serving.limits import Limits

CALLS = ("ServerLive", "ModelInfer", "ModelMetadata", "RepositoryModelLoad")
UNKNOWN, DENIED, SPENT = "UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"


async def echo(request: bytes, _: Any) -> bytes:
    return request


def answers(gate: Gate, header: str | None, *calls: str) -> list[str]:
    """How calls end, by the name of their code."""

    async def run() -> list[str]:
        server = grpc.aio.server(interceptors=(KeyInterceptor(gate),))
        methods = {name: grpc.unary_unary_rpc_method_handler(echo) for name in CALLS}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        found = []
        metadata = () if header is None else (("authorization", header),)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for name in calls:
                call = channel.unary_unary(f"/inference.GRPCInferenceService/{name}")(b"x", metadata=metadata)
                found.append((await call.code()).name)
        await server.stop(None)
        return found

    return asyncio.run(run())


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


def gate(file: KeyFile, **limits: Any) -> Gate:
    return Gate(GuardSpec(Ring(file.path, time.monotonic), Limits(**limits)))


def test_calls_need_a_key_of_the_right_scope(file: KeyFile) -> None:
    tokens = {scope: file.create(scope.value, [scope], now=1.0)[1] for scope in Scope}
    made = gate(file)

    assert answers(made, None, *CALLS) == ["OK", UNKNOWN, UNKNOWN, UNKNOWN]
    assert answers(made, "Bearer tw_wrong", *CALLS) == ["OK", UNKNOWN, UNKNOWN, UNKNOWN]
    assert answers(made, f"Bearer {tokens[Scope.READ]}", *CALLS) == ["OK", DENIED, "OK", DENIED]
    assert answers(made, f"Bearer {tokens[Scope.SCORE]}", *CALLS) == ["OK", "OK", DENIED, DENIED]
    assert answers(made, f"Bearer {tokens[Scope.ADMIN]}", *CALLS) == ["OK"] * 4


def test_a_key_has_one_rate_over_both_protocols(file: KeyFile) -> None:
    _, token = file.create("a", [Scope.SCORE], now=1.0)

    assert answers(gate(file, rate=0.001, burst=1), f"Bearer {token}", "ModelInfer", "ModelInfer") == ["OK", SPENT]


def test_without_keys_everybody_is_let_in() -> None:
    assert answers(Gate(GuardSpec()), None, *CALLS) == ["OK"] * 4
