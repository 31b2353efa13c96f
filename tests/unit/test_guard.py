"""The gate refuses what it must, lets through what it may, and tells nothing that is nobody's business."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import StreamingResponse

from serving.gate import Gate, GuardSpec
from serving.guard import guard
from serving.keys import KeyFile, Ring, Scope
from serving.limits import Limits
from serving.trace import JsonFormatter, current

NOW = 1_700_000_000.0
BASE = "http://localhost"


class Site:
    """A bare app behind a gate, and its keys."""

    def __init__(self, folder: Path, *, keyed: bool = True, **options: Any) -> None:
        self.file = KeyFile(folder / "keys.json")
        self.tokens = {scope: self.file.create(scope.value, [scope], now=NOW)[1] for scope in Scope}
        self.now = 0.0
        ring = Ring(self.file.path, self.clock) if keyed else None
        self.app = app()
        self.gate = guard(self.app, GuardSpec(keys=ring, clock=self.clock, now=lambda: NOW, **options))

    def clock(self) -> float:
        return self.now

    def client(self, scope: Scope | None = None) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.tokens[scope]}"} if scope else {}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url=BASE, headers=headers)

    def ask(self, method: str, path: str, scope: Scope | None = None, **options: Any) -> httpx.Response:
        """One request."""

        async def run() -> httpx.Response:
            async with self.client(scope) as client:
                return await client.request(method, path, **options)

        return asyncio.run(run())


def app() -> FastAPI:
    made = FastAPI()

    @made.get("/devices/{device}")
    async def device(device: str) -> dict[str, str | None]:
        context = current.get()
        return {"device": device, "trace": context.trace.header() if context else None}

    @made.post("/v2/models/{name}/infer")
    async def infer(name: str, request: Request) -> dict[str, int | str]:
        return {"name": name, "bytes": len(await request.body())}

    @made.post("/v2/models/{name}/parsed")
    async def parsed(name: str, body: dict[str, Any]) -> dict[str, int | str]:
        return {"name": name, "fields": len(body)}

    @made.post("/v2/repository/models/{name}/load")
    async def load(name: str) -> str:
        return name

    @made.get("/v2/health/ready")
    async def ready() -> None:
        """For probes."""

    @made.get("/broken")
    async def broken() -> None:
        raise RuntimeError("s3cret")

    @made.get("/slow")
    async def slow() -> None:
        await asyncio.Event().wait()

    @made.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(numbers())

    return made


async def numbers() -> AsyncIterator[bytes]:
    yield b"1"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Every line that is logged, as JSON."""
    held: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            held.append(JsonFormatter().format(record))

    caplog.set_level(logging.INFO, "serving")
    handler = Keep()
    logging.getLogger("serving").addHandler(handler)
    yield held
    logging.getLogger("serving").removeHandler(handler)


def error(answer: httpx.Response) -> str:
    return str(answer.json()["error"])


def test_no_key_is_401(site: Site) -> None:
    answer = site.ask("GET", "/devices/a")

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer" in error(answer)


@pytest.mark.parametrize("header", ["Bearer tw_wrong", "Basic eDp5", "Bearer ", "tw_x", "Bearer \xff\xfe"])
def test_a_wrong_key_is_401(site: Site, header: str) -> None:
    assert site.ask("GET", "/devices/a", headers={"authorization": header.encode("latin-1")}).status_code == 401


def test_a_revoked_key_is_401_within_seconds(site: Site) -> None:
    assert site.ask("GET", "/devices/a", Scope.READ).status_code == 200

    site.file.revoke("read", now=NOW)
    site.now += 2

    answer = site.ask("GET", "/devices/a", Scope.READ)

    assert answer.status_code == 401
    assert "invalid_token" in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/devices/a", {Scope.READ, Scope.ADMIN}),
        ("POST", "/v2/models/m/infer", {Scope.SCORE, Scope.ADMIN}),
        ("POST", "/v2/repository/models/m/load", {Scope.ADMIN}),
        ("GET", "/metrics", {Scope.READ, Scope.ADMIN}),
        ("PUT", "/nowhere", {*Scope}),
        ("TRACE", "/devices/a", {*Scope}),
    ],
)
def test_a_wrong_scope_is_403(site: Site, method: str, path: str, allowed: set[Scope]) -> None:
    found = {scope for scope in Scope if site.ask(method, path, scope).status_code != 403}

    assert found == allowed


