"""A load of requests over HTTP/1.1 for any server: so many connections, each sends its next when it is answered."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle

import httptools
import numpy as np
import uvloop

from scorers.statistics import Floats


@dataclass(frozen=True, slots=True)
class Load:
    """What came of it."""

    seconds: float
    latencies: Floats
    """Of every answer, in seconds."""
    failed: int
    """Answers other than 200."""

    @property
    def rate(self) -> float:
        """Answers in a second."""
        return len(self.latencies) / self.seconds

    @classmethod
    def sum(cls, loads: Sequence["Load"]) -> "Load":
        """Several, one after the other."""
        seconds, failed = sum(load.seconds for load in loads), sum(load.failed for load in loads)
        return cls(seconds, np.concatenate([load.latencies for load in loads]), failed)

    def quantile(self, share: float) -> float:
        """Milliseconds."""
        return float(1000 * np.quantile(self.latencies, share))


def request(port: int, path: str, body: bytes) -> bytes:
    """The bytes of a POST."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def drive(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Send requests for so long.

    Raises:
        OSError: a connection is refused, or ends.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_drive(port, requests, connections, seconds))


async def _drive(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    until = time.perf_counter() + seconds
    clients = []
    for number in range(connections):
        own = cycle([*requests[number:], *requests[:number]])
        _, client = await loop.create_connection(partial(_Client, own, until), "127.0.0.1", port)
        clients.append(client)
    begun = time.perf_counter()
    for client in clients:
        client.send()
    await asyncio.gather(*(client.over for client in clients))
    took = time.perf_counter() - begun
    latencies = np.concatenate([client.latencies for client in clients])
    return Load(took, latencies, sum(client.failed for client in clients))


class _Client(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], until: float) -> None:
        self.latencies: list[float] = []
        self.failed = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests, self._until = requests, until
        self._parser = httptools.HttpResponseParser(self)
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # of a stream

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(exc or ConnectionResetError("the server ended a connection"))

    def send(self) -> None:
        """Send the next request."""
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))

    def on_message_complete(self) -> None:
        """An answer is there."""
        now = time.perf_counter()
        self.latencies.append(now - self._sent)
        self.failed += self._parser.get_status_code() != 200  # noqa: PLR2004 - of HTTP
        self._parser = httptools.HttpResponseParser(self)
        if now < self._until:
            self.send()
        else:
            self.over.set_result(None)
            self._transport.close()
