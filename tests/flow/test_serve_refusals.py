"""A service that runs refuses who must not call and what must not come, over HTTP and gRPC, and logs none of it."""

import contextlib
import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.grpc import SERVICE, messages
from serving.keys import KeyFile, Scope
from tests.services import fleet, put
from tidewatch.servers import free_ports, tether

HOST = "127.0.0.1"
MARK = "confidential-4711"
"""Part of bodies, names, queries and paths that were sent."""
SLOW_S = 0.5
LARGE = 10 * 2**20
PATIENCE_S = 60.0
ROUTES = [
    ("GET", "/v2/models/device-0", "read"),
    ("POST", "/v2/models/device-0/infer", "score"),
    ("POST", "/v2/models/device-0/versions/v1/infer", "score"),
    ("POST", "/v2/repository/index", "read"),
    ("POST", "/v2/repository/models/none/load", "admin"),
    ("POST", "/v2/repository/models/none/unload", "admin"),
    ("GET", "/score?model_name=device-0&data=[[1]]", "score"),
    ("POST", "/score", "score"),
    ("GET", "/api/v1/service/device-0", "read"),
    ("POST", "/api/v1/service/device-0/score", "score"),
    ("GET", "/devices", "read"),
    ("GET", "/devices/device-0", "read"),
    ("GET", "/devices/device-0/history", "read"),
    ("GET", "/alerts", "read"),
    ("GET", "/stream", "read"),
    ("GET", "/jobs", "read"),
    ("POST", "/jobs", "score"),
    ("GET", "/jobs/x", "read"),
    ("POST", "/jobs/x/cancel", "score"),
    ("GET", "/metrics", "read"),
    ("GET", "/openapi.json", "read"),
]
CALLS = [
    ("ModelInfer", "score"),
    ("ModelReady", "read"),
    ("ModelMetadata", "read"),
    ("ServerMetadata", "read"),
    ("RepositoryIndex", "read"),
    ("RepositoryModelLoad", "admin"),
    ("RepositoryModelUnload", "admin"),
]
KNOWN = messages()


@dataclass
class Site:
    """A service with keys of all kinds."""

    folder: Path
    port: int
    grpc: int
    keys: dict[str, str] = field(default_factory=dict)
    """By name; those of scopes, and ``gone``, which was revoked, and ``late``, which has expired."""

    def run(self, *words: str) -> str:
        """What a command prints."""
        command = [sys.executable, "-m", "tidewatch", *words]
        done = subprocess.run(command, cwd=self.folder, env=environ(), capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def ask(self, method: str, path: str, key: str | None = None, body: Any = None, **headers: str) -> tuple[int, str]:
        """Status and text of an answer."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE_S)
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return answer.status, "" if answer.headers["content-type"].startswith(
                "text/event"
            ) else answer.read().decode()
        finally:
            connection.close()

    def call(self, name: str, key: str | None = None, message: bytes = b"", **metadata: str) -> tuple[str, str]:
        """Code and details of a call."""
        given = tuple(metadata.items()) + (() if key is None else (("authorization", f"Bearer {key}"),))
        with grpc.insecure_channel(f"{HOST}:{self.grpc}") as channel:
            try:
                channel.unary_unary(f"/{SERVICE}/{name}")(message, timeout=PATIENCE_S, metadata=given)
            except grpc.RpcError as error:
                return error.code().name, error.details()
        return "OK", ""

    def sent(self, *parts: bytes) -> bytes:
        """What comes back on a connection that sends just this, and ends by the other side."""
        with socket.create_connection((HOST, self.port), timeout=PATIENCE_S) as connection:
            for part in parts:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(part)
            found = b""
            with contextlib.suppress(ConnectionResetError):
                while part := connection.recv(65_536):
                    found += part
            return found

    @property
    def log(self) -> str:
        """All that the service has said."""
        return (self.folder / "log").read_text("utf-8", errors="replace")

    def quiet(self) -> None:
        """The log has every request, and nothing that is nobody's business."""
        log = self.log
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]

        assert any(line["message"] == "request" for line in lines)
        assert not [line for line in lines if line["level"] == "error"]
        assert MARK not in log
        assert "tw_" not in log
        for key in self.keys.values():
            assert key not in log
            assert key.removeprefix("tw_")[:20] not in log