@pytest.mark.parametrize("query", ["api_key={}", "x={}", "a=1&token=abc", "x=%74w_" + "a" * 43, "KEY=1"])
def test_a_key_in_a_url_is_refused_and_never_logged(site: Site, lines: list[str], query: str) -> None:
    token = site.tokens[Scope.READ]
    answer = site.ask("GET", f"/devices/a?{query.format(token)}", Scope.READ)
    in_path = site.ask("GET", f"/devices/{token}", Scope.READ)

    assert (answer.status_code, in_path.status_code) == (400, 400)
    assert "revoke" in error(answer)
    assert token not in answer.text + in_path.text + "".join(lines)


def test_probes_need_no_key(site: Site) -> None:
    assert site.ask("GET", "/v2/health/ready").status_code == 200


def test_a_large_body_is_refused_before_it_is_read(site: Site) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 100_000
            yield b"x" * 100_000

    async def run() -> list[httpx.Response]:
        async with site.client(Scope.SCORE) as client:
            path = "/v2/models/m/infer"
            declared = await client.post(path, content=body(), headers={"content-length": "10000000"})
            assert read == 0
            return [declared, await client.post(path, content=body())]

    answers = asyncio.run(run())

    assert [answer.status_code for answer in answers] == [413, 413]
    assert read <= site.gate.spec.limits.body_bytes + 200_000


def test_a_large_body_is_refused_where_the_app_would_say_otherwise(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"a": "' + b"x" * 100
        yield b'"}'

    site = Site(tmp_path, limits=Limits(body_bytes=50))
    answer = site.ask(
        "POST", "/v2/models/m/parsed", Scope.SCORE, content=body(), headers={"content-type": "application/json"}
    )

    assert answer.status_code == 413


def test_a_slow_body_is_408(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    site = Site(tmp_path, limits=Limits(body_s=0.01))

    assert site.ask("POST", "/v2/models/m/infer", Scope.SCORE, content=body()).status_code == 408


def test_a_slow_answer_is_504(tmp_path: Path) -> None:
    answer = Site(tmp_path, limits=Limits(request_s=0.01)).ask("GET", "/slow", Scope.READ)

    assert answer.status_code == 504
    assert "0.01 s" in error(answer)


def test_more_than_may_be_at_work_get_503(tmp_path: Path) -> None:
    site = Site(tmp_path, limits=Limits(concurrency=2, request_s=0.2))

    async def run() -> list[httpx.Response]:
        async with site.client(Scope.READ) as client:
            return await asyncio.gather(*(client.get("/slow") for _ in range(5)), client.get("/v2/health/ready"))

    *answers, ready = asyncio.run(run())

    assert sorted(answer.status_code for answer in answers) == [503, 503, 503, 504, 504]
    assert {answer.headers.get("retry-after") for answer in answers if answer.status_code == 503} == {"1"}
    assert ready.status_code == 200
    assert site.gate.at_work == 0


def test_each_key_has_a_rate_of_its_own(tmp_path: Path) -> None:
    site = Site(tmp_path, limits=Limits(rate=0.5, burst=2))
    codes = [site.ask("GET", "/devices/a", Scope.READ).status_code for _ in range(2)]
    third = site.ask("GET", "/devices/a", Scope.READ)

    assert codes == [200, 200]
    assert (third.status_code, third.headers["retry-after"]) == (429, "2")
    assert site.ask("GET", "/devices/a", Scope.ADMIN).status_code == 200

    site.now += 2

    assert site.ask("GET", "/devices/a", Scope.READ).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/devices/..%2fetc",
        "/devices/%2e%2e/x",
        "/devices/a%00",
        "/devices/a%5cb",
        "//devices/a",
        "/devices/a%0d%0ax",
        "/./x",
    ],
)
def test_tricks_in_paths_are_400(site: Site, path: str) -> None:
    scope: dict[str, Any] = {
        "type": "http", "method": "GET", "path": "/x", "raw_path": path.encode(), "query_string": b"", "scheme": "http",
        "headers": [], "client": ("127.0.0.1", 1), "http_version": "1.1",
    }  # fmt: skip
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    asyncio.run(site.app(scope, receive, send))

    assert sent[0]["status"] == 400


def test_names_with_blanks_and_percent_are_no_tricks(site: Site) -> None:
    assert site.ask("GET", "/devices/a%20b%25c", Scope.READ).json()["device"] == "a b%c"


def test_without_keys_only_this_machines_names_and_pages_are_served(tmp_path: Path) -> None:
    site = Site(tmp_path, keyed=False)
    evil = site.ask("GET", "/devices/a", headers={"host": "evil.example"})
    page = site.ask("POST", "/v2/models/m/infer", headers={"origin": "https://evil.example"})

    assert site.ask("GET", "/devices/a").status_code == 200
    assert (evil.status_code, page.status_code) == (421, 403)
    assert site.ask("POST", "/v2/models/m/infer", headers={"origin": "http://localhost:8080"}).status_code == 200


