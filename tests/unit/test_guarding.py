"""Settings become a gate, a wire, routes and a collector; jobs of the service run as those of the command line."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from scorers.errors import ConfigError
from serving.keys import KeyFile, Scope
from serving.trace import current
from tests.batches import readings, settings, train, write
from tidewatch.guarding import Around, collector, listen

DONE_S = 120.0


def around(folder: Path, **changes: object) -> Around:
    """What stands around a service on loopback, everything in one folder."""
    given = {
        "serving.keys": folder / "keys.json",
        "serving.batch_in": str(folder),
        "serving.batch_out": str(folder / "out"),
        "serving.batch_parallel": 1,
        "redis.url": "redis://127.0.0.1:1/0",
        "parquet.folder": folder / "parquet",
    }
    return Around(settings(folder, **(given | changes)), "127.0.0.1")


async def finished(client: httpx.AsyncClient, place: str) -> dict[str, Any]:
    """A job once it is over."""
    async with asyncio.timeout(DONE_S):
        while True:
            job: dict[str, Any] = (await client.get(place)).json()
            if job["state"] not in {"queued", "running"}:
                return job
            await asyncio.sleep(0.05)


def test_a_job_is_scored_as_the_command_line_does(tmp_path: Path) -> None:
    current_settings = settings(tmp_path)
    train(current_settings)
    source = write(tmp_path / "in", readings(), files=2)
    made = around(tmp_path)

    async def run() -> None:
        app = FastAPI(lifespan=made.running)
        for router in made.routers():
            app.include_router(router)
        gate = made.guard(app)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            order = {"in": str(source), "out": str(tmp_path / "out" / "a"), "devices": ["pump-000*"], "id": "october"}
            answer = await client.post("/jobs", json=order)
            job = await finished(client, answer.headers["location"])
            bad = await client.post("/jobs", json=order | {"in": str(tmp_path / "none"), "id": "none"})
            failed = await finished(client, bad.headers["location"])
            outside = await client.post("/jobs", json=order | {"in": "/etc/hosts", "id": "x"})
            away = await client.get("/devices")

        assert (answer.status_code, job["state"], job["failures"]) == (202, "done", 0)
        assert job["counts"]["windows"] > 0
        assert list((tmp_path / "out" / "a").rglob("*.parquet"))
        assert failed["state"] == "failed"
        assert str(tmp_path / "none") in failed["error"]
        assert (outside.status_code, away.status_code) == (403, 503)
        assert gate.at_work == 0
        assert current.get() is None

    asyncio.run(run())


def test_jobs_are_offered_only_where_folders_are_allowed(tmp_path: Path) -> None:
    paths = {route.path for router in around(tmp_path, **{"serving.batch_in": ""}).routers() for route in router.routes}  # type: ignore[attr-defined]

    assert "/devices" in paths
    assert "/jobs" not in paths


def test_a_service_beyond_loopback_does_not_start_without_keys(tmp_path: Path) -> None:
    given = settings(tmp_path, **{"serving.keys": tmp_path / "keys.json"})
    with pytest.raises(ConfigError, match="tidewatch keys create"):
        Around(given, "0.0.0.0")

    KeyFile(tmp_path / "keys.json").create("a", [Scope.READ], now=time.time())

    assert Around(given, "0.0.0.0").keys is not None


def test_settings_reach_the_wire(tmp_path: Path) -> None:
    changes = {"serving.proxies": "10.0.0.1,10.0.0.2", "serving.notice_s": 0, "serving.header_s": 3}
    made = listen(settings(tmp_path, **changes), "::1", 80)

    assert (made.host, made.port, made.header_s, made.notice_s) == ("::1", 80, 3, 0)
    assert made.proxies == ("10.0.0.1", "10.0.0.2")
    with pytest.raises(ConfigError, match="tls_key"):
        listen(settings(tmp_path, **{"serving.tls_cert": "a.pem"}), "::1", 80)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_predictions_are_collected_where_settings_say(tmp_path: Path, kind: str) -> None:
    assert collector(settings(tmp_path)) is None

    made = collector(settings(tmp_path, **{"serving.collect": kind, "serving.collect_folder": tmp_path / "kept"}))
    assert made is not None
    made.take("m", "v", {"x": [1.0]}, {})
    made.close()
    (file,) = (tmp_path / "kept").glob(f"date=*/*.{kind}")

    assert kind == "parquet" or json.loads(file.read_text())["data"]["inputs"] == {"x": [1.0]}
