"""The process of the service: sockets, event loop, signals."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from scorers.errors import UnavailableError

BACKLOG = 2048
KEEP_ALIVE_S = 75


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; TLS by files of a certificate chain and its key."""

    host: str
    port: int
    certificate: str | None = None
    key: str | None = None
    drain_s: int = 30
    """How long requests under way may take once the process is to end."""


class _Server(uvicorn.Server):
    """Ends well when it is told to; at once when it is told again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature is uvicorn's
        self.force_exit = self.should_exit
        self.should_exit = True


def run(app: ASGIApp, address: Address) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are answered before it ends.

    Raises:
        UnavailableError: the address is taken, or is none.
    """
    try:
        listener = socket.create_server((address.host, address.port), family=_family(address.host), backlog=BACKLOG)
    except OSError as error:
        raise UnavailableError(
            f"{address.host}:{address.port} cannot be listened on ({error.strerror or error}); "
            "set serving.host or serving.port."
        ) from error
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=address.drain_s,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )
    server = _Server(config)
    with listener:
        asyncio.Runner(loop_factory=config.get_loop_factory()).run(server.serve(sockets=[listener]))
    if not server.started:
        raise UnavailableError("The service could not start; its log says why.")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
