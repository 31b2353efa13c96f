"""What tests of the service share: fleets, and a service that listens, in a thread of its own."""

import asyncio
import http.client
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
import uvloop

from scorers import pack
from scorers.fit import Detector, TrainSpec, fit_device
from scorers.fleet import Fleet
from scorers.forecast import pack as forecasters
from scorers.forecast.fit import PUBLISHED, Teaching, fit
from scorers.forecast.labels import halves
from scorers.forecast.model import Forecaster
from scorers.model import DeviceModel
from serving import wire
from serving.app import Parts, build
from serving.batching import Batcher
from serving.gate import Gate, GuardSpec
from serving.grpc import Listener, listening
from serving.guard import guard
from serving.repository import Repository, Spec
from serving.service import Service, Trial
from serving.shortcut import Shortcut
from serving.wire import Listen
from stream.partition import StreamSpec
from tests import loads
from tests.simulator import Device
from tidewatch.servers import free_ports

SPEC = TrainSpec()
TRIAL = Trial()
NEIGHBOURS = TrainSpec(detector=Detector.NEAREST)


@lru_cache(maxsize=32)
def model(seed: int, metrics: int = 4, *, neighbours: bool = False) -> DeviceModel:
    """A model of a simulated device's windows."""
    return fit_device(Device(seed, metrics).windows(80), np.arange(80), NEIGHBOURS if neighbours else SPEC)


def fleet(version: str = "v1", *, seed: int = 0) -> Fleet:
    """Three devices of one-class SVMs, two kinds of metrics, and one of another detector."""
    models = {f"device-{at}": model(seed + at, metrics=4 + at % 2) for at in range(3)}
    return Fleet.of(models | {"other": model(seed + 7, neighbours=True)}, version)


def put(path: Path, packed: Fleet) -> Path:
    """A fleet in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pack.save(packed, path, 0)
    return path


SPLIT = loads.START + 16 * loads.DAY_MS
"""Epoch ms; forecasters learn hours before it."""
FOREST = replace(PUBLISHED, options={**PUBLISHED.options, "n_estimators": 9})


@lru_cache(maxsize=8)
def forecaster(version: str = "l1", seed: int = 1) -> Forecaster:
    """A small forest of simulated servers' hours."""
    known = loads.rows(loads.hours(seed=seed))
    return fit(halves(known, SPLIT)[0], FOREST, Teaching((100.0, 500.0), loads.SPEC, version))


def lay(path: Path, made: Forecaster) -> Path:
    """A forecaster in a file."""
    forecasters.save(made, path)
    return path


@dataclass(frozen=True)
class Running:
    """A service that listens."""

    port: int
    grpc: int
    service: Service
    gate: Gate
    loop: asyncio.AbstractEventLoop

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        status, _, content = self.raw(method, path, body, headers)
        return status, msgspec.json.decode(content)

    def raw(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and bytes of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            given = body if isinstance(body, bytes | None) else msgspec.json.encode(body)
            connection.request(method, path, given, headers or {})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    def do(self, work: Any) -> Any:
        """What a coroutine gives in the service's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)


@contextmanager
def serving(
    spec: Spec, trial: Trial = TRIAL, stream: StreamSpec | None = None, *, shortcut: bool = True
) -> Iterator[Running]:
    """A service on free ports, ready when it is given; ``shortcut`` False sends every request the ordinary way."""
    port, grpc = free_ports(2)
    service = Service(Repository(spec), Batcher(0.001), stream or StreamSpec(), trial)
    beside = partial(_listening, grpc)
    loops: list[asyncio.AbstractEventLoop] = []
    ready = threading.Event()

    @asynccontextmanager
    async def started(_: Service) -> AsyncIterator[None]:
        loops.append(asyncio.get_running_loop())
        ready.set()
        yield

    app = build(Parts(service, "0", look_s=0.05, beside=(beside, started)))
    gate = guard(app, GuardSpec())
    listener = socket.create_server(("127.0.0.1", port))
    server = wire.server(app, gate, Listen(notice_s=0), Shortcut(service, gate) if shortcut else None)
    work = partial(asyncio.Runner(loop_factory=uvloop.new_event_loop).run, server.serve([listener]))
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield Running(port, grpc, service, gate, loops[0])
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


def _listening(port: int, service: Service) -> Any:
    return listening(service, Listener(f"127.0.0.1:{port}"), "0")


@contextmanager
def tritons(kind: str, running: Running) -> Iterator[tuple[Any, Any]]:
    """Triton's client over ``http`` or ``grpc``, and the module that its tensors are of."""
    module, port = {"http": (over_http, running.port), "grpc": (over_grpc, running.grpc)}[kind]
    client: Any = module.InferenceServerClient(f"127.0.0.1:{port}")
    yield client, module
    client.close()
