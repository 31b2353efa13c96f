"""The wire: uvicorn with patience for slow clients, TLS, and a way to leave without a failed request.

On SIGTERM or SIGINT the service says for ``notice_s`` that it is not ready, answering all the while and giving
connections back; then it closes its socket, finishes what is in flight within ``drain_s``, and ends. A second signal
ends it at once. Nobody who has connected is left without an answer: before the socket closes, the kernel lets nobody
new in and those in who wait, and a connection at rest is closed only if nothing is on its way.
"""

import asyncio
import ctypes
import ipaddress
import logging
import select
import signal
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from scorers.errors import ConfigError, hold
from serving.gate import Gate
from serving.keys import Ring
from serving.shortcut import Shortcut

log = logging.getLogger(__name__)

HEADER_BYTES = 64 * 1024
"""All headers of a request; more are refused with 431."""
LINGER_S = 0.25
"""What has been sent arrives within this time."""
_NAP_S = 0.01
_SO_ATTACH_FILTER = 26
_NO_SYN = ((0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
"""For Linux's packet filter: byte 13 of a TCP header, its flags SYN and ACK; SYN alone is dropped, all else let in."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the service listens, and how long it waits for whom; times in seconds.

    Raises:
        ConfigError: one of certificate and key is missing, or a time is negative.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    cert: Path | None = None
    key: Path | None = None
    proxies: tuple[str, ...] = ()
    """Addresses whose X-Forwarded-For and -Proto are believed."""
    header_s: float = 10.0
    notice_s: float = 2.0
    drain_s: float = 30.0
    idle_s: int = 30
    """A connection without a request is kept so long."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if (self.cert is None) != (self.key is None):
            raise ConfigError("TLS needs both files; set serving.tls_cert and serving.tls_key.")
        hold("serving", self, [(name, getattr(self, name) >= 0, "0 or more") for name in ("notice_s", "drain_s")])


def loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there.

    >>> [loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "", "10.0.0.1", "box")]
    [True, True, True, False, False, False, False]
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def ring(path: Path, host: str, clock: Callable[[], float], now: float) -> Ring | None:
    """The keys a service at ``host`` asks for; None, which lets everybody in, only on loopback without keys in force.

    Raises:
        ConfigError: the address is public and no key is in force, or the file is not ours.
    """
    found = Ring(path, clock)
    if found.active(now):
        return found
    if loopback(host):
        return None
    raise ConfigError(
        f"The service would be open to everybody at {host or 'all addresses'}: no key is in force in {path}. "
        "Make one by `tidewatch keys create NAME`, or listen on 127.0.0.1."
    )


class Patient(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, which cuts off who sends headers without end, in time or size (Slowloris)."""

    header_s = 10.0
    shortcut: Shortcut | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiting: asyncio.TimerHandle | None = None
        self._partial = True
        self._begun = False
        self._header_bytes = 0
        self._held: list[bytes] | None = None
        """The body of a request that may go the short way, once it is whole."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client that says nothing at all is cut off too."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._disarm()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Headers begin."""
        self._partial = self._begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Headers are whole; the guard may cut the connection, where a client takes no more of an answer."""
        self._partial = self._begun = False
        self._header_bytes = 0
        if self.shortcut and self.shortcut.fits(self):
            self._held = []
        else:
            self._ordinary()

    def _ordinary(self) -> None:
        super().on_headers_complete()
        scope: Any = self.scope
        scope["extensions"] = {"tidewatch.abort": {"call": self.transport.abort}}

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        if self._held is None:
            super().on_message_complete()
            return
        short = self.shortcut and self.shortcut.take(self, b"".join(self._held))
        if short:
            self._held = None
            self.cycle = short  # type: ignore[assignment]  # it has what is asked of one
        else:
            self._let_go()
            super().on_message_complete()

    def _let_go(self) -> None:
        """Send what was held the ordinary way."""
        held, self._held = self._held, None
        self._ordinary()
        for piece in held or ():
            super().on_body(piece)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and watch how headers come."""
        if self._partial:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._held is not None:
            self._let_go()
        if not self._partial:
            if self._waiting:
                self._disarm()
        elif self._header_bytes > HEADER_BYTES:
            self._cut(b"431 Request Header Fields Too Large")
        elif self._waiting is None and not self.transport.is_closing():
            self._arm()

    def shutdown(self) -> None:
        """Close when what is under way is answered, or on its way: the guard's answers end the connection."""
        self.loop.call_later(LINGER_S, self._leave)

    def _leave(self) -> None:
        descriptor = self.transport.get_extra_info("socket").fileno()
        if descriptor >= 0 and _readable(descriptor):  # the loop has not come to it yet
            self.shutdown()
        elif not self._begun:
            super().shutdown()

    def _arm(self) -> None:
        self._waiting = self.loop.call_later(self.header_s, self._cut, b"408 Request Timeout")

    def _disarm(self) -> None:
        if self._waiting:
            self._waiting.cancel()
            self._waiting = None

    def _cut(self, status: bytes) -> None:
        self._disarm()
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn, leaving in the order above."""

    def __init__(self, config: uvicorn.Config, gate: Gate, notice_s: float) -> None:
        super().__init__(config)
        self._gate = gate
        self._notice_s = notice_s
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: Any = None) -> None:
        """Serve until told to leave."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let in who waits at the door and nobody else, then close it, and finish."""
        self._gate.closing = True
        if not self.force_exit:
            hold_back(sockets or ())
            await asyncio.sleep(LINGER_S)
            while any(_readable(each.fileno()) for each in sockets or ()):  # noqa: ASYNC110 - the kernel's, without event
                await asyncio.sleep(_NAP_S)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins to leave, the second ends it; neither is raised again, so that the code is 0."""
        del frame
        if self._gate.draining or self._loop is None:
            self.should_exit = self.force_exit = True
            return
        log.info("leaving on %s", signal.Signals(sig).name)
        self._loop.call_soon_threadsafe(self.leave)

    def leave(self) -> None:
        """Begin to leave; in the event loop."""
        self._gate.drain()
        asyncio.get_running_loop().call_later(self._notice_s, setattr, self, "should_exit", True)


def hold_back(listeners: Sequence[socket.socket]) -> None:
    """Let nobody begin to connect any more; who has begun is let in.

    Closing a listening socket resets the connections in its queue, with the requests that were sent on them. Where the
    kernel has no such filter, that is what happens.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_SYN))
    filtering = struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
    for listener in listeners:
        with suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filtering)


