"""The service beside MLServer: 15 one-class SVMs, the same requests over the same connections, in turns."""

import json
import os
import platform
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench import drive
from bench.environments import PEERS, python
from bench.setup import console, folder
from scorers import pack
from scorers.errors import ModelError
from scorers.features import features
from scorers.fit import TrainSpec, fit_device
from scorers.fleet import Fleet
from scorers.statistics import Floats, Statistics
from tidewatch.servers import Server, free_ports

MODELS = 15
METRICS = 1
TRAINED = 280
"""Windows a model is trained on, as the published models were."""
CONNECTIONS = (1, 32)
TURNS = 5
OURS, PEER = "tidewatch", "mlserver"
_READY_S = 120.0


class Http(Server):
    """A server of the protocol."""

    def __init__(self, name: str, command: list[str], log: Path, port: int, environ: dict[str, str]) -> None:
        super().__init__(name, command, log, os.environ | environ)
        self.port = port

    def answers(self) -> bool:
        """Whether its last model is ready."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/v2/models/{model_name(MODELS - 1)}/ready", timeout=1
            ):
                return True
        except (urllib.error.URLError, OSError):
            return False


def run(seconds: float, only: str | None = None) -> dict[str, Any]:
    """Measure both, at 1 and at 32 connections.

    Raises:
        ModelError: an answer was none.
    """
    load = os.getloadavg()
    pasts = {model_name(number): windows(number, TRAINED) for number in range(MODELS)}
    bodies = {name: _body(windows(number + MODELS, 1)) for number, name in enumerate(pasts)}
    runners: dict[str, Callable[[Path, dict[str, Statistics]], Any]] = {OURS: _ours, PEER: _mlserver}
    found: dict[str, Any] = {name: {} for name in runners if only in (None, name)}
    with folder(keep=False) as place, ExitStack() as stack:
        ports = {name: stack.enter_context(runners[name](place, pasts)).port for name in found}
        for many in CONNECTIONS:
            for name, figures in _measured(ports, bodies, many, seconds).items():
                found[name][str(many)] = figures
    machine = {"cores": os.cpu_count(), "load": load, "python": platform.python_version()}
    return {"machine": machine, "seconds": seconds, "models": MODELS, "servers": found, "times": _times(found)}


def _times(found: dict[str, Any]) -> float | None:
    most = str(CONNECTIONS[-1])
    return found[OURS][most]["rate"] / found[PEER][most]["rate"] if {OURS, PEER} <= found.keys() else None


def _measured(
    ports: dict[str, int], bodies: dict[str, bytes], connections: int, seconds: float
) -> dict[str, dict[str, float]]:
    """Figures by server, of so many seconds each, taken in turns: whatever else the machine does meets all alike."""
    loads: dict[str, list[drive.Load]] = {name: [] for name in ports}
    for turn in range(TURNS + 1):
        for name, port in ports.items():
            requests = [drive.request(port, f"/v2/models/{model}/infer", body) for model, body in bodies.items()]
            load = drive.drive(port, requests, connections, seconds / TURNS)
            if load.failed:
                raise ModelError(f"{name} answered {load.failed} requests with an error.")
            if turn:  # the first is to warm up
                loads[name].append(load)
    return {name: _figures(name, connections, drive.Load.sum(done)) for name, done in loads.items()}


def _figures(name: str, connections: int, load: drive.Load) -> dict[str, float]:
    figures = {"rate": load.rate, "p50": load.quantile(0.5), "p99": load.quantile(0.99)}
    told = f"{load.rate:,.0f} requests/s, p50 {figures['p50']:.2f} ms, p99 {figures['p99']:.2f} ms"
    console.print(f"{name}, {connections} connections: {told}")
    return figures


def show(result: dict[str, Any]) -> None:
    """The figures as a table."""
    table = Table("server", "connections", "requests/s", "p50 ms", "p99 ms", box=SIMPLE)
    for name, by in result["servers"].items():
        for many, one in by.items():
            table.add_row(name, many, f"{one['rate']:,.0f}", f"{one['p50']:.2f}", f"{one['p99']:.2f}")
    out = Console(highlight=False)
    out.print(table)
    if result["times"] is not None:
        out.print(f"at {CONNECTIONS[-1]} connections {result['times']:.1f} times as many")


@contextmanager
def _ours(place: Path, pasts: dict[str, Statistics]) -> Iterator[Http]:
    spec = TrainSpec()
    models = {name: fit_device(past, np.arange(len(past)), spec) for name, past in pasts.items()}
    pack.save(Fleet.of(models, "v1"), place / "fleet.arrow", 0)
    port, grpc = free_ports(2)
    words = ["-m", "tidewatch", "serve", "--port", str(port), "--grpc-port", str(grpc)]
    environ = {"TIDEWATCH_WORKER__FLEET": str(place / "fleet.arrow"), "TIDEWATCH_SERVING__FOLDER": str(place / "none")}
    with Http(OURS, [sys.executable, *words], place / "tidewatch.log", port, environ) as server:
        yield server


@contextmanager
def _mlserver(place: Path, pasts: dict[str, Statistics]) -> Iterator[Http]:
    interpreter = python(PEER)
    rows: dict[str, Any] = {name: features(past) for name, past in pasts.items()}
    np.savez(place / "rows.npz", **rows)
    home = place / "models"
    subprocess.run([interpreter, PEERS / "mlserver_models.py", place / "rows.npz", home], check=True)
    port, grpc, metrics = free_ports(3)
    about = {"host": "127.0.0.1", "http_port": port, "grpc_port": grpc, "metrics_port": metrics, "debug": False}
    about["metrics_dir"] = str(place / "metrics")
    (place / "metrics").mkdir()
    (home / "settings.json").write_text(json.dumps(about))
    with Http(
        PEER, [str(interpreter.parent / "mlserver"), "start", str(home)], place / "mlserver.log", port, {}
    ) as server:
        yield server


def model_name(number: int) -> str:
    """As the published models are called."""
    return f"device-{number // 5 + 1}-sensor-{number % 5 + 1}"


def windows(seed: int, count: int) -> Statistics:
    """Windows of ten readings each."""
    values = np.random.default_rng(seed).uniform(10, 15, (count, 10, METRICS))
    mean, std = values.mean(axis=1), values.std(axis=1, ddof=1)
    many = np.full(mean.shape, values.shape[1])
    return Statistics(("value",), many, mean, std, values.min(axis=1), values.max(axis=1), values[:, -1])


def _body(windows: Statistics) -> bytes:
    rows: Floats = features(windows)
    one = {"name": "features", "datatype": "FP64", "shape": list(rows.shape), "data": rows.ravel().tolist()}
    return json.dumps({"inputs": [one]}).encode()
