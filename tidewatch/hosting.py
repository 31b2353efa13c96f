"""Settings to the parts of the service; what it has of the registry is handed in here."""

import gc
import socket
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI

from scorers.errors import ConfigError, UnavailableError
from serving import wire
from serving.app import Beside, Parts, build
from serving.batching import Batcher
from serving.gate import Gate
from serving.grpc import Listener, listening
from serving.grpccalls import CallInterceptor
from serving.grpckeys import KeyInterceptor
from serving.repository import Repository, Spec
from serving.service import Service, Trial
from serving.shortcut import Shortcut
from tidewatch.follower import Follower
from tidewatch.forecast.settings import model_file
from tidewatch.groups import Settings
from tidewatch.guarding import Around, listen
from tidewatch.registry import CHALLENGER
from tidewatch.wiring import stream_spec

MEGABYTE = 2**20
VERSION = version("tidewatch")
_BACKLOG = 2048
_NEW_OBJECTS = 20_000
"""So many more than have gone, and the newest are looked through for cycles."""
_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what listens everywhere listens here


@dataclass(frozen=True, slots=True)
class Host:
    """The service, and the gate before it."""

    app: FastAPI
    gate: Gate
    shortcut: Shortcut


def spec(settings: Settings) -> Spec:
    """Where models come from."""
    about = settings.serving
    return Spec(
        fleet=settings.worker.fleet,
        name=about.name,
        challenger=about.challenger,
        forecaster=model_file(settings.load) if about.forecaster else None,
        forecaster_name=about.forecaster,
        folder=about.folder,
        memory_bytes=about.memory_mb * MEGABYTE,
        max_rows=about.max_rows,
    )


def host(settings: Settings) -> Host:
    """The whole service.

    Raises:
        ConfigError: HTTP and gRPC have one port, or fleet and forecaster one name; it would be open to everybody; or a
            file of keys or TLS is no use.
    """
    about = settings.serving
    if about.port == about.grpc_port:
        raise ConfigError(
            f"serving.grpc_port is {about.grpc_port}, as serving.port; give it another one, or 0 for none."
        )
    if about.forecaster == about.name:
        raise ConfigError(f"serving.forecaster is {about.forecaster}, as serving.name; call it otherwise.")
    around = Around(settings, about.host)
    service = Service(
        Repository(spec(settings)),
        Batcher(about.delay_ms / 1000),
        stream_spec(settings),
        Trial(about.canary, about.shadow),
        around.collector.take if around.collector else None,
    )
    beside: list[Beside] = [around.running]
    parts = Parts(
        service=service,
        version=VERSION,
        max_bytes=_body_bytes(settings),
        look_s=about.look_s,
        routers=around.routers(),
        beside=beside,
    )
    app = build(parts)
    gate = around.guard(app)
    gate.on_drain.append(service.leave)
    if about.grpc_port:
        beside.append(partial(listening, listener=_listener(settings, gate), version=VERSION))
    return Host(app, gate, Shortcut(service, gate))


def _body_bytes(settings: Settings) -> int:
    return round(settings.serving.body_mb * MEGABYTE)


def _listener(settings: Settings, gate: Gate) -> Listener:
    about = settings.serving
    chain, key = (path.read_bytes() if path else None for path in (about.tls_cert, about.tls_key))
    address = f"{_bracketed(about.host)}:{about.grpc_port}"
    return Listener(
        address,
        key,
        chain,
        max_bytes=_body_bytes(settings),
        streams=about.concurrency,
        header_s=about.header_s,
        drain_s=about.drain_s,
        interceptors=(CallInterceptor(gate), KeyInterceptor(gate)),
    )


def run(settings: Settings, host: Host) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are answered before it ends.

    Raises:
        ConfigError: certificate or key cannot be used.
        UnavailableError: the address is taken, or is none.
    """
    about = settings.serving
    server = wire.server(host.app, host.gate, listen(settings, about.host, about.port), host.shortcut, loop="uvloop")
    family = socket.AF_INET6 if ":" in about.host else socket.AF_INET
    try:
        listener = socket.create_server((about.host, about.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise UnavailableError(
            f"{about.host}:{about.port} cannot be listened on ({error.strerror or error}); "
            "set serving.host or serving.port."
        ) from error
    _rarely_collect()
    with listener:
        server.run(sockets=[listener])
    if not server.started:
        raise UnavailableError("The service could not start; its log says why.")


def _rarely_collect() -> None:
    """Leave what is there, mostly modules, out of the collections of cycles, and let these be rarer.

    A request makes some hundred objects and no cycle; to look for them was an eighth of the ordinary way.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 50)


def follow(settings: Settings) -> None:
    """Keep the files equal to what is in force in the registry, where `models.follow` says so."""
    if not settings.models.follow:
        return
    followers = [Follower(settings.models, settings.worker.fleet)]
    if settings.serving.canary or settings.serving.shadow:
        rivals = settings.models.model_copy(update={"follow": CHALLENGER})
        followers.append(Follower(rivals, settings.serving.challenger))
    if settings.serving.forecaster:
        from tidewatch.forecast.record import FORECASTERS, forecasters  # noqa: PLC0415 - only those who follow are to pay

        followers.append(Follower(forecasters(settings.models), model_file(settings.load), FORECASTERS))
    for follower in followers:
        follower.look()
        follower.start()


def url(settings: Settings) -> str:
    """Where a client on this machine finds it."""
    about = settings.serving
    scheme = "https" if about.tls_cert else "http"
    return f"{scheme}://{_bracketed(_HERE.get(about.host, about.host))}:{about.port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
