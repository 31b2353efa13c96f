"""The short way of small requests for scores beside the ordinary one, over sockets: nobody can tell them apart."""

import asyncio
import gzip
import json
import logging
import random
import re
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from serving import protocol
from serving.limits import Buckets
from serving.models import FleetEngine
from serving.repository import Spec
from serving.shortcut import Shortcut
from serving.signature import blank
from tests import services
from tests.services import Running

PATIENCE_S = 30
INFER = "/v2/models/device-0/infer"


@dataclass(frozen=True)
class Pair:
    """A service with the short way, and one without."""

    short: Running
    ordinary: Running
    taken: list[bytes]
    """Paths of what went the short way."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    taken: list[bytes] = []
    take = Shortcut.take

    def told(self: Shortcut, connection: Any, body: bytes) -> Any:
        found = take(self, connection, body)
        if found:
            taken.append(connection.url)
        return found

    spec = Spec(services.put(tmp_path_factory.mktemp("fleet") / "fleet.arrow", services.fleet()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shortcut, "take", told)
        with services.serving(spec) as short, services.serving(spec, shortcut=False) as ordinary:
            yield Pair(short, ordinary, taken)


def sample(running: Running, name: str = "device-0", rows: int = 1) -> dict[str, Any]:
    """A request that a model takes."""
    model = running.do(running.service.model(name))
    columns = {key: np.repeat(array, rows, axis=0) for key, array in model.signature.sample.items()}
    return protocol.sample(columns)


def plain_columns(running: Running, name: str) -> dict[str, Any]:
    """Columns that a model takes."""
    return {
        key: blank(array).tolist() for key, array in running.do(running.service.model(name)).signature.sample.items()
    }


def request(body: bytes, path: str = INFER, *headers: str, line: str = "POST {} HTTP/1.1") -> bytes:
    """The bytes of a request."""
    given = [line.format(path), "Host: localhost", *headers]
    if not any(header.lower().startswith(("content-length", "transfer-encoding")) for header in headers):
        given.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*given, "", ""]).encode() + body


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: list[tuple[str, str]]
    """Without the date, and without ids that are drawn."""
    body: bytes

    @property
    def last(self) -> bool:
        """Whether the connection ends with it."""
        return ("connection", "close") in self.headers


def ask(running: Running, sent: bytes) -> Answer:
    """Send bytes on a connection of their own, and read one answer."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S) as connection:
        connection.sendall(sent)
        answer, _ = one(connection, b"")
        if answer.last:
            assert connection.recv(1) == b""
    return answer


def one(connection: socket.socket, before: bytes) -> tuple[Answer, bytes]:
    """The next answer of a connection, and what was read behind it."""
    data = before
    while True:
        head, found, rest = data.partition(b"\r\n\r\n")
        if found and not head.startswith(b"HTTP/1.1 100"):
            break
        data = rest if found else data + received(connection)
    status, *lines = head.decode().split("\r\n")
    headers = [(name, value) for name, value in (line.split(": ", 1) for line in lines)]
    length = int(dict(headers)["content-length"])
    while len(rest) < length:
        rest += received(connection)
    drawn = [(name, value) for name, value in headers if name == "x-request-id" and re.fullmatch("[0-9a-f]{16}", value)]
    kept = [pair for pair in headers if pair[0] != "date" and pair not in drawn]
    return Answer(int(status.split()[1]), kept, rest[:length]), rest[length:]


def received(connection: socket.socket) -> bytes:
    """Some bytes."""
    data = connection.recv(65536)
    assert data, "the service closed the connection"
    return data


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def plain(pair: Pair) -> bytes:
    return encoded(sample(pair.short))


def outputs(*wanted: dict[str, Any]) -> dict[str, Any]:
    return {"outputs": list(wanted)}


def binary(pair: Pair) -> tuple[bytes, int]:
    """A request of binary tensors that wants them back, and the bytes of its JSON."""
    given = sample(pair.short)
    data = np.array(given["inputs"][0].pop("data"), "<f8").tobytes()
    given["inputs"][0]["parameters"] = {"binary_data_size": len(data)}
    given["parameters"] = {"binary_data_output": True}
    head = encoded(given)
    return head + data, len(head)


