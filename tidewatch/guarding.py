"""Settings to what stands around the service: its gate, its wire, the routes of state and jobs, what it collects."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import redis.asyncio
from fastapi import APIRouter, FastAPI

from serving import collect, jobs, state
from serving.collect import Collector, CollectSpec
from serving.events import Hub
from serving.gate import Gate, GuardSpec
from serving.guard import guard
from serving.limits import Limits
from serving.recent import Recent
from serving.wire import Listen, ring
from sinks.read import dataset
from stream.kafka import ensure_topic, producer
from tidewatch.groups import Settings

MB = 1024 * 1024
_REDIS_S = 5.0
_ACKNOWLEDGED_MS = 10_000
"""A prediction that Kafka has not acknowledged within this time is dropped."""


class Around:
    """Everything around the service's app; ``running`` holds for the app's lifetime.

    Raises:
        ConfigError: the address is public and no key is in force, or a file of keys or TLS cannot be used.
    """

    def __init__(self, settings: Settings, host: str) -> None:
        self._settings = settings
        serving = settings.serving
        self.keys = ring(serving.keys, host, time.monotonic, time.time())
        client = redis.asyncio.Redis.from_url(
            settings.redis.url.get_secret_value(),
            decode_responses=True,
            socket_timeout=_REDIS_S,
            socket_connect_timeout=_REDIS_S,
        )
        self._client: Any = client
        recent = Recent(client, settings.redis_sink.prefix)
        self.hub = Hub(recent)
        self.work = None
        if serving.batch_in and serving.batch_out:
            from tidewatch.batchwork import BatchWork  # noqa: PLC0415 - pandas and more, which only a service with jobs is to pay

            self.work = BatchWork(settings)
        self.collector = collector(settings)
        self._state = state.State(recent, partial(dataset, settings.parquet.folder), self.hub)

    def routers(self) -> list[APIRouter]:
        """The routes of state, and of jobs where folders are allowed for them."""
        serving = self._settings.serving
        routers = [state.router(self._state)]
        if self.work:
            routers.append(jobs.router(self.work, jobs.Roots(_words(serving.batch_in), _words(serving.batch_out))))
        return routers

    def guard(self, app: FastAPI) -> Gate:
        """Put the gate before the app."""
        serving = self._settings.serving
        limits = Limits(
            body_bytes=round(serving.body_mb * MB),
            body_s=serving.body_s,
            request_s=serving.request_s,
            write_s=serving.write_s,
            concurrency=serving.concurrency,
            streams=serving.streams,
            rate=serving.rate,
            burst=serving.burst,
        )
        gate = guard(
            app, GuardSpec(self.keys, limits, hosts=frozenset(_words(serving.hosts)), origins=_words(serving.cors))
        )
        gate.on_drain.append(self.hub.close)
        if self.collector:
            gate.meters.collected(self.collector.counts)
        return gate

    @asynccontextmanager
    async def running(self, *_: object) -> AsyncIterator[None]:
        """Close what was opened at the end."""
        try:
            yield
        finally:
            self.hub.close()
            await self._client.aclose()
            if self.work:
                self.work.close()
            if self.collector:
                self.collector.close()


def listen(settings: Settings, host: str, port: int) -> Listen:
    """Where and how patiently the service listens."""
    serving = settings.serving
    return Listen(
        host,
        port,
        cert=serving.tls_cert,
        key=serving.tls_key,
        proxies=_words(serving.proxies),
        header_s=serving.header_s,
        notice_s=serving.notice_s,
        drain_s=serving.drain_s,
    )


def collector(settings: Settings) -> Collector | None:
    """What collects inputs and predictions; None where that is off."""
    serving = settings.serving
    folder: Path = serving.collect_folder
    stores: dict[str, Callable[[], collect.Store]] = {
        "jsonl": lambda: collect.Folder(folder, parquet=False),
        "parquet": lambda: collect.Folder(folder, parquet=True),
        "kafka": lambda: _kafka(settings),
    }
    make = stores.get(serving.collect)
    return make and Collector(make(), CollectSpec(serving.collect_share, serving.collect_queue))


def _kafka(settings: Settings) -> collect.Kafka:
    """The topic is made when the first prediction is written, so that the service starts without Kafka."""
    broker, topic = settings.kafka.broker(), settings.serving.collect_topic
    named = settings.topics
    prepare = partial(ensure_topic, broker, topic, partitions=named.partitions, replication=named.replication)
    return collect.Kafka(producer(broker, message_timeout_ms=_ACKNOWLEDGED_MS), topic, prepare)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