def environ() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDEWATCH_")}
    changes = {"header_s": SLOW_S, "body_s": SLOW_S, "notice_s": 0.5, "batch_in": "/nowhere", "batch_out": "/nowhere"}
    return (
        kept
        | {f"TIDEWATCH_SERVING__{name.upper()}": str(value) for name, value in changes.items()}
        | {
            "TIDEWATCH_REDIS__URL": "redis://127.0.0.1:1/0",
            "LOG_LEVEL": "DEBUG",
        }
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("serve")
    put(folder / "var" / "fleet.arrow", fleet())
    port, grpc_port = free_ports(2)
    found = Site(folder, port, grpc_port)
    file, now = KeyFile(folder / "var" / "keys.json"), time.time()
    for name in ("read", "score", "admin"):
        found.keys[name] = file.create(name, [Scope(name)], now=now)[1]
    found.keys["gone"] = file.create("gone", [Scope.ADMIN], now=now)[1]
    found.keys["late"] = file.create("late", [Scope.ADMIN], now=now - 60, expires=now - 30)[1]
    file.revoke("gone", now=now)
    found.keys["wrong"] = "tw_" + "w" * 43
    found.keys["other"] = MARK
    words = ["serve", "--host", HOST, "--port", str(found.port), "--grpc-port", str(found.grpc)]
    command = [*tether(), sys.executable, "-m", "tidewatch", *words]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, cwd=folder, env=environ(), stderr=log) as process,
    ):
        deadline = time.monotonic() + PATIENCE_S
        while not _ready(found):
            assert process.poll() is None, found.log
            assert time.monotonic() < deadline, found.log
            time.sleep(0.05)
        yield found
        process.send_signal(signal.SIGTERM)
        code = process.wait(PATIENCE_S)
    assert code == 0, found.log
    found.quiet()


def _ready(site: Site) -> bool:
    try:
        return site.ask("GET", "/v2/health/ready")[0] == 200
    except OSError:
        return False


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_every_route_needs_a_key_in_force_with_its_scope(site: Site, method: str, path: str, scope: str) -> None:
    strangers = [
        site.ask(method, path, key)[0]
        for key in (None, "", *(site.keys[it] for it in ("wrong", "gone", "late", "other")))
    ]
    refused = {name for name in ("read", "score", "admin") if site.ask(method, path, site.keys[name])[0] in {401, 403}}

    assert strangers == [401] * 6
    assert refused == {"read", "score", "admin"} - {scope, "admin"}
    site.quiet()


@pytest.mark.parametrize(("name", "scope"), CALLS)
def test_every_call_needs_a_key_in_force_with_its_scope(site: Site, name: str, scope: str) -> None:
    strangers = [
        site.call(name, key)[0] for key in (None, "", *(site.keys[it] for it in ("wrong", "gone", "late", "other")))
    ]
    refused = {
        each for each in ("read", "score", "admin") if site.call(name, site.keys[each])[0] == "PERMISSION_DENIED"
    }

    assert strangers == ["UNAUTHENTICATED"] * 6
    assert refused == {"read", "score", "admin"} - {scope, "admin"}
    site.quiet()


def test_pages_of_documents_are_there_for_all_and_what_they_show_is_not(site: Site) -> None:
    pages = [site.ask("GET", page) for page in ("/docs", "/redoc", "/assets/swagger-ui.css")]

    assert [status for status, _ in pages] == [200] * 3
    assert all("device-0" not in text for _, text in pages)
    assert site.ask("GET", "/openapi.json")[0] == 401
    assert site.ask("POST", "/docs")[0] == 405
    site.quiet()


