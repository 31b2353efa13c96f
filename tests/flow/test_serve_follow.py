"""A service that follows the registry: who is promoted there answers here, and what is not sound never does."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from scorers.errors import UnavailableError
from scorers.features import features
from tests.services import fleet, forecaster, lay, put
from tests.simulator import Device
from tidewatch.forecast import record as forecast
from tidewatch.forecast.record import FORECASTERS, forecasters
from tidewatch.groups import Models
from tidewatch.registry import FILE, Record, Registry, Version
from tidewatch.servers import free_ports
from tidewatch.settings import load, override
from tidewatch.smoke import Answer, Caller

ROWS = features(Device(0, 4).windows(2)).tolist()
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Site:
    """A registry, and a service of its own process that follows it."""

    folder: Path
    models: Models
    registry: Registry
    caller: Caller
    log: Path

    def register(self, version: str, *, torn: bool = False) -> Version:
        """Register a fleet, perhaps one whose file has lost a byte."""
        model, files = self.folder / f"{version}-model", self.folder / f"{version}-files"
        path = put(model / FILE, fleet(version))
        files.mkdir()
        if torn:
            path.write_bytes(path.read_bytes()[1:])
        return self.registry.record(Record(version, 1, 2, {}, {}, {}, {}, model, files))

    def score(self) -> Answer:
        """Ask a device's model."""
        return self.caller.ask("POST", "/score", {"model_name": "device-0", "data": ROWS})

    def answers(self, version: str) -> bool:
        """Whether that version answers now."""
        answer = self.score()
        return answer.status == 200 and answer.json["model_version"] == version

    def versions(self) -> Any:
        """What may be asked for by version."""
        return self.caller.ask("GET", "/v2/models/device-0").json["versions"]

    def eventually(self, fact: Callable[[], bool]) -> None:
        """Ask again and again until it is so."""
        pause = threading.Event()
        for _ in range(round(PATIENCE_S / 0.05)):
            if fact():
                return
            pause.wait(0.05)
        raise AssertionError(self.log.read_text()[-4000:])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Version ``one`` is champion, and answers."""
    (port,) = free_ports(1)
    changes = {
        "models.registry": f"sqlite:///{tmp_path}/mlflow.db",
        "models.folder": tmp_path / "models",
        "models.follow": "champion",
        "models.follow_s": 0.2,
        "worker.fleet": tmp_path / "fleet.arrow",
        "load.folder": tmp_path / "load",
        "serving.challenger": tmp_path / "challenger.arrow",
        "serving.folder": tmp_path / "fleets",
        "serving.shadow": 1.0,
        "serving.look_s": 0.05,
        "serving.port": port,
        "serving.grpc_port": 0,
        "serving.notice_s": 0.0,
    }
    settings = override(load({}, environ={}), changes).settings
    flags = [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TIDEWATCH_")}
    log = tmp_path / "serve.log"
    site = Site(tmp_path, settings.models, Registry(settings.models), Caller(f"http://127.0.0.1:{port}"), log)
    site.registry.promote(site.register("one"))
    command = [sys.executable, "-m", "tidewatch", *flags, "serve"]
    with (
        log.open("wb") as written,
        subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=written) as process,
    ):
        try:
            site.eventually(lambda: _listening(site) and site.answers("one"))
            yield site
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def _listening(site: Site) -> bool:
    try:
        return site.caller.ask("GET", "/v2/health/live").status == 200
    except UnavailableError:
        return False


def test_a_service_answers_with_who_is_in_force_in_the_registry(site: Site) -> None:
    two, torn = site.register("two"), site.register("torn", torn=True)
    site.registry.promote(two)
    site.eventually(lambda: site.answers("two"))
    site.registry.rollback()
    site.eventually(lambda: site.answers("one"))
    site.registry.promote(torn)
    site.eventually(lambda: "fleet.arrow stays as it is" in site.log.read_text())
    stays = [site.answers("one") for _ in range(20)]
    site.registry.promote(two)
    site.eventually(lambda: site.answers("two"))
    site.registry.challenge(site.registry.version("1"))
    site.eventually(lambda: site.versions() == ["two", "one"])

    assert stays == [True] * 20


def test_a_service_forecasts_by_who_is_in_force_in_the_registry(site: Site) -> None:
    def version() -> Any:
        answer = site.caller.ask("GET", "/v2/models/load")
        return answer.json.get("versions") if answer.status == 200 else None

    assert version() is None
    registry = Registry(forecasters(site.models), FORECASTERS)
    for name in ("l1", "l2"):
        model, files = site.folder / f"{name}-model", site.folder / f"{name}-files"
        model.mkdir()
        files.mkdir()
        lay(model / forecast.FILE, forecaster(name))
        registry.promote(registry.record(Record(name, 1, 2, {}, {}, {}, {}, model, files)))
        site.eventually(partial(_equal, version, [name]))
    registry.rollback()
    site.eventually(partial(_equal, version, ["l1"]))


def _equal(found: Callable[[], Any], wanted: Any) -> bool:
    return bool(found() == wanted)
