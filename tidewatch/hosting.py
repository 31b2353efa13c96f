"""Settings to the parts of the service; what it has of the registry is handed in here."""

from importlib.metadata import version

from fastapi import FastAPI

from scorers.errors import ConfigError
from serving.app import Beside, Parts, build
from serving.batching import Batcher
from serving.collect import Collector
from serving.grpc import Listener, listening
from serving.grpckeys import KeyInterceptor
from serving.guard import Gate
from serving.repository import Repository, Spec
from serving.service import Service, Trial
from serving.wire import Listen
from tidewatch.follower import Follower
from tidewatch.groups import Settings
from tidewatch.guarding import Around, listen
from tidewatch.registry import CHALLENGER
from tidewatch.wiring import stream_spec

MEGABYTE = 2**20
VERSION = version("tidewatch")


def spec(settings: Settings) -> Spec:
    """Where models come from."""
    about = settings.serving
    return Spec(
        fleet=settings.worker.fleet,
        name=about.name,
        challenger=about.challenger,
        folder=about.folder,
        memory_bytes=about.memory_mb * MEGABYTE,
        max_rows=about.max_rows,
    )


def service(settings: Settings, collector: Collector | None = None) -> Service:
    """The models and how they are scored."""
    about = settings.serving
    trial = Trial(about.canary, about.shadow)
    return Service(
        Repository(spec(settings)), Batcher(about.delay_ms / 1000), stream_spec(settings), trial, collector=collector
    )


def application(settings: Settings) -> tuple[FastAPI, Gate]:
    """The whole service, and its gate.

    Raises:
        ConfigError: the address is public and no key is in force, or a file of keys cannot be used.
    """
    about = settings.serving
    around = Around(settings, about.host)
    size = round(about.body_mb * MEGABYTE)
    beside: list[Beside] = [lambda _: around.running()]
    parts = Parts(
        service=service(settings, around.collector),
        version=VERSION,
        max_bytes=size,
        look_s=about.look_s,
        routers=around.routers(),
        beside=beside,
    )
    app = build(parts)
    gate = around.guard(app)
    if about.grpc_port:
        listener = _grpc(settings, size, gate)
        beside.append(lambda service: listening(service, listener, VERSION))
    return app, gate


def _grpc(settings: Settings, size: int, gate: Gate) -> Listener:
    about = settings.serving
    host = f"[{about.host}]" if ":" in about.host else about.host
    key, chain = (path.read_bytes() if path else None for path in (about.tls_key, about.tls_cert))
    return Listener(f"{host}:{about.grpc_port}", key, chain, size, (KeyInterceptor(gate),))


def address(settings: Settings) -> Listen:
    """Where it listens.

    Raises:
        ConfigError: HTTP and gRPC have one port, or TLS lacks a file.
    """
    about = settings.serving
    if about.port == about.grpc_port:
        raise ConfigError(
            f"serving.grpc_port is {about.grpc_port}, as serving.port; give it another one, or 0 for none."
        )
    return listen(settings, about.host, about.port)


def follow(settings: Settings) -> None:
    """Keep the files equal to what is in force in the registry, where `models.follow` says so."""
    if not settings.models.follow:
        return
    pairs = [(settings.models.follow, settings.worker.fleet)]
    if settings.serving.canary or settings.serving.shadow:
        pairs.append((CHALLENGER, settings.serving.challenger))
    for alias, target in pairs:
        follower = Follower(settings.models.model_copy(update={"follow": alias}), target)
        follower.look()
        follower.start()


def url(settings: Settings) -> str:
    """Where a client on this machine finds it."""
    host = settings.serving.host
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - what is bound to all is here too
    scheme = "https" if settings.serving.tls_cert else "http"
    return f"{scheme}://{host}:{settings.serving.port}"
