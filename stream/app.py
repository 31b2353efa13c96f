"""The Faust app: everything of the stream wired together, in one place."""

import asyncio
import ctypes
import gc
import logging
import os
import ssl
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, NoReturn

import faust
import msgspec
from faust.types import TP

from scorers.errors import ConfigError, ModelError
from scorers.fleet import Fleet
from scorers.pack import fingerprint, load
from stream.contracts import Topics
from stream.core import Cores, Model
from stream.kafka import Broker
from stream.owners import Owners, WorkerSpec
from stream.partition import Partition, Source, StreamSpec
from stream.readings import READINGS
from stream.sessions import SESSIONS
from stream.transport import Consumer, Fetch
from stream.warm import warm, warm_fleet

log = logging.getLogger(__name__)

_TICK_S = 0.1
_SILENCE_S = 5.0
_FLEET_S = 2.0
_REPORT_S = 1.0
_M_ARENA_MAX = -8
_LEAVE_S = 9.0
"""What is done is out long before, or never will be: the next owner does it again."""


def sources(topics: Topics) -> tuple[Source, ...]:
    """The input topics. Two sessions of a server may start together; two readings of a device may not."""
    return (
        Source(topics.readings, READINGS),
        Source(topics.sessions, SESSIONS, sums=True, distinct=False),
    )


def scoring(topics: Topics, spec: StreamSpec) -> Cores[Fleet]:
    """Cores that window and score both inputs."""
    born = {source.topic: partial(_partition, source, spec, topics) for source in sources(topics)}
    return Cores(born, topics.state, Fleet.empty())


def _partition(source: Source, spec: StreamSpec, topics: Topics, number: int) -> Partition:
    return Partition(source, number, spec, topics)


class App(faust.App):
    """A Faust app whose batched partitions are answered for by ``owners``."""

    owners: Owners[Any]

    async def on_stop(self) -> None:
        """Let go of the partitions first: Faust's own farewells may wait for a broker that is away."""
        exit_in(_LEAVE_S, lambda: int(self.crashed))
        await self.owners.close()
        await super().on_stop()


def exit_in(seconds: float, code: Callable[[], int]) -> None:
    """End the process then, if it has not ended by itself."""
    timer = threading.Timer(seconds, lambda: os._exit(code()))
    timer.daemon = True
    timer.start()


def build(broker: Broker, owners: Owners[Any], worker: WorkerSpec) -> App:
    """The app: an agent for each input topic, a tick, and owners that let go in time."""
    app = App(
        worker.app,
        broker=[f"batched://{address.strip()}" for address in broker.bootstrap.split(",")],
        broker_credentials=credentials(broker.options),
        broker_session_timeout=7.0,
        broker_heartbeat_interval=2.0,
        broker_rebalance_timeout=20.0,
        broker_request_timeout=40.0,
        broker_commit_interval=1.0,
        consumer_max_fetch_size=4 * 1024 * 1024,
        consumer_metadata_max_age_ms=10_000,
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        datadir=tempfile.gettempdir(),  # Faust makes one, though nothing is kept in it
        web_enabled=False,
        autodiscover=False,
    )
    app.owners = owners
    for topic in owners.inputs:
        app.agent(app.topic(topic, value_serializer="raw"), name=f"feed-{topic}")(_feeder(app))
    app.timer(_TICK_S)(_ticker(app))
    app.on_partitions_revoked.connect(_revoker(app), weak=False)
    owners.failed = _crasher(app)
    owners.fenced = _rejoiner(app)
    return app


def _crasher(app: App) -> Callable[[BaseException], None]:
    crashing: set[asyncio.Future[None]] = set()

    def crash(error: BaseException) -> None:
        crashing.add(asyncio.ensure_future(app.crash(error)))

    return crash


def _rejoiner(app: App) -> Callable[[], None]:
    rejoining: set[asyncio.Future[None]] = set()

    def rejoin() -> None:
        consumer = app.consumer
        if isinstance(consumer, Consumer):
            rejoining.add(asyncio.ensure_future(consumer.rejoin()))

    return rejoin


def _feeder(app: App) -> Callable[[Any], Any]:
    async def feed(fetches: AsyncIterator[Fetch]) -> None:
        async for fetch in fetches:
            try:
                await app.owners.feed(fetch)
            except Exception as error:  # an agent that goes on would skip what it could not take in
                log.exception("the stream cannot go on")
                await app.crash(error)
                raise

    return feed


def _ticker(app: App) -> Callable[[], Any]:
    async def tick() -> None:
        consumer = app.consumer
        if isinstance(consumer, Consumer):
            app.owners.tick(lambda tp, offset: consumer.caught_up(tp, offset, _SILENCE_S))

    return tick


def _revoker(app: App) -> Callable[..., Any]:
    async def revoked(_: Any, partitions: set[TP], **__: Any) -> None:
        await app.owners.revoke(tp for tp in partitions if app.owners.batched(tp.topic))

    return revoked


