"""The service under load while its champion is swapped again and again, and while it leaves: no request may fail.

A version is put in force as operators do it, by ``tidewatch models promote`` on a machine of their own; the service
follows the alias. Every answer is compared with what the version that it names decides.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench import callers
from bench.callers import Caller, GrpcCaller, Question, Tally
from bench.serve import MODELS, Http, model_name, windows
from bench.setup import console, folder
from scorers import pack
from scorers.errors import UnavailableError
from scorers.features import features
from scorers.fit import TrainSpec, fit_device
from scorers.fleet import Fleet
from tidewatch.registry import FILE, Record, Registry
from tidewatch.servers import free_ports
from tidewatch.settings import load, override

LARGE = 5_000
"""Rows of a large request, which is scored in a thread."""
ROWS = 3
TRAINED = 60
_SEEN_S = 60.0
_LEFT_S = 90.0


@dataclass(frozen=True, slots=True)
class Case:
    """How long, how many swaps, and how many connections."""

    seconds: float = 60.0
    swaps: int = 10
    http: int = 32
    grpc: int = 4


@dataclass(frozen=True, slots=True)
class Site:
    """A service that runs, and what promotes a version of its models."""

    server: Http
    log: Path
    grpc: int
    environ: Mapping[str, str]


def run(case: Case, *, keep: bool) -> dict[str, Any]:
    """Load it, swap, and let it leave.

    Raises:
        UnavailableError: a version never answered, or the service did not leave.
    """
    with folder(keep=keep) as place:
        fleets = [_fleet(number) for number in range(case.swaps + 1)]
        environ = _registered(place, fleets)
        _promote(environ, 1)
        port, grpc = free_ports(2)
        words = ["-m", "tidewatch", "serve", "--port", str(port), "--grpc-port", str(grpc)]
        command = [sys.executable, *words]
        log = place / "tidewatch.log"
        with Http("tidewatch", command, log, port, environ | _service(place)) as server:
            site = Site(server, log, grpc, environ)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                result = runner.run(_play(case, site, fleets))
    console.print(f"{result['requests']:,} requests, {sum(result['failed'].values())} failed")
    return result


def failed(result: Mapping[str, Any]) -> bool:
    """Whether a request failed, a version never answered, or the service ended badly."""
    return bool(result["failed"] or result["unseen"] or result["code"] or result["errors"])


def show(result: Mapping[str, Any]) -> None:
    """The figures as a table."""
    table = Table("callers", "answered", box=SIMPLE)
    for kind, count in sorted(result["answered"].items()):
        table.add_row(kind, f"{count:,}")
    out = Console(highlight=False)
    out.print(table)
    out.print(
        f"{result['requests']:,} requests in {result['seconds']:.0f} s, {result['swaps']} swaps: "
        f"p50 {result['p50_ms']:.1f} ms, p99 {result['p99_ms']:.1f} ms, longest {result['longest_ms']:.0f} ms; "
        f"left in {result['left_s']:.1f} s with exit code {result['code']}",
        soft_wrap=True,
    )
    for name in ("told", "failed"):
        for reason, count in sorted(result[name].items()):
            out.print(f"{name}: {count:,} times {reason}", soft_wrap=True)
    for line in result["errors"]:
        out.print(f"failed: {line}", soft_wrap=True, markup=False)
    for version in result["unseen"]:
        out.print(f"failed: nobody was answered by version {version}")


# --- what is served ----------------------------------------------------------------------------


def _fleet(number: int) -> Fleet:
    """A version: the same devices, trained on other windows."""
    spec = TrainSpec()
    pasts = {model_name(at): windows(1000 * number + at, TRAINED) for at in range(MODELS)}
    models = {name: fit_device(past, np.arange(len(past)), spec) for name, past in pasts.items()}
    return Fleet.of(models, f"v{number}")


def _registered(place: Path, fleets: Sequence[Fleet]) -> dict[str, str]:
    """The fleets as versions 1, 2, … of a registry; the environment of an operator's commands."""
    changes = {"models.registry": f"sqlite:///{place}/mlflow.db", "models.folder": place / "models"}
    registry = Registry(override(load({}, environ={}), changes).settings.models)
    files = place / "files"
    files.mkdir()
    for fleet in fleets:
        kept = place / fleet.version
        kept.mkdir()
        pack.save(fleet, kept / FILE, 0)
        registry.record(Record(fleet.version, 0, 1, {}, {}, {}, {}, kept, files))
    named = {f"TIDEWATCH_{name.replace('.', '__').upper()}": str(value) for name, value in changes.items()}
    return os.environ | named | {"TIDEWATCH_WORKER__FLEET": str(place / "operator.arrow")}


