"""Alerts come as server-sent events from a process, with a real Redis and with the embedded one."""

import http.client
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import redis

from sinks.base import Batch, Source
from sinks.redis import RedisSink, RedisSpec
from tests import schema
from tests.laws.sink_kit import NOW, ORIGIN, TOPICS, alert, encoded
from tests.live.support import eventually
from tidewatch.stack import fake_redis

SOURCE = Source(TOPICS.alerts, 0)


@pytest.fixture(params=["real", "embedded"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "real":
        yield request.getfixturevalue("redis_url")
    else:
        with fake_redis() as found:
            yield found


class Alerts:
    """A sink that is told of alerts, one after the other."""

    def __init__(self, url: str, prefix: str) -> None:
        self._sink = RedisSink(RedisSpec(url, prefix), TOPICS, client=redis.Redis.from_url(url))
        self._sink.bind(ORIGIN)
        self._sink.resume(SOURCE)
        self._at = 0

    def put(self, *numbers: int) -> None:
        changes = encoded([alert(number, "firing") for number in numbers])
        self._sink.write(Batch(SOURCE, range(self._at, self._at + len(changes)), changes))
        self._sink.flush(NOW, force=True)
        self._at += len(changes)


class Reader:
    """Somebody who listens."""

    def __init__(self, site: schema.Site, last: str | None = None) -> None:
        self._connection = http.client.HTTPConnection(schema.HOST, site.port, timeout=30)
        headers = {"authorization": f"Bearer {site.keys['score']}"} | ({"last-event-id": last} if last else {})
        self._connection.request("GET", "/stream", headers=headers)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200
        assert self._answer.headers["content-type"].startswith("text/event-stream")
        assert self._answer.readline() == b"retry: 2000\n"

    def events(self, count: int) -> list[tuple[str, str]]:
        """The next events: id, and whose alert."""
        found: list[tuple[str, str]] = []
        while len(found) < count:
            fields = dict(line.split(": ", 1) for line in iter(self._line, "") if not line.startswith(":"))
            if fields:
                assert fields["event"] == "alert"
                found.append((fields["id"], msgspec.json.decode(fields["data"])["alert_id"]))
        return found

    def rest(self) -> bytes:
        """All that comes until the other side ends it."""
        return self._answer.read()

    def _line(self) -> str:
        return self._answer.readline().decode().rstrip("\n")

    def close(self) -> None:
        self._answer.close()
        self._connection.close()


def test_listeners_hear_alerts_once_go_on_where_they_were_and_are_let_go(url: str, tmp_path: Path) -> None:
    prefix = f"t{uuid.uuid4().hex[:12]}"
    alerts = Alerts(url, prefix)
    alerts.put(1)
    with schema.running(tmp_path, {"redis.url": url, "redis_sink.prefix": prefix}) as site:
        with closing(Reader(site)) as first, closing(Reader(site)) as second:
            alerts.put(2, 3)
            heard, others = first.events(2), second.events(2)
        alerts.put(4)
        with closing(Reader(site, heard[0][0])) as again:
            missed = again.events(2)
            alerts.put(5)
            late = again.events(1)
        eventually(lambda: "tidewatch_http_streams 0.0" in site.get("/metrics"), "nobody listens")
        last = Reader(site, late[0][0])
    with closing(last):
        rest = last.rest()

    assert [name for _, name in heard] == ["alert-2", "alert-3"]
    assert others == heard
    assert missed[0] == heard[1]
    assert [name for _, name in [*missed, *late]] == ["alert-3", "alert-4", "alert-5"]
    assert rest.strip() == b""