def test_a_key_that_is_revoked_while_it_runs_is_refused_within_seconds(site: Site) -> None:
    site.keys["brief"] = key = site.run("keys", "create", "brief", "--scope", "read")

    def known() -> tuple[bool, bool]:
        return site.ask("GET", "/v2/models/fleet", key)[0] == 200, site.call("ServerMetadata", key)[0] == "OK"

    deadline = time.monotonic() + 10
    while known() != (True, True) and time.monotonic() < deadline:
        time.sleep(0.1)
    opened = known()
    site.run("keys", "revoke", "brief")
    deadline = time.monotonic() + 10
    while known() != (False, False) and time.monotonic() < deadline:
        time.sleep(0.1)

    assert opened == (True, True)
    assert site.ask("GET", "/v2/models/fleet", key)[0] == 401
    assert site.call("ServerMetadata", key)[0] == "UNAUTHENTICATED"
    site.quiet()


@pytest.mark.parametrize(
    "where", ["?api_key={}", "?x={}", "?access_token={}&x=1", "/{}", "?x=%74w_{}", "?Authorization=Bearer%20{}"]
)
def test_a_key_in_an_address_is_refused_with_words_that_do_not_repeat_it(site: Site, where: str) -> None:
    key = site.keys["read"]
    status, said = site.ask("GET", "/devices" + where.format(key.removeprefix("tw_") if "%74" in where else key), key)

    assert status == 400
    assert "revoke" in said
    assert key[3:] not in said
    site.quiet()


def test_a_key_in_the_place_of_a_name_is_nowhere_in_the_log(site: Site) -> None:
    key = site.keys["score"]
    asked = KNOWN["ModelInferRequest"](model_name=key, id=MARK).SerializeToString()
    body = json.dumps({"model_name": key, "data": [[1]], "id": MARK})

    assert site.ask("POST", "/score", key, body)[0] == 404
    assert site.call("ModelInfer", key, asked)[0] == "NOT_FOUND"
    assert site.call(key, key)[0] in {"PERMISSION_DENIED", "UNIMPLEMENTED"}
    site.quiet()