def _readable(descriptor: int) -> bool:
    """Whether something waits to be read, or to be let in."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def server(app: ASGIApp, gate: Gate, listen: Listen, shortcut: Shortcut | None = None, **options: Any) -> Server:
    """A server for an app behind ``guard``; ``run()`` serves until a signal, ``serve()`` in an event loop.

    Args:
        app: what answers.
        gate: what ``guard`` gave for it.
        listen: where, and how patiently.
        shortcut: takes small requests to score.
        options: of ``uvicorn.Config``, such as ``fd`` or ``loop``.

    Raises:
        ConfigError: certificate or key cannot be used.
    """
    protocol = type("Patient", (Patient,), {"header_s": listen.header_s, "shortcut": shortcut})
    given: dict[str, Any] = {
        "host": listen.host,
        "port": listen.port,
        "http": protocol,
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": bool(listen.proxies),
        "forwarded_allow_ips": list(listen.proxies),
        "timeout_keep_alive": listen.idle_s,
        "timeout_graceful_shutdown": max(1, round(listen.drain_s)),
    }
    if listen.cert and listen.key:
        _check_tls(listen.cert, listen.key)
        given |= {"ssl_certfile": listen.cert, "ssl_keyfile": listen.key}
    return Server(uvicorn.Config(app, **given | options), gate, listen.notice_s)


def _check_tls(cert: Path, key: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"TLS cannot use {cert} and {key} ({error}); set serving.tls_cert and serving.tls_key to PEM files."
        ) from error


def _no_password() -> str:
    raise ValueError("the private key has a password")
