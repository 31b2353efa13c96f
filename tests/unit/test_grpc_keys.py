"""gRPC asks for the same keys and scopes as HTTP, and has its limits, over a real channel."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import DecodeError

from serving.gate import Gate, GuardSpec
from serving.grpckeys import KeyInterceptor
from serving.keys import KeyFile, Ring, Scope
from serving.limits import Limits

CALLS = ("ServerLive", "ModelInfer", "ModelMetadata", "RepositoryModelLoad")
UNKNOWN, DENIED, SPENT = "UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"


async def echo(request: bytes, _: Any) -> bytes:
    return request


def played(gate: Gate, play: Callable[[grpc.aio.Channel], Awaitable[Any]], behaviour: Any = echo) -> Any:
    """What comes of a channel to a server behind a gate."""

    async def run() -> Any:
        server = grpc.aio.server(
            interceptors=(KeyInterceptor(gate),), options=[("grpc.max_receive_message_length", 99)]
        )
        methods = {name: grpc.unary_unary_rpc_method_handler(behaviour, _message) for name in CALLS}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            found = await play(channel)
        await server.stop(None)
        return found

    return asyncio.run(run())


def _message(data: bytes) -> bytes:
    if data == b"none":
        raise DecodeError
    return data


def path(name: str) -> str:
    return f"/inference.GRPCInferenceService/{name}"


def answers(gate: Gate, header: str | None, *calls: str) -> list[str]:
    """How calls end, by the name of their code."""

    async def play(channel: grpc.aio.Channel) -> list[str]:
        metadata = () if header is None else (("authorization", header),)
        return [(await channel.unary_unary(path(name))(b"x", metadata=metadata).code()).name for name in calls]

    found: list[str] = played(gate, play)
    return found


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


def test_without_keys_an_address_has_a_rate() -> None:
    made = Gate(GuardSpec(limits=Limits(rate=0.001, burst=1)))

    assert answers(made, None, "ModelInfer", "ModelInfer", "ServerLive") == ["OK", SPENT, "OK"]


def test_calls_that_are_none_are_refused_to_strangers_and_unknown_to_others(file: KeyFile) -> None:
    _, token = file.create("a", [Scope.ADMIN], now=1.0)
    made = gate(file)

    assert answers(made, None, "Nothing") == [UNKNOWN]
    assert answers(made, f"Bearer {token}", "Nothing") == ["UNIMPLEMENTED"]


def test_a_message_that_does_not_come_or_is_none_is_told() -> None:
    made = Gate(GuardSpec(limits=Limits(body_s=0.05)))

    async def nothing() -> AsyncIterator[bytes]:
        for message in list[bytes]():
            yield message

    async def play(channel: grpc.aio.Channel) -> list[str]:
        stream = channel.stream_unary(path("ModelInfer"))
        silent = stream()
        calls = [
            silent,
            stream(nothing()),
            *(channel.unary_unary(path("ModelInfer"))(it) for it in (b"none", b"x" * 100)),
        ]
        return [(await call.code()).name for call in calls]

    assert played(made, play) == ["DEADLINE_EXCEEDED", "INVALID_ARGUMENT", "INVALID_ARGUMENT", SPENT]
    assert made.at_work == 0


def test_a_stranger_who_sends_nothing_is_refused_at_once(file: KeyFile) -> None:
    async def play(channel: grpc.aio.Channel) -> str:
        return str((await channel.stream_unary(path("ModelInfer"))().code()).name)

    assert played(gate(file, body_s=1000), play) == UNKNOWN


def test_more_calls_than_may_be_at_work_are_told_when_to_come_again() -> None:
    made = Gate(GuardSpec(limits=Limits(concurrency=1, request_s=0.2)))

    async def stuck(_: bytes, __: Any) -> None:
        await asyncio.Event().wait()

    async def play(channel: grpc.aio.Channel) -> tuple[str, str, dict[str, str]]:
        first = channel.unary_unary(path("ModelInfer"))(b"x")
        while not made.at_work:  # noqa: ASYNC110 - the code under test has no event for it
            await asyncio.sleep(0.01)
        second = channel.unary_unary(path("ModelInfer"))(b"x")
        code = await second.code()
        return (await first.code()).name, code.name, dict(await second.trailing_metadata())

    late, busy, told = played(made, play, stuck)

    assert (late, busy) == ("DEADLINE_EXCEEDED", "UNAVAILABLE")
    assert told["grpc-retry-pushback-ms"] == "1000"
    assert made.at_work == 0


def test_calls_are_sent_elsewhere_once_the_notice_is_over() -> None:
    made = Gate(GuardSpec())
    made.drain()
    during = answers(made, None, "ModelInfer")
    made.closing = True

    assert during == ["OK"]
    assert answers(made, None, "ModelInfer", "ServerLive") == ["UNAVAILABLE", "OK"]
