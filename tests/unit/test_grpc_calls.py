"""Calls of gRPC are counted and logged as requests over HTTP are, over a real channel."""

import asyncio
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.batching import Batcher
from serving.gate import Gate, GuardSpec
from serving.grpc import SERVICE, Calls, Listener, listening, messages
from serving.grpccalls import CallInterceptor
from serving.grpckeys import KeyInterceptor
from serving.keys import KeyFile, Ring, Scope
from serving.limits import Limits
from serving.repository import Repository, Spec
from serving.service import Service
from serving.trace import JsonFormatter
from stream.partition import StreamSpec
from tests.services import fleet, put

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
Metadata = Sequence[tuple[str, str]]
Ended = tuple[str, dict[str, str]]
"""A call's code, and its trailing metadata."""


class Lines(logging.Handler):
    """Log lines as they are written, while their call is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.found: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(json.loads(self.format(record)))


@contextmanager
def logged(name: str = "serving") -> Iterator[Lines]:
    lines, logger = Lines(), logging.getLogger(name)
    before = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(lines)
        logger.setLevel(before)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    repository = Repository(Spec(put(tmp_path / "fleet.arrow", fleet())))
    return Service(repository, Batcher(0.001), StreamSpec())


def ask(service: Service, gate: Gate, calls: Sequence[tuple[str, Any]], metadata: Metadata = ()) -> list[Ended]:
    """Calls one after the other, each a name and its message, or bytes."""
    known = messages()

    async def run() -> list[Ended]:
        await service.repository.look()
        listener = Listener("127.0.0.1:0", interceptors=(CallInterceptor(gate), KeyInterceptor(gate)))
        found = []
        async with (
            listening(service, listener, "0") as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            for name, fields in calls:
                body = fields if isinstance(fields, bytes) else known[f"{name}Request"](**fields).SerializeToString()
                call = channel.unary_unary(f"/{SERVICE}/{name}")(body, metadata=metadata)
                found.append(((await call.code()).name, dict(await call.trailing_metadata() or ())))
        service.batcher.close()
        return found

    return asyncio.run(run())


def counted(gate: Gate) -> dict[tuple[str, str], float]:
    """Calls by route and status."""
    page = gate.meters.page("")[0].decode()
    return {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "tidewatch_http_requests_total"
    }


def test_calls_are_counted_by_route_and_by_the_status_that_their_code_stands_for(service: Service) -> None:
    gate = Gate(GuardSpec())
    calls = [
        ("ServerLive", {}),
        ("ModelReady", {"name": "device-0"}),
        ("ModelReady", {"name": "nobody"}),
        ("ModelInfer", {"model_name": "device-0"}),
        ("ModelInfer", b"\xff\xff nonsense"),
        ("Anything", b""),
    ]
    codes = [code for code, _ in ask(service, gate, calls)]
    page = gate.meters.page("")[0].decode()

    assert codes == ["OK", "OK", "NOT_FOUND", "INVALID_ARGUMENT", "INVALID_ARGUMENT", "UNIMPLEMENTED"]
    assert counted(gate) == {
        (f"/{SERVICE}/ServerLive", "200"): 1,
        (f"/{SERVICE}/ModelReady", "200"): 1,
        (f"/{SERVICE}/ModelReady", "404"): 1,
        (f"/{SERVICE}/ModelInfer", "400"): 2,
        ("other", "501"): 1,
    }
    assert f'tidewatch_http_request_duration_seconds_count{{method="POST",route="/{SERVICE}/ModelInfer"}} 2.0' in page
    assert gate.at_work == 0


def test_a_call_is_a_log_line_with_its_request_id_and_its_trace(service: Service) -> None:
    metadata = (("x-request-id", "order-66"), ("traceparent", f"00-{TRACE}-{PARENT}-01"))
    with logged() as lines:
        (_, trailing), _ = ask(
            service, Gate(GuardSpec()), [("ModelReady", {"name": "device-0"}), ("ModelReady", {"name": "x"})], metadata
        )
    first, second = (line for line in lines.found if line["logger"] == "serving.requests")

    assert trailing["x-request-id"] == "order-66"
    assert {name: first[name] for name in ("method", "route", "status", "code", "request_id", "trace_id", "key")} == {
        "method": "POST",
        "route": f"/{SERVICE}/ModelReady",
        "status": 200,
        "code": "OK",
        "request_id": "order-66",
        "trace_id": TRACE,
        "key": None,
    }
    assert first["ms"] >= 0
    assert first["span_id"] != PARENT
    assert (second["status"], second["code"]) == (404, "NOT_FOUND")


def test_an_id_that_is_not_sane_is_replaced(service: Service) -> None:
    found = ask(service, Gate(GuardSpec()), [("ServerLive", {})] * 2, (("x-request-id", "a b"), ("traceparent", "x")))
    first, second = (trailing["x-request-id"] for _, trailing in found)

    assert len(first) == len(second) == 16
    assert first != second


def test_what_goes_wrong_within_a_call_is_logged_as_of_it(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("s3cret")

    monkeypatch.setattr(service.repository, "index", broken)
    gate = Gate(GuardSpec())
    with logged() as lines:
        ((code, _),) = ask(service, gate, [("RepositoryIndex", {})], (("x-request-id", "order-66"),))
    fault = next(line for line in lines.found if "exception" in line)

    assert code == "INTERNAL"
    assert fault["request_id"] == "order-66"
    assert counted(gate) == {(f"/{SERVICE}/RepositoryIndex", "500"): 1}


def test_refusals_are_told_too_and_keys_by_name_alone(service: Service, tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    _, token = file.create("gateway", [Scope.READ], now=1.0)
    gate = Gate(GuardSpec(Ring(file.path, time.monotonic)))
    calls = [("ModelReady", {"name": "device-0"}), ("RepositoryModelLoad", {"model_name": "fleet"})]
    with logged() as lines:
        refused = [code for code, _ in ask(service, gate, [*calls, ("Anything", b"")])]
        service.batcher = Batcher(0.001)
        known = [code for code, _ in ask(service, gate, calls, (("authorization", f"Bearer {token}"),))]
    told = [(line["status"], line["key"]) for line in lines.found if line["logger"] == "serving.requests"]

    assert refused == ["UNAUTHENTICATED"] * 3
    assert known == ["OK", "PERMISSION_DENIED"]
    assert told == [(401, None), (401, None), (401, None), (200, "gateway"), (403, "gateway")]
    assert token not in json.dumps(lines.found)
    assert ("other", "401") in counted(gate), "labels take few values, whatever is called"


def test_too_many_at_work_are_refused_and_probes_are_not(service: Service) -> None:
    gate = Gate(GuardSpec(limits=Limits(concurrency=1)))
    gate.at_work = 1
    codes = [code for code, _ in ask(service, gate, [("ServerLive", {}), ("ModelReady", {"name": "device-0"})])]

    assert codes == ["OK", "UNAVAILABLE"]
    assert 'tidewatch_http_rejected_total{reason="concurrency"} 1.0' in gate.meters.page("")[0].decode()


def test_a_service_that_leaves_is_not_ready_and_answers(service: Service) -> None:
    service.leave()
    codes = [code for code, _ in ask(service, Gate(GuardSpec()), [("ModelReady", {"name": "device-0"})])]
    ready = asyncio.run(Calls(service, "0").ServerReady(None))

    assert codes == ["OK"]
    assert ready == {"ready": False}