def _service(place: Path) -> dict[str, str]:
    return {
        "TIDEWATCH_WORKER__FLEET": str(place / "fleet.arrow"),
        "TIDEWATCH_MODELS__FOLLOW": "champion",
        "TIDEWATCH_MODELS__FOLLOW_S": "1",
        "TIDEWATCH_SERVING__FOLDER": str(place / "none"),
        "TIDEWATCH_SERVING__KEYS": str(place / "keys.json"),
    }


def _promote(environ: Mapping[str, str], number: int) -> None:
    words = ["-m", "tidewatch", "models", "promote", str(number), "--json"]
    done = subprocess.run([sys.executable, *words], env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"Version {number} could not be promoted:\n{done.stderr[-2_000:]}")


# --- the load ----------------------------------------------------------------------------------


async def _play(case: Case, site: Site, fleets: Sequence[Fleet]) -> dict[str, Any]:
    tally = Tally()
    everybody = [asyncio.create_task(caller.go_on(tally)) for caller in _callers(case, site, fleets)]
    everybody.append(asyncio.create_task(callers.probe(site.server.port, tally)))
    began = time.monotonic()
    for number in range(1, case.swaps + 1):
        await asyncio.sleep(began + number * case.seconds / (case.swaps + 1) - time.monotonic())
        await asyncio.to_thread(_promote, site.environ, number + 1)
        await _seen(tally, fleets[number].version)
        console.print(f"{fleets[number].version} answers after {time.monotonic() - began:.1f} s")
    await asyncio.sleep(began + case.seconds - time.monotonic())
    asked = time.monotonic()
    site.server.terminate()
    code = await asyncio.to_thread(site.server.wait, _LEFT_S)
    left = time.monotonic()
    await asyncio.gather(*everybody)
    latencies = 1000 * np.array(tally.latencies)
    return {
        "requests": tally.answered.total() + tally.told.total() + tally.failed.total(),
        "seconds": left - began,
        "swaps": case.swaps,
        "answered": dict(tally.answered),
        "told": dict(tally.told),
        "failed": dict(tally.failed),
        "unseen": [fleet.version for fleet in fleets if not tally.versions[fleet.version]],
        "versions": dict(tally.versions),
        "p50_ms": float(np.quantile(latencies, 0.5)),
        "p99_ms": float(np.quantile(latencies, 0.99)),
        "longest_ms": float(latencies.max()),
        "left_s": left - asked,
        "code": code,
        "errors": _errors(site.log),
    }


def _errors(log: Path) -> list[str]:
    """What the service's log tells of faults of its own."""
    return [line for line in log.read_text("utf-8", errors="replace").splitlines() if '"level": "error"' in line]


async def _seen(tally: Tally, version: str) -> None:
    try:
        async with asyncio.timeout(_SEEN_S):
            while not tally.versions[version]:  # noqa: ASYNC110 - it is for callers to answer
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise UnavailableError(f"Version {version} was promoted, and nobody was answered by it.") from None


def _callers(case: Case, site: Site, fleets: Sequence[Fleet]) -> list[Caller | GrpcCaller]:
    """Most pause between requests; some do not, some ask for much, some are slow to send it."""
    port = site.server.port
    few = [_question(model_name(at), at, ROWS, fleets) for at in range(MODELS)]
    much = [_question(model_name(0), MODELS, LARGE, fleets)]
    kinds = {
        0: Caller("HTTP, without a pause", port, few),
        1: Caller("HTTP, 5,000 rows", port, much, pause_s=callers.PAUSE_S),
        2: Caller("HTTP, slow to send", port, few, slow_s=callers.SLOW_S),
    }
    usual = Caller("HTTP", port, few, pause_s=callers.PAUSE_S)
    over_grpc = {0: GrpcCaller("gRPC, 5,000 rows", site.grpc, much)}
    usual_grpc = GrpcCaller("gRPC", site.grpc, few)
    return [
        *(kinds.get(number % 12, usual) for number in range(case.http)),
        *(over_grpc.get(number % 4, usual_grpc) for number in range(case.grpc)),
    ]


def _question(model: str, seed: int, count: int, fleets: Sequence[Fleet]) -> Question:
    given = windows(seed, count)
    decided = {fleet.version: fleet.score(fleet.index([model] * count), given).decision for fleet in fleets}
    return Question(model, features(given), decided)
