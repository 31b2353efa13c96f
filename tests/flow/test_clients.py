"""Clients before a broker that stumbles: they must come back (docs/adr/0029-librdkafka-before-2.10.md)."""

from __future__ import annotations

import random
import socketserver
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

METADATA, API_VERSIONS = 3, 18
LEADER_NOT_AVAILABLE, UNSUPPORTED_VERSION = 5, 35
FAST = {
    "topic.metadata.refresh.interval.ms": 100,
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 100,
    "log_level": 0,
}
CLIENTS, STUMBLES = 4, 4


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


class Broker(socketserver.ThreadingTCPServer):
    """As much of Kafka's protocol as tells a client of one topic (Metadata version 1).

    While it stumbles, as brokers do that wake from a freeze, it may answer that its cluster has no brokers, late or not
    at all, and cut the connection.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.chance = random.Random(7)
        self.stumbles = False
        self.asked = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def metadata(self, *, without_brokers: bool) -> bytes:
        own = _string("127.0.0.1") + struct.pack(">ih", int(self.server_address[1]), -1)
        brokers = struct.pack(">i", 0) if without_brokers else struct.pack(">ii", 1, 1) + own
        controller, leader, error = (-1, -1, LEADER_NOT_AVAILABLE) if without_brokers else (1, 1, 0)
        partition = struct.pack(">hii", error, 0, leader) + 2 * struct.pack(">ii", 1, 1)
        return (
            brokers
            + struct.pack(">iih", controller, 1, 0)
            + _string("readings")
            + struct.pack(">?i", False, 1)
            + partition
        )


class Connection(socketserver.StreamRequestHandler):
    server: Broker

    def handle(self) -> None:
        while size := self.rfile.read(4):
            kind, version, correlation = struct.unpack_from(">hhi", self.rfile.read(*struct.unpack(">i", size)))
            answer = self._answer(kind, version)
            if answer is None or self._may(0.3):
                return
            self.wfile.write(struct.pack(">ii", len(answer) + 4, correlation) + answer)
            if self._may(0.4):
                return

    def _answer(self, kind: int, version: int) -> bytes | None:
        if kind == API_VERSIONS:
            return struct.pack(">hi6h", UNSUPPORTED_VERSION if version else 0, 2, API_VERSIONS, 0, 0, METADATA, 0, 1)
        if kind != METADATA:
            return None
        if self.server.stumbles:
            time.sleep(self.server.chance.random() * 0.2)
        self.server.asked.set()
        return self.server.metadata(without_brokers=self._may(0.6))

    def _may(self, share: float) -> bool:
        return self.server.stumbles and self.server.chance.random() < share


@pytest.fixture
def brokers() -> Iterator[list[Broker]]:
    servers = [Broker() for _ in range(CLIENTS)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def test_clients_ask_again_after_answers_that_name_no_brokers(brokers: list[Broker]) -> None:
    clients = [Producer({"bootstrap.servers": broker.address, **FAST}) for broker in brokers]
    for client in clients:
        client.produce("readings", b"one")
    for _ in range(STUMBLES):
        for stumbles in (True, False):
            for broker in brokers:
                broker.stumbles = stumbles
            time.sleep(1)
        for broker in brokers:
            broker.asked.clear()
        assert [broker.asked.wait(20) for broker in brokers] == [True] * CLIENTS
    for client in clients:
        client.purge()
