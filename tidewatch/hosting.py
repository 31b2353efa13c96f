"""Settings to the parts of the service; what it has of the registry is handed in here."""

from importlib.metadata import version

from fastapi import FastAPI

from scorers.errors import ConfigError
from serving.app import Beside, Parts, build
from serving.batching import Batcher
from serving.grpc import Listener, listening
from serving.repository import Repository, Spec
from serving.run import Address
from serving.service import Service, Trial
from tidewatch.follower import Follower
from tidewatch.groups import Settings
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


def service(settings: Settings) -> Service:
    """The models and how they are scored."""
    about = settings.serving
    trial = Trial(about.canary, about.shadow)
    return Service(Repository(spec(settings)), Batcher(about.delay_ms / 1000), stream_spec(settings), trial)


def application(settings: Settings) -> FastAPI:
    """The whole service."""
    about = settings.serving
    beside: list[Beside] = []
    if about.grpc_port:
        host = f"[{about.host}]" if ":" in about.host else about.host
        listener = Listener(f"{host}:{about.grpc_port}", max_bytes=about.max_body_mb * MEGABYTE)
        beside.append(lambda service: listening(service, listener, VERSION))
    parts = Parts(
        service=service(settings),
        version=VERSION,
        max_bytes=about.max_body_mb * MEGABYTE,
        look_s=about.look_s,
        beside=beside,
    )
    return build(parts)


def address(settings: Settings) -> Address:
    """Where it listens.

    Raises:
        ConfigError: HTTP and gRPC have one port.
    """
    about = settings.serving
    if about.port == about.grpc_port:
        raise ConfigError(
            f"serving.grpc_port is {about.grpc_port}, as serving.port; give it another one, or 0 for none."
        )
    return Address(about.host, about.port)


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
    return f"http://{host}:{settings.serving.port}"