class Followed(NamedTuple, Generic[Model]):
    """What a worker judges by, as a file."""

    load: Callable[[Path], Model]
    """Raises ModelError where the file cannot be used."""
    told: Callable[[Model], str]
    """Says which one is in force."""
    absent: str
    """What is so while there is no file at ``%s``."""


def follow_fleet(app: App, path: Path) -> None:
    """Score by the fleet at ``path``; see ``follow``."""
    absent = "there is no fleet at %s; devices are learning until `tidewatch train` makes one"
    follow(app, path, Followed(_ready, lambda fleet: f"fleet {fleet.version} with {len(fleet)} devices", absent))


def follow(app: App, path: Path, followed: Followed[Any]) -> None:
    """Judge by the file at ``path``, and by its successors as they appear; a bad file keeps the old one.

    The first one is in force before any partition is: what is read again after a restart is judged as it was.

    Raises:
        ModelError: the first file is there and cannot be used.
    """
    seen = _mark(path)
    if seen is None:
        log.warning(followed.absent, path)
    else:
        app.owners.model = followed.load(path)

    @app.timer(_FLEET_S, on_leader=False)  # type: ignore[untyped-decorator]  # Faust's decorators are untyped
    async def look() -> None:
        nonlocal seen
        loop = asyncio.get_running_loop()
        before, seen = seen, await loop.run_in_executor(None, _mark, path)
        if seen is None or seen == before:
            return
        try:
            model = await loop.run_in_executor(None, followed.load, path)
        except ModelError as error:
            log.error("%s stays in force: %s", followed.told(app.owners.model), error)  # noqa: TRY400 - the sentence says it all
            return
        await app.owners.use(model)
        log.info("%s is in force", followed.told(model))


def _ready(path: Path) -> Fleet:
    """The fleet in a file, ready to score without delay."""
    fleet = load(path)
    warm_fleet(fleet)
    return fleet


def _mark(path: Path) -> str | None:
    """What changes when the file does; None while there is none."""
    return fingerprint(path) or ("torn" if path.exists() else None)


def report_counts(app: App, path: Path) -> None:
    """Keep a JSON file with the counts of what has happened since the start."""

    @app.timer(_REPORT_S)  # type: ignore[untyped-decorator]  # Faust's decorators are untyped
    async def report() -> None:
        _report(app.owners, path)

    app.on_before_shutdown.connect(_reporter(app, path), weak=False)


def _reporter(app: App, path: Path) -> Callable[..., None]:
    def last(*_: Any, **__: Any) -> None:
        _report(app.owners, path)

    return last


def _report(owners: Owners[Any], path: Path) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(dict(owners.counts())))
    fresh.replace(path)


def credentials(options: Any) -> Any:
    """Faust's credentials for librdkafka's security settings, or None.

    Raises:
        ConfigError: a mechanism that Faust's client does not speak.
    """
    protocol = str(options.get("security.protocol", "PLAINTEXT")).upper()
    if protocol == "PLAINTEXT":
        return None
    context = None
    if protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=options.get("ssl.ca.location"))
        if "ssl.certificate.location" in options:
            context.load_cert_chain(options["ssl.certificate.location"], options.get("ssl.key.location"))
    if protocol == "SSL":
        return faust.SSLCredentials(context)
    mechanism = str(options.get("sasl.mechanism", options.get("sasl.mechanisms", "PLAIN"))).upper()
    if mechanism not in {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}:
        raise ConfigError(
            f"kafka.options sasl.mechanism {mechanism!r} is not supported; use PLAIN or SCRAM-SHA-256/512."
        )
    return faust.SASLCredentials(
        username=options.get("sasl.username"),
        password=options.get("sasl.password"),
        ssl_context=context,
        mechanism=mechanism,
    )


def share_memory() -> None:
    """Let glibc keep two heaps for all threads, and not eight a core: what one thread frees another takes.

    Messages are made in one thread, copied in a second and freed in a third. To be called before threads are many;
    nothing where the C library is another. ``M_ARENA_MAX`` of mallopt(3).
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def run(app: App, *, loglevel: str = "WARNING") -> NoReturn:
    """Run until a signal or a crash, then end the process: with 0, or with 1 where something broke.

    Python would wait for Kafka's clients to take their leave, which they do not of a broker that is away.
    """
    # decoding makes many short-lived dicts that never form cycles
    gc.set_threshold(100_000, 50, 50)
    warm()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = faust.Worker(app, loop=loop, loglevel=loglevel, quiet=True, redirect_stdouts=False, override_logging=False)
    worker.spinner = None  # its cursor codes would end up in logs
    code: Any = 1
    try:
        worker.execute_from_commandline()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        log.exception("the worker has broken down")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)