def test_pages_may_call_only_where_their_origin_is_listed(tmp_path: Path) -> None:
    ask = {"origin": "https://ops.example", "access-control-request-method": "GET"}
    closed = Site(tmp_path / "a").ask("OPTIONS", "/devices/a", headers=ask)
    site = Site(tmp_path / "b", origins=("https://ops.example",))
    open_ = site.ask("OPTIONS", "/devices/a", headers=ask)
    other = site.ask("OPTIONS", "/devices/a", headers=ask | {"origin": "https://evil.example"})

    assert "access-control-allow-origin" not in closed.headers
    assert open_.headers["access-control-allow-origin"] == "https://ops.example"
    assert "access-control-allow-origin" not in other.headers


def test_sane_ids_and_traces_go_on_and_others_are_replaced(site: Site, lines: list[str]) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sane = site.ask("GET", "/devices/a", Scope.READ, headers={"x-request-id": "order-66", "traceparent": parent})
    odd = site.ask("GET", "/devices/a", Scope.READ, headers={"x-request-id": "a b\tc", "traceparent": "00-0-0-0"})
    told = [json.loads(line) for line in lines]

    assert sane.headers["x-request-id"] == "order-66"
    assert sane.json()["trace"].split("-")[1] == parent.split("-")[1]
    assert sane.json()["trace"] != parent
    assert " " not in odd.headers["x-request-id"]
    assert (told[0]["request_id"], told[0]["trace_id"]) == ("order-66", parent.split("-")[1])


def test_a_line_a_request_says_who_asked_for_which_route(site: Site, lines: list[str]) -> None:
    site.ask("POST", "/v2/models/pump-1/infer?x=confidential", Scope.SCORE, content=b"confidential")
    (line,) = map(json.loads, lines)

    assert {name: line[name] for name in ("method", "route", "status", "key", "level")} == {
        "method": "POST", "route": "/v2/models/{name}/infer", "status": 200, "key": "score", "level": "info",
    }  # fmt: skip
    assert "confidential" not in lines[0]
    assert "pump-1" not in lines[0]
    assert site.tokens[Scope.SCORE] not in lines[0]


def test_a_fault_of_ours_is_told_in_the_log_alone(site: Site, lines: list[str]) -> None:
    answer = site.ask("GET", "/broken", Scope.READ)

    assert answer.status_code == 500
    assert "s3cret" not in answer.text
    assert "s3cret" in lines[0]
    assert json.loads(lines[0])["request_id"] == answer.headers["x-request-id"]


def test_answers_carry_headers_that_keep_browsers_safe(site: Site) -> None:
    headers = site.ask("GET", "/devices/a", Scope.READ).headers
    page = site.ask("GET", "/docs", Scope.READ).headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert page["content-security-policy"].startswith("default-src 'self'")


def test_readiness_ends_first_and_others_are_served_on(site: Site) -> None:
    left: list[bool] = []
    site.gate.on_drain.append(lambda: left.append(True))
    site.gate.drain()
    site.gate.drain()

    assert site.ask("GET", "/v2/health/ready").status_code == 503

    answer = site.ask("GET", "/devices/a", Scope.READ)

    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert left == [True]


def metrics(site: Site) -> dict[str, list[Any]]:
    text = site.ask("GET", "/metrics", Scope.READ).text
    return {family.name: family.samples for family in text_string_to_metric_families(text)}


def test_metrics_count_by_route_and_take_few_values(site: Site) -> None:
    for name in ("a", "b", "c"):
        site.ask("GET", f"/devices/{name}", Scope.READ)
        site.ask("GET", f"/nowhere/{name}", Scope.READ)
    site.ask("BREW", "/devices/a", Scope.ADMIN)
    site.ask("GET", "/devices/a")
    found = metrics(site)
    counted = {
        (it.labels["method"], it.labels["route"], it.labels["status"]): it.value
        for it in found["tidewatch_http_requests"]
        if it.name.endswith("_total")
    }

    assert counted["GET", "/devices/{device}", "200"] == 3
    assert counted["GET", "other", "404"] == 3
    assert {method for method, _, _ in counted} == {"GET", "other"}
    assert found["tidewatch_http_requests_in_flight"][0].value == 1
    assert ("key", 1.0) in [
        (it.labels["reason"], it.value) for it in found["tidewatch_http_rejected"] if it.name.endswith("_total")
    ]


def test_a_gate_has_metrics_of_its_own(tmp_path: Path) -> None:
    gates = [Gate(GuardSpec()), Gate(GuardSpec())]

    assert gates[0].meters.registry is not gates[1].meters.registry
    assert not (tmp_path / "keys.json").exists()