def test_ten_megabytes_are_refused_before_they_are_read(site: Site) -> None:
    key, body = site.keys["score"], (MARK * (LARGE // len(MARK))).encode()
    head = f"POST /score HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {key}\r\n"
    declared = site.sent(f"{head}content-length: {LARGE}\r\n\r\n".encode())
    chunked = site.sent(f"{head}transfer-encoding: chunked\r\n\r\n{len(body):x}\r\n".encode(), body)
    stranger = site.sent(
        f"POST /score HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ncontent-length: {LARGE}\r\n\r\n".encode(), b"x"
    )
    asked = KNOWN["ModelInferRequest"](model_name="device-0", raw_input_contents=[body]).SerializeToString()

    assert declared.startswith(b"HTTP/1.1 413 ")
    assert chunked.startswith(b"HTTP/1.1 413 ")
    assert stranger.startswith(b"HTTP/1.1 401 ")
    assert site.call("ModelInfer", key, asked)[0] == "RESOURCE_EXHAUSTED"
    assert site.call("ModelInfer", None, asked)[0] in {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}
    site.quiet()


def test_what_is_small_until_it_is_inflated_is_refused_too(site: Site) -> None:
    key, body = site.keys["score"], b" " * (100 * 2**20)
    status, _ = site.ask("POST", "/score", key, gzip.compress(body), content_encoding="gzip")
    with grpc.insecure_channel(f"{HOST}:{site.grpc}", compression=grpc.Compression.Gzip) as channel:
        asked = KNOWN["ModelInferRequest"](raw_input_contents=[body]).SerializeToString()
        call = channel.unary_unary(f"/{SERVICE}/ModelInfer").future(
            asked, metadata=(("authorization", f"Bearer {key}"),)
        )

        assert call.code().name == "RESOURCE_EXHAUSTED"
    assert status == 413
    site.quiet()


@pytest.mark.parametrize(
    "parts",
    [
        (b"",),
        (b"GET /devices HTTP/1.1\r\nhost: 127.0.0.1\r\nx: " + MARK.encode(),),
        (b"GET /devices HTTP/1.1\r\nhost: 127.0.0.1\r\n", b"x: y\r\n", b"z: y\r\n"),
    ],
)
def test_headers_that_do_not_end_are_cut_off(site: Site, parts: tuple[bytes, ...]) -> None:
    assert site.sent(*parts).startswith(b"HTTP/1.1 408 ")
    site.quiet()


def test_a_body_that_does_not_come_is_cut_off(site: Site) -> None:
    head = f"POST /score HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {site.keys['score']}\r\n"
    head += "content-length: 1000\r\n\r\n"

    assert site.sent(head.encode(), MARK.encode()).startswith(b"HTTP/1.1 408 ")
    site.quiet()


def test_a_message_that_does_not_come_is_cut_off_and_a_connection_that_says_nothing_too(site: Site) -> None:
    metadata = (("authorization", f"Bearer {site.keys['score']}"),)
    over: list[bool] = []

    def nothing() -> Iterator[bytes]:
        while not over:
            time.sleep(0.01)
        yield from ()

    with grpc.insecure_channel(f"{HOST}:{site.grpc}") as channel:
        ask = channel.stream_unary(f"/{SERVICE}/ModelInfer")
        codes = [ask.future(nothing(), metadata=given, timeout=PATIENCE_S).code().name for given in (metadata, ())]
        over.append(True)
    with socket.create_connection((HOST, site.grpc), timeout=PATIENCE_S) as silent:
        while silent.recv(4096):
            pass

    assert codes == ["DEADLINE_EXCEEDED", "UNAUTHENTICATED"]
    site.quiet()


@pytest.mark.parametrize(
    "path",
    [
        f"/v2/models/..%2f..%2f{MARK}",
        f"/v2/models/%2e%2e/{MARK}/infer",
        f"/../../etc/{MARK}",
        f"/assets/../../{MARK}",
        f"/assets/%2e%2e%2f%2e%2e%2f{MARK}",
        f"/assets/..%5c{MARK}",
        f"//{MARK}/x",
        f"/devices/{MARK}%00",
        f"/devices/{MARK}%0d%0aset-cookie:x",
        f"/jobs/..%2f{MARK}",
    ],
)
def test_tricks_in_paths_are_refused(site: Site, path: str) -> None:
    key = site.keys["admin"]
    head = f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
    answer = site.sent(head.encode())

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert MARK.encode() not in answer
    site.quiet()


@pytest.mark.parametrize("name", ["../../etc/passwd", f"/etc/{MARK}", "..", "fleet/../../x", f"{MARK}\0", "\\\\x"])
def test_tricks_in_names_of_models_find_none(site: Site, name: str) -> None:
    key = site.keys["admin"]
    asked = KNOWN["RepositoryModelLoadRequest"](model_name=name).SerializeToString()
    inferred = KNOWN["ModelInferRequest"](model_name=name).SerializeToString()

    assert site.call("RepositoryModelLoad", key, asked)[0] == "NOT_FOUND"
    assert site.call("ModelInfer", key, inferred)[0] == "NOT_FOUND"
    assert site.ask("POST", "/score", key, json.dumps({"model_name": name, "data": [[1]]}))[0] == 404
    site.quiet()


@pytest.mark.parametrize(
    "body", [MARK, f'{{"model_name": "device-0", "data": [["{MARK}"]]}}', f'{{"{MARK}": 1}}', "[" * 100_000]
)
def test_what_is_no_body_is_refused_and_not_logged(site: Site, body: str) -> None:
    key = site.keys["admin"]
    codes = {
        site.ask("POST", path, key, body)[0]
        for path in (
            "/score",
            "/v2/models/device-0/infer",
            "/api/v1/service/device-0/score",
            "/v2/repository/index",
            "/jobs",
        )
    }

    assert codes <= {200, 400, 413, 422}
    assert site.call("ModelInfer", key, body.encode())[0] == "INVALID_ARGUMENT"
    site.quiet()
