"""The process of the service: sockets, event loop, signals."""

import asyncio
import socket

from starlette.types import ASGIApp

from scorers.errors import UnavailableError
from serving.guard import Gate
from serving.wire import Listen, server

BACKLOG = 2048


def run(app: ASGIApp, gate: Gate, listen: Listen) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are answered before it ends.

    Raises:
        ConfigError: certificate or key cannot be used.
        UnavailableError: the address is taken, or is none.
    """
    made = server(app, gate, listen, loop="uvloop", date_header=False)
    try:
        listener = socket.create_server((listen.host, listen.port), family=_family(listen.host), backlog=BACKLOG)
    except OSError as error:
        raise UnavailableError(
            f"{listen.host}:{listen.port} cannot be listened on ({error.strerror or error}); set serving.host or "
            "serving.port."
        ) from error
    with listener:
        asyncio.Runner(loop_factory=made.config.get_loop_factory()).run(made.serve(sockets=[listener]))
    if not made.started:
        raise UnavailableError("The service could not start; its log says why.")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
