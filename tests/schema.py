"""Asks a service whatever its document allows, and whatever it does not: ``scripts/fuzz --seconds 300``.

The service is a process of its own with every router on, before a Redis of our own and Parquet files with windows and
alerts; keys are asked for, predictions collected. Half of the time names are of models and devices that are there;
then they are made up, and an ``admin`` loads and unloads. Any failed check, any answer from 500 on but 503, any fault
in the log and any complaint of ``promtool`` about the metrics ends with 1.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import redis
import typer
from rich.console import Console

from serving.keys import KeyFile, Scope
from sinks.base import Batch, Source
from sinks.parquet import ParquetSink, ParquetSpec
from sinks.redis import RedisSink, RedisSpec
from tests.laws.sink_kit import NOW, ORIGIN, TOPICS, alert, encoded, score
from tests.promtool import complaints
from tests.services import fleet, forecaster, lay, put
from tidewatch.servers import free_ports, tether
from tidewatch.stack import embedded_redis

PROJECT = Path(__file__).parents[1]
HOST = "127.0.0.1"
DEVICES = ("device-0", "device-1", "other")
OCTOBER, SCORED = "/data/october", "/data/scored"
"""Where jobs may read and write, as the document's example has it; there is nothing there."""
KNOWN = {"path.name": DEVICES[0], "query.model_name": DEVICES[0], "path.device": DEVICES[0], "path.version": "v1"}
_READY_S = 120.0

console = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Site:
    """A service that runs."""

    folder: Path
    port: int
    grpc: int
    keys: dict[str, str]
    """Of an ``admin``, and of somebody who may ``score`` and read."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> str:
        """What it has said."""
        return (self.folder / "log").read_text("utf-8", errors="replace")

    def get(self, path: str, body: object = None, **headers: str) -> str:
        """The text of an answer; a POST where there is a body."""
        headers["authorization"] = f"Bearer {self.keys['admin']}"
        data = None if body is None else msgspec.json.encode(body)
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.read().decode())

    def faults(self) -> list[str]:
        """Lines of its log about faults of its own."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [json.dumps(line) for line in lines if line["level"] in {"error", "critical"} or _fault(line)]


def _fault(line: dict[str, object]) -> bool:
    status = line.get("status")
    return isinstance(status, int) and status >= 500 and status != 503


def filled(folder: Path, url: str) -> None:
    """Windows and alerts of some devices, as the sinks leave them."""
    windows = [score(name, hour, value=hour / 3, scored=hour > 0) for name in DEVICES for hour in range(12)]
    changes = [msgspec.structs.replace(alert(number, "firing"), device_id=DEVICES[number % 3]) for number in range(6)]
    ended = [msgspec.structs.replace(one, state="resolved") for one in changes[:2]]
    batches = [
        Batch(Source(TOPICS.scores, 3), range(len(windows)), encoded(windows)),
        Batch(Source(TOPICS.alerts, 0), range(len(changes) + len(ended)), encoded([*changes, *ended])),
    ]
    client = redis.Redis.from_url(url)
    for sink in (RedisSink(RedisSpec(url, history=5), TOPICS, client=client), ParquetSink(ParquetSpec(folder), TOPICS)):
        sink.bind(ORIGIN)
        for batch in batches:
            if batch.source.topic in sink.topics:
                sink.resume(batch.source)
                sink.write(batch)
                sink.flush(NOW, force=True)
    client.close()


@contextmanager
def running(folder: Path, changes: Mapping[str, object] | None = None) -> Iterator[Site]:
    """A service with all that it can have, ready; ``changes`` are of its settings."""
    put(folder / "fleet.arrow", fleet())
    put(folder / "fleets" / "spare.arrow", fleet("spare", seed=3))
    put(folder / "challenger.arrow", fleet("challenger", seed=5))
    lay(folder / "load" / "models" / "forecaster.twf", forecaster())
    file = KeyFile(folder / "keys.json")
    wanted = {"admin": [Scope.ADMIN], "score": [Scope.SCORE, Scope.READ]}
    keys = {name: file.create(name, scopes, now=time.time())[1] for name, scopes in wanted.items()}
    port, grpc = free_ports(2)
    with embedded_redis() as local:
        filled(folder / "parquet", local.url)
        settings = {
            "worker.fleet": folder / "fleet.arrow",
            "redis.url": local.url,
            "parquet.folder": folder / "parquet",
            "jobs.folder": folder / "jobs",
            "load.folder": folder / "load",
            "serving.folder": folder / "fleets",
            "serving.challenger": folder / "challenger.arrow",
            "serving.canary": 0.2,
            "serving.shadow": 0.2,
            "serving.keys": folder / "keys.json",
            "serving.batch_in": OCTOBER,
            "serving.batch_out": SCORED,
            "serving.collect": "jsonl",
            "serving.collect_folder": folder / "collected",
            "serving.port": port,
            "serving.grpc_port": grpc,
        } | dict(changes or {})
        flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        command = [*tether(), sys.executable, "-m", "tidewatch", *flags, "serve"]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TIDEWATCH_")}
        site = Site(folder, port, grpc, keys)
        with (folder / "log").open("wb") as log, subprocess.Popen(command, env=environ, stderr=log) as process:
            try:
                _await(site, process)
                yield site
            finally:
                process.send_signal(signal.SIGTERM)
        if process.returncode:
            raise AssertionError(f"the service ended with {process.returncode}:\n{site.log[-2_000:]}")


def _await(site: Site, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            site.get("/v2/health/ready")
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the service did not start:\n{site.log[-2_000:]}") from None
            time.sleep(0.05)
        else:
            return


def asked(site: Site, who: str, words: Sequence[str], known: Mapping[str, str]) -> bool:
    """Let schemathesis ask, with every check; whether all went well."""
    config = site.folder / f"{who}.toml"
    lines = "".join(f'"{name}" = "{value}"\n' for name, value in known.items())
    config.write_text(f"[parameters]\n{lines}\n{(PROJECT / 'schemathesis.toml').read_text('utf-8')}", "utf-8")
    command = [str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(config), "run"]
    command += [f"{site.url}/openapi.json", "--checks", "all"]
    command += ["--header", f"Authorization: Bearer {site.keys[who]}", *words]
    return subprocess.run(command, cwd=site.folder, text=True, check=False).returncode == 0


def main(
    *,
    seconds: Annotated[int, typer.Option(min=1, help="For how long.")] = 300,
    examples: Annotated[int, typer.Option(min=1, help="Of each operation, at most.")] = 1_000_000,
    seed: Annotated[int | None, typer.Option(help="Asks the same again.")] = None,
) -> None:
    """Ask a service whatever its document allows and does not; ends with 1 where it does not keep the document."""
    folder = Path(tempfile.mkdtemp(prefix="tidewatch-fuzz-"))
    words = ["--max-time", str(max(1, seconds // 2)), "--max-examples", str(examples), "--continue-on-failure"]
    words += [] if seed is None else ["--seed", str(seed)]
    with running(folder) as site:
        well = [asked(site, "score", words, KNOWN), asked(site, "admin", words, {})]
        wrong = complaints(site.get("/metrics"))
        faults = site.faults()
    for line in (wrong or "").splitlines():
        console.print(f"promtool: {line}", markup=False)
    for line in faults[:20]:
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"{len(faults)} faults in the log; promtool " + ("is missing" if wrong is None else "was asked"))
    if faults or wrong or not all(well):
        console.print(f"kept {folder}")
        raise typer.Exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    typer.run(main)
