"""Slow and greedy clients are cut off, and the service leaves without a failed request: over real sockets."""

import asyncio
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from scorers.errors import ConfigError
from serving.gate import Gate, GuardSpec
from serving.guard import guard
from serving.keys import KeyFile, Scope
from serving.limits import Limits
from serving.wire import HEADER_BYTES, Listen, Server, ring, server

HOST = "127.0.0.1"
PATIENCE_S = 20.0


class Site:
    """A served app."""

    def __init__(self, listen: Listen, limits: Limits) -> None:
        self.app = FastAPI()
        self.go = asyncio.Event()
        self.entered = asyncio.Event()
        self.app.get("/wait")(self.wait)
        self.app.get("/stream")(self.flood)
        self.app.get("/v2/health/ready")(self.ready)
        self.gate: Gate = guard(self.app, GuardSpec(limits=limits))
        self.gate.on_drain.append(lambda: None)
        self.socket = socket.create_server((HOST, 0))
        self.port: int = self.socket.getsockname()[1]
        self.server: Server = server(self.app, self.gate, listen)

    async def wait(self) -> str:
        self.entered.set()
        await self.go.wait()
        return "done"

    async def ready(self) -> str:
        return "ready"

    async def flood(self) -> StreamingResponse:
        async def forever() -> Any:
            while True:
                yield b"x" * 65536

        return StreamingResponse(forever())

    async def ask(self, path: str) -> bytes:
        """One request on a connection of its own: all that comes back."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer


async def until(fact: Callable[[], bool]) -> None:
    """Wait for what other code in this loop brings about."""
    while not fact():  # noqa: ASYNC110 - the code under test has no event for it
        await asyncio.sleep(0.01)


def served(
    test: Callable[[Site], Coroutine[Any, Any, None]], listen: Listen | None = None, limits: Limits | None = None
) -> None:
    """Run a test against a server, and end both."""

    async def run() -> None:
        site = Site(listen or Listen(notice_s=0), limits or Limits())
        serving = asyncio.create_task(site.server.serve([site.socket]))
        async with asyncio.timeout(PATIENCE_S):
            await until(lambda: site.server.started)
            await test(site)
            site.server.should_exit = site.server.force_exit = True
            await serving

    asyncio.run(run())


@pytest.mark.parametrize("sent", [b"", b"GET /wait HTTP/1.1\r\nhost: loc"])
def test_a_client_that_sends_no_headers_is_cut_off(sent: bytes) -> None:
    async def test(site: Site) -> None:
        reader, writer = await asyncio.open_connection(HOST, site.port)
        writer.write(sent)

        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        writer.close()

    served(test, Listen(header_s=0.1))


def test_a_client_that_drips_headers_is_cut_off_all_the_same() -> None:
    async def test(site: Site) -> None:
        reader, writer = await asyncio.open_connection(HOST, site.port)
        answer = asyncio.create_task(reader.read())
        writer.write(b"GET /wait HTTP/1.1\r\n")
        while not answer.done():
            writer.write(b"x: y\r\n")
            await asyncio.sleep(0.02)

        with suppress(ConnectionResetError):  # whoever writes on may lose what he was told
            assert answer.result().startswith(b"HTTP/1.1 408 ")
        writer.close()

    served(test, Listen(header_s=0.2))


def test_headers_without_end_are_431() -> None:
    async def test(site: Site) -> None:
        reader, writer = await asyncio.open_connection(HOST, site.port)
        writer.write(b"GET /wait HTTP/1.1\r\nx: " + b"y" * (HEADER_BYTES + 1))

        assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
        writer.close()

    served(test)


def test_a_connection_at_rest_is_not_cut_off_for_headers() -> None:
    async def test(site: Site) -> None:
        reader, writer = await asyncio.open_connection(HOST, site.port)
        for _ in range(3):
            writer.write(b"GET /v2/health/ready HTTP/1.1\r\nhost: localhost\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(7)
            await asyncio.sleep(0.06)

            assert head.startswith(b"HTTP/1.1 200 ")
        writer.close()

    served(test, Listen(header_s=0.1))


def test_a_reader_who_takes_nothing_is_let_go() -> None:
    async def test(site: Site) -> None:
        _, writer = await asyncio.open_connection(HOST, site.port, limit=1024)
        writer.write(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await until(lambda: site.gate.streams > 0)
        await until(lambda: not site.gate.streams)
        writer.close()

    served(test, limits=Limits(write_s=0.1))


def test_requests_in_flight_finish_after_readiness_has_ended() -> None:
    async def test(site: Site) -> None:
        flying = asyncio.create_task(site.ask("/wait"))
        await site.entered.wait()
        site.server.handle_exit(signal.SIGTERM, None)
        await until(lambda: site.gate.draining)
        ready, other = await site.ask("/v2/health/ready"), asyncio.create_task(site.ask("/wait"))
        await until(lambda: site.server.should_exit)
        await asyncio.sleep(0.2)
        site.go.set()

        assert ready.startswith(b"HTTP/1.1 503 ")
        assert (await flying).endswith(b'"done"')
        assert (await other).endswith(b'"done"')

        await until(lambda: not site.server.server_state.connections)

        assert not site.server._captured_signals  # noqa: SLF001 - what uvicorn would raise again at the end

    served(test, Listen(notice_s=0.3))


def test_whoever_has_connected_is_answered_though_the_service_leaves_meanwhile() -> None:
    """Callers who take no hint go on until nobody listens; none of them may have asked in vain."""
    found: Counter[str] = Counter()

    async def call(site: Site) -> None:
        while True:
            try:
                answer = await site.ask("/nowhere")
            except ConnectionRefusedError:
                return
            except OSError as error:
                answer = repr(error).encode()
            found[answer[:12].decode()] += 1

    async def everybody(site: Site) -> None:
        await asyncio.gather(*(call(site) for _ in range(50)))

    async def test(site: Site) -> None:
        callers = threading.Thread(target=lambda: asyncio.run(everybody(site)))
        callers.start()
        await until(lambda: found.total() > 200)
        site.server.handle_exit(signal.SIGTERM, None)
        await asyncio.to_thread(callers.join)

    served(test, Listen(notice_s=0.1))

    assert set(found) == {"HTTP/1.1 404"}


def test_a_request_that_was_on_its_way_is_answered_on_a_connection_at_rest() -> None:
    async def test(site: Site) -> None:
        reader, writer = await asyncio.open_connection(HOST, site.port)
        await until(lambda: bool(site.server.server_state.connections))
        site.server.leave()
        await until(lambda: site.server.should_exit)
        for connection in list(site.server.server_state.connections):
            connection.shutdown()
        writer.write(b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")

        assert (await reader.read()).startswith(b"HTTP/1.1 404 ")
        writer.close()

    served(test)


def test_a_second_signal_ends_it_at_once() -> None:
    async def test(site: Site) -> None:
        site.server.handle_exit(signal.SIGTERM, None)
        await asyncio.sleep(0)
        site.server.handle_exit(signal.SIGTERM, None)

        assert site.server.force_exit

    served(test, Listen(notice_s=300))


def test_a_public_address_needs_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    now = time.time()

    assert ring(path, "127.0.0.1", time.monotonic, now) is None
    with pytest.raises(ConfigError, match="tidewatch keys create"):
        ring(path, "0.0.0.0", time.monotonic, now)

    file = KeyFile(path)
    file.create("a", [Scope.READ], now=now)

    assert ring(path, "", time.monotonic, now) is not None
    assert ring(path, "127.0.0.1", time.monotonic, now) is not None

    file.revoke("a", now=now)
    with pytest.raises(ConfigError, match="all addresses"):
        ring(path, "", time.monotonic, now + 1)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    alternative = "subjectAltName=DNS:localhost"
    command = ["openssl", *words.split(), "-addext", alternative, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def test_tls_is_spoken_with_files(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate

    async def test(site: Site) -> None:
        context = ssl.create_default_context(cafile=cert)
        reader, writer = await asyncio.open_connection(HOST, site.port, ssl=context, server_hostname="localhost")
        writer.write(b"GET /v2/health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()

        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"strict-transport-security" in answer

    served(test, Listen(cert=cert, key=key))


def test_tls_files_that_cannot_be_used_are_refused(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, _ = certificate
    with pytest.raises(ConfigError, match="both files"):
        Listen(cert=cert)

    app = FastAPI()
    with pytest.raises(ConfigError, match="tls_key"):
        server(app, guard(app, GuardSpec()), Listen(cert=cert, key=tmp_path / "none.pem"))