def usual(pair: Pair) -> dict[str, bytes]:
    """Requests that go the short way."""
    given = sample(pair.short)
    body, size = binary(pair)
    rows = [given["inputs"][0]["data"]]
    columns = plain_columns(pair.short, "fleet")
    return {
        "json": request(plain(pair)),
        "many rows": request(encoded(sample(pair.short, rows=40))),
        "of a version": request(plain(pair), "/v2/models/device-0/versions/v1/infer"),
        "another device": request(encoded(sample(pair.short, "device-1")), "/v2/models/device-1/infer"),
        "the whole fleet": request(encoded(sample(pair.short, "fleet")), "/v2/models/fleet/infer"),
        "by fleet and device": request(plain(pair), "/v2/models/fleet/device-0/infer"),
        "without id": request(encoded({"inputs": given["inputs"]})),
        "some outputs": request(encoded(given | outputs({"name": "score"}, {"name": "feature"}))),
        "an output as binary": request(
            encoded(given | outputs({"name": "score", "parameters": {"binary_data": True}}, {"name": "state"}))
        ),
        "no such output": request(encoded(given | outputs({"name": "?"}))),
        "binary tensors": request(body, INFER, f"Inference-Header-Content-Length: {size}"),
        "the last of its connection": request(plain(pair), INFER, "Connection: close"),
        "rows": request(encoded({"model_name": "device-0", "data": rows, "id": "7"}), "/score"),
        "rows by a path": request(encoded({"data": rows}), "/api/v1/service/device-0/score"),
        "columns": request(encoded({"model_name": "fleet", "data": columns}), "/score"),
        "ids of its own": request(plain(pair), INFER, "X-Request-Id: order-66", "traceparent: 00-0af7-x"),
    }


def unusual(pair: Pair) -> dict[str, bytes]:
    """Requests that go the ordinary way."""
    body = plain(pair)
    packed = gzip.compress(body, mtime=0)
    wrong = json.loads(body)
    wrong["inputs"][0]["shape"] = [1, 1]
    wrong["inputs"][0]["data"] = [1.0]
    return {
        "readings": request(encoded({"model_name": "device-0", "data": {"readings": []}}), "/score"),
        "rows of nobody": request(encoded({"data": [[1.0]]}), "/score"),
        "rows of a wrong width": request(encoded({"model_name": "device-0", "data": [[1.0]]}), "/score"),
        "rows in a query": request(b"", "/score?model_name=device-0&data=[[1]]", line="GET {} HTTP/1.1"),
        "no json": request(b"{"),
        "no body": request(b""),
        "wrong width": request(encoded(wrong)),
        "no such model": request(body, "/v2/models/nobody/infer"),
        "no such version": request(body, "/v2/models/device-0/versions/v9/infer"),
        "a query": request(body, f"{INFER}?a=b"),
        "a trick": request(body, "/v2/models/../infer"),
        "an empty segment": request(body, "/v2/models//device-0/infer"),
        "an escaped name": request(body, "/v2/models/device%2D0/infer"),
        "a foreign host": request(body).replace(b"localhost", b"elsewhere"),
        "a foreign origin": request(body, INFER, "Origin: http://elsewhere"),
        "gzip": request(packed, INFER, "Content-Encoding: gzip"),
        "chunked": request(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), INFER, "Transfer-Encoding: chunked"),
        "expects to go on": request(body, INFER, "Expect: 100-continue"),
        "of HTTP/1.0": request(body, line="POST {} HTTP/1.0"),
        "another method": request(body, line="PUT {} HTTP/1.1"),
        "large": request(encoded(sample(pair.short, rows=2000))),
        "another route": request(b"", "/v2/health/live", line="GET {} HTTP/1.1"),
        "a wrong header length": request(body, INFER, "Inference-Header-Content-Length: 1000000"),
    }


@pytest.mark.parametrize("kind", ["usual", "unusual"])
def test_both_ways_answer_alike(pair: Pair, kind: str) -> None:
    for name, sent in {"usual": usual, "unusual": unusual}[kind](pair).items():
        pair.taken.clear()
        short = ask(pair.short, sent)
        assert bool(pair.taken) == (kind == "usual"), name
        assert short == ask(pair.ordinary, sent), name
        assert b"error" in short.body if short.status >= 400 else short.status == 200, name


def test_requests_sent_at_once_are_answered_in_their_order(pair: Pair) -> None:
    live = request(b"", "/v2/health/live", line="GET {} HTTP/1.1")
    ids = [f"X-Request-Id: r{at}" for at in range(4)]
    sent = [request(plain(pair), INFER, ids[0]), request(plain(pair), INFER, ids[1]), live]
    sent += [request(b"{", INFER, ids[2]), request(plain(pair), INFER, ids[3])]
    for running in (pair.short, pair.ordinary):
        with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S) as connection:
            connection.sendall(b"".join(sent))
            rest, found = b"", []
            for _ in sent:
                answer, rest = one(connection, rest)
                found.append((answer.status, dict(answer.headers).get("x-request-id")))
        assert found == [(200, "r0"), (200, "r1"), (200, None), (400, "r2"), (200, "r3")]


