"""Alerts as server-sent events (WHATWG HTML, 9.2): one reader of Redis for all who listen.

An event's id is its id in the log of alerts, so whoever comes back with ``Last-Event-ID`` gets what it missed, as far
back as the log goes. Who takes too little is let go, and comes back that way.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress

from redis.exceptions import RedisError

from serving.recent import CHUNK, Recent, reading

log = logging.getLogger(__name__)

EVENT_ID = re.compile(r"\d{1,20}(-\d{1,20})?")
HEARTBEAT_S = 15.0
BACKLOG = 1000
"""Events that wait for one listener; with more it is let go."""
_AGAIN_S = 1.0
_LOOK_S = 1.0
"""The log is looked at so often where no bell rings, for a bell may be missed."""

Event = tuple[str, str]
"""Id, and the alert as JSON."""


class Listener:
    """Somebody who listens: what waits for him, and whether he is let go."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Event | None] = asyncio.Queue(BACKLOG)

    def put(self, event: Event) -> bool:
        """Add an event; False where too many wait."""
        try:
            self.queue.put_nowait(event)
        except asyncio.QueueFull:
            return False
        return True

    def end(self) -> None:
        """Nothing more comes."""
        while not self.queue.empty():  # who comes back gets them, as they follow the last he had
            self.queue.get_nowait()
        self.queue.put_nowait(None)


class Hub:
    """Reads the log of alerts once for all who listen; while nobody does, it does not read."""

    def __init__(self, recent: Recent, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._recent = recent
        self._heartbeat_s = heartbeat_s
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def close(self) -> None:
        """Let everybody go: the service leaves. In the event loop."""
        self._closed = True
        for listener in list(self._listeners):
            listener.end()

    async def listen(self, last: str | None) -> AsyncGenerator[bytes]:
        """Events from behind ``last`` on, or from now on.

        Raises:
            HTTPException: 503, Redis does not answer.
        """
        async with reading():
            begin = last or await self._newest()
            await self._start()
        return self._events(begin)

    async def _events(self, last: str) -> AsyncGenerator[bytes]:
        """The stream itself, as bytes."""
        listener = Listener()
        self._listeners.add(listener)
        try:
            if self._closed:
                listener.end()
            await self._start()
            yield b"retry: 2000\n\n"
            async for event in self._missed(last):
                last = event[0]
                yield _written(event)
            while True:
                try:
                    async with asyncio.timeout(self._heartbeat_s):
                        event_or_end = await listener.queue.get()
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                if event_or_end is None:
                    return
                if _order(event_or_end[0]) > _order(last):
                    last = event_or_end[0]
                    yield _written(event_or_end)
        finally:
            self._leave(listener)

    async def _missed(self, last: str) -> AsyncIterator[Event]:
        """What the log holds behind an id."""
        while True:
            held = await self._recent.client.xrange(self._key, min=f"({last}", count=CHUNK)
            for number, fields in held:
                yield number, fields["alert"]
            if len(held) < CHUNK:
                return
            last = held[-1][0]

    @property
    def _key(self) -> str:
        return self._recent.key("alerts", "log")

    async def _newest(self) -> str:
        held = await self._recent.client.xrevrange(self._key, count=1)
        return str(held[0][0]) if held else "0-0"

    async def _start(self) -> None:
        """See that the log is being read from now on: who looks what he missed after this misses nothing."""
        if self._task is None or self._task.done():
            newest = await self._newest()
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._read(newest))

    def _leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _read(self, last: str) -> None:
        """Hand on what comes, whatever Redis does meanwhile: its channel is the bell, its log has the alerts."""
        task = asyncio.current_task()
        while task and not task.cancelling():  # the client may swallow a cancellation
            try:
                async with self._recent.client.pubsub(ignore_subscribe_messages=True) as bell:
                    await bell.subscribe(self._recent.key("alerts"))
                    while not task.cancelling():
                        async for event in self._missed(last):
                            last = event[0]
                            self._hand(event)
                        await bell.get_message(timeout=_LOOK_S)
            except RedisError as error:
                if not task.cancelling():
                    log.warning("Alerts are not heard: %s", error)
                    await asyncio.sleep(_AGAIN_S)

    def _hand(self, event: Event) -> None:
        for listener in list(self._listeners):
            if not listener.put(event):
                self._listeners.discard(listener)
                listener.end()


def _order(number: str) -> tuple[int, int]:
    first, _, second = number.partition("-")
    with suppress(ValueError):
        return int(first), int(second or 0)
    return (0, 0)


def _written(event: Event) -> bytes:
    number, alert = event
    return f"id: {number}\nevent: alert\ndata: {alert}\n\n".encode()
