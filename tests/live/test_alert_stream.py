"""Alerts come to whoever listens, through a real Redis: at once, in order, and none is missed."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import msgspec
import pytest
import redis
import redis.asyncio

from serving import events
from serving.events import Hub
from serving.recent import Recent
from sinks.base import Batch, Source
from sinks.redis import RedisSink, RedisSpec
from stream.contracts import Alert
from tests.laws.sink_kit import NOW, ORIGIN, TOPICS, alert, encoded

pytestmark = pytest.mark.live

ALERTS = Source(TOPICS.alerts, 0)


class Site:
    """Alerts under a prefix of their own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = f"t{uuid.uuid4().hex[:12]}"
        self._sink = RedisSink(RedisSpec(url, self.prefix), TOPICS)
        self._sink.bind(ORIGIN)
        self._at = self._sink.resume(ALERTS)

    def put(self, *changes: Alert) -> None:
        """What the sink read from Kafka."""
        self._sink.write(Batch(ALERTS, range(self._at, self._at + len(changes)), encoded(changes)))
        self._sink.flush(NOW)
        self._at += len(changes)

    def close(self) -> None:
        self._sink.close()


@pytest.fixture
def site(redis_url: str) -> Any:
    made = Site(redis_url)
    yield made
    made.close()


def heard(site: Site, test: Callable[[Hub], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Run a test with a hub."""

    async def run() -> None:
        async with asyncio.timeout(20), redis.asyncio.Redis.from_url(site.url, decode_responses=True) as client:
            await test(Hub(Recent(client, site.prefix), **options))

    asyncio.run(run())


async def alerts(stream: AsyncIterator[bytes], count: int) -> list[tuple[str, str]]:
    """Ids and alerts of the next events."""
    found: list[tuple[str, str]] = []
    async for piece in stream:
        if piece.startswith(b"id: "):
            number, _, data, *_ = piece.decode().splitlines()
            found.append((number.removeprefix("id: "), msgspec.json.decode(data.removeprefix("data: "))["alert_id"]))
        if len(found) == count:
            break
    return found


def test_alerts_are_told_as_they_come_and_from_where_a_listener_left(site: Site) -> None:
    async def test(hub: Hub) -> None:
        site.put(alert(0, "firing"))
        stream = await hub.listen(None)
        assert await anext(stream) == b"retry: 2000\n\n"
        site.put(alert(1, "firing"), alert(2, "firing"))
        first, second = await alerts(stream, 2)
        await stream.aclose()
        site.put(alert(3, "firing"))
        again = await hub.listen(first[0])

        assert [first[1], second[1]] == ["alert-1", "alert-2"]
        assert [it[1] for it in await alerts(again, 2)] == ["alert-2", "alert-3"]

        site.put(alert(4, "firing"))

        assert [it[1] for it in await alerts(again, 1)] == ["alert-4"]
        await again.aclose()

    heard(site, test)


def test_a_quiet_stream_has_a_heartbeat_and_ends_with_the_service(site: Site) -> None:
    async def test(hub: Hub) -> None:
        stream = await hub.listen(None)
        pieces = [await anext(stream), await anext(stream)]
        hub.close()
        rest = [piece async for piece in stream]
        late = [piece async for piece in await hub.listen(None)]

        assert b": still here\n\n" in pieces
        assert rest == []
        assert late == [b"retry: 2000\n\n"]

    heard(site, test, heartbeat_s=0.01)


def test_who_takes_too_little_is_let_go_and_misses_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "BACKLOG", 3)

    async def test(hub: Hub) -> None:
        stream, other = await hub.listen(None), await hub.listen(None)
        assert await anext(stream) == await anext(other)
        site.put(alert(0, "firing"))
        (held,) = await alerts(stream, 1)
        site.put(*(alert(number, "firing") for number in range(1, 10)))
        while hub.listeners:  # noqa: ASYNC110 - the hub has no event for it
            await asyncio.sleep(0.01)
        rest = await alerts(stream, 100)
        back = await hub.listen((rest or [held])[-1][0])
        again = await alerts(back, 9 - len(rest))
        await back.aclose()
        await other.aclose()

        assert [it[1] for it in rest + again] == [f"alert-{number}" for number in range(1, 10)]

    heard(site, test)