@pytest.fixture(scope="module")
def lasting(pair: Pair) -> list[bytes]:
    """Requests after which the connection goes on."""
    known = [*usual(pair).values(), *unusual(pair).values()]
    return [sent for sent in known if not ask(pair.ordinary, sent).last]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_sent_however_it_is_cut_both_ways_answer_alike(pair: Pair, lasting: list[bytes], seed: int) -> None:
    draw = random.Random(seed)
    last = draw.choice([*(usual(pair) | unusual(pair)).values()])
    requests = [*draw.choices(lasting, k=draw.randint(1, 12)), last]
    cuts = sorted(draw.choices(range(len(b"".join(requests))), k=draw.randint(0, 6)))
    assert conversation(pair.short, requests, cuts) == conversation(pair.ordinary, requests, cuts)


def conversation(running: Running, requests: Sequence[bytes], cuts: Sequence[int]) -> list[Answer]:
    """Answers to requests that are sent in pieces, with pauses between them."""
    sent = b"".join(requests)
    found: list[Answer] = []
    rest = b""
    with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, end in pairwise([0, *cuts, len(sent)]):
            connection.sendall(sent[start:end])
            running.do(asyncio.sleep(0.01))  # by then its loop has read that
        for _ in requests:
            answer, rest = one(connection, rest)
            found.append(answer)
    assert not rest
    return found


def test_a_request_that_comes_in_pieces_goes_the_ordinary_way(pair: Pair) -> None:
    sent = request(plain(pair))
    for cut in (20, sent.index(b"\r\n\r\n") + 2, sent.index(b"\r\n\r\n") + 4, len(sent) - 1):
        pair.taken.clear()
        with socket.create_connection(("127.0.0.1", pair.short.port), timeout=PATIENCE_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(sent[:cut])
            pair.short.do(asyncio.sleep(0.01))  # by then its loop has read that
            connection.sendall(sent[cut:])
            assert one(connection, b"")[0].status == 200
            in_headers = cut < sent.index(b"\r\n\r\n") + 4
            assert len(pair.taken) == in_headers  # the rest of the headers brings the body
            connection.sendall(sent)
            assert one(connection, b"")[0].status == 200
            assert len(pair.taken) == 1 + in_headers


def test_both_ways_are_counted_and_logged_alike(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="serving.requests")
    told = []
    for running in (pair.short, pair.ordinary):
        before = counted(running)
        caplog.clear()
        for sent in usual(pair).values():
            ask(running, sent)
        running.do(asyncio.sleep(0.01))  # by then the last one has been told of
        found = [getattr(record, "fields", {}) for record in caplog.records if record.name == "serving.requests"]
        lines = [[line[name] for name in ("method", "route", "status", "key")] for line in found]
        told.append((lines, {name: count - before.get(name, 0) for name, count in counted(running).items()}))

    assert told[0] == told[1]
    assert sum(told[0][1].values()) > len(usual(pair))


def counted(running: Running) -> dict[str, float]:
    """How many requests there were, by the page of metrics."""
    page = running.gate.meters.page("")[0].decode()
    lines = [
        line.rsplit(" ", 1) for line in page.splitlines() if re.match(r"tidewatch_http_re\w+(_total|_count)\{", line)
    ]
    return {name: float(count) for name, count in lines}


def until(fact: Any) -> None:
    """Wait for what another thread brings about."""
    end = time.monotonic() + PATIENCE_S
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_who_leaves_before_the_answer_is_not_at_work_any_more(pair: Pair) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", pair.short.port), timeout=PATIENCE_S) as connection:
            connection.sendall(request(plain(pair)))
    until(lambda: not pair.short.gate.at_work)
    assert ask(pair.short, request(plain(pair))).status == 200


def test_one_that_fails_is_500_by_both_ways(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(FleetEngine, "infer", broken)
    answers = [ask(running, request(plain(pair))) for running in (pair.short, pair.ordinary)]

    assert [answer.status for answer in answers] == [500, 500]
    assert answers[0] == answers[1]
    assert [record.getMessage() for record in caplog.records if record.exc_info] == ["An answer failed"] * 2
    assert not pair.short.gate.at_work


def test_a_caller_beyond_its_rate_is_429_by_both_ways(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    for running in (pair.short, pair.ordinary):
        monkeypatch.setattr(running.gate, "buckets", Buckets(rate=0.001, burst=2))
        assert [ask(running, request(plain(pair))).status for _ in range(3)] == [200, 200, 429]


def test_a_service_that_leaves_gives_connections_back_by_both_ways(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    for running in (pair.short, pair.ordinary):
        monkeypatch.setattr(running.gate, "draining", True)
    answers = [ask(running, request(plain(pair))) for running in (pair.short, pair.ordinary)]

    assert answers[0] == answers[1]
    assert answers[0].last


def test_both_ways_collect_and_ask_the_challenger(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    for running in (pair.short, pair.ordinary):
        taken: list[tuple[Any, ...]] = []
        monkeypatch.setattr(running.service, "collect", lambda *given, taken=taken: taken.append(given))
        ask(running, request(plain(pair)))
        ((model, version, given, found),) = taken
        assert (model, version) == ("device-0", "v1")
        assert list(given) == ["features"]
        assert found["score"].shape == (1,)
