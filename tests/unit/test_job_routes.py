"""Jobs over HTTP: asked for, looked at and stopped, and never outside what is allowed."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from scorers.errors import ConfigError, InputError, UnavailableError
from serving.jobs import Fields, Order, Roots, router


class Held:
    """Jobs that nobody runs."""

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self.over: set[str] = set()

    def submit(self, order: Order) -> Fields:
        name = order.id or f"job-{len(self.orders)}"
        if name in self.orders and self.orders[name] != order:
            raise ConfigError(f"Job {name!r} was begun otherwise.")
        self.orders[name] = order
        return self.get(name)

    def list(self) -> list[Fields]:
        return [self.get(name) for name in self.orders]

    def get(self, name: str) -> Fields:
        if name not in self.orders:
            raise InputError(f"There is no job {name!r}.")
        return {"id": name, "state": "cancelled" if name in self.over else "queued"}

    def cancel(self, name: str) -> Fields:
        if name in self.over:
            raise ConfigError("It is over.")
        self.get(name)
        self.over.add(name)
        return self.get(name)


class Site:
    """The routes over two folders."""

    def __init__(self, folder: Path) -> None:
        self.work = Held()
        self.read, self.write = folder / "read", folder / "write"
        for made in (self.read, self.write, folder / "secret"):
            made.mkdir()
        app = FastAPI()
        app.include_router(router(self.work, Roots((str(self.read), "s3://bucket/in"), (str(self.write),))))
        self.app = app

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(self.app), base_url="http://localhost"
            ) as client:
                return await client.request(method, path, **options)

        return asyncio.run(run())

    def post(self, body: dict[str, Any] | None = None) -> httpx.Response:
        whole = {"in": str(self.read), "out": str(self.write / "october")} | (body or {})
        return self.ask("POST", "/jobs", json=whole)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_job_is_accepted_and_has_an_address(site: Site) -> None:
    answer = site.post({"devices": ["pump-*"], "from": "2026-10-01T00:00:00Z", "to": 1_790_899_200_000})
    job = site.ask("GET", answer.headers["location"])

    assert answer.status_code == 202
    assert job.json() == answer.json()
    assert site.work.orders["job-0"] == Order(
        str(site.read), str(site.write / "october"), ("pump-*",), 1_790_812_800_000, 1_790_899_200_000, None
    )


def test_jobs_are_listed_newest_first_in_pages(site: Site) -> None:
    for _ in range(5):
        site.post()
    first = site.ask("GET", "/jobs?limit=3").json()
    rest = site.ask("GET", f"/jobs?limit=3&before={first['next']}").json()

    assert [job["id"] for job in first["jobs"] + rest["jobs"]] == [f"job-{number}" for number in (4, 3, 2, 1, 0)]
    assert rest["next"] is None
    assert site.ask("GET", "/jobs?state=done").json()["jobs"] == []


def test_a_job_is_stopped_once(site: Site) -> None:
    place = site.post().headers["location"]

    assert site.ask("POST", f"{place}/cancel").json()["state"] == "cancelled"
    assert site.ask("POST", f"{place}/cancel").status_code == 409
    assert site.ask("POST", "/jobs/nobody/cancel").status_code == 404
    assert site.ask("GET", "/jobs/nobody").status_code == 404


def test_an_id_that_is_taken_is_409(site: Site) -> None:
    assert site.post({"id": "october"}).status_code == 202
    assert site.post({"id": "october"}).status_code == 202
    assert site.post({"id": "october", "devices": ["x"]}).status_code == 409


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "{read}/../secret", "{read}-other", "{read}/*/../../secret", "relative", "file:///etc",
        "file://{read}/%2e%2e/secret", "{read}/link", "s3://bucket/inner", "s3://bucket/in/../x", "s3://other/in",
    ],
)  # fmt: skip
def test_nothing_is_read_outside_the_roots(site: Site, path: str) -> None:
    (site.read / "link").symlink_to(site.read.parent / "secret")
    answer = site.post({"in": path.format(read=site.read)})

    assert answer.status_code == 403
    assert "serving.batch_in" in answer.text
    assert not site.work.orders


@pytest.mark.parametrize("path", ["{read}/out", "/tmp/x", "{write}/../read", "s3://bucket/in"])
def test_nothing_is_written_outside_the_roots(site: Site, path: str) -> None:
    answer = site.post({"out": path.format(read=site.read, write=site.write)})

    assert answer.status_code == 403
    assert "serving.batch_out" in answer.text


@pytest.mark.parametrize(
    "path", ["{read}", "{read}/a.csv", "{read}/2026-*/x.csv", "file://{read}/a", "s3://bucket/in/x"]
)
def test_what_lies_within_is_accepted(site: Site, path: str) -> None:
    assert site.post({"in": path.format(read=site.read)}).status_code == 202


@pytest.mark.parametrize(
    "more",
    [
        {"from": "yesterday"}, {"from": 5, "to": 5}, {"devices": ["@/etc/passwd"]}, {"devices": "a"}, {"workers": 9},
        {"id": "../x"}, {"in": ""}, {"in": "http://host/x"}, {"out": None},
    ],
)  # fmt: skip
def test_bad_input_is_422_and_names_the_field(site: Site, more: dict[str, Any]) -> None:
    answer = site.post(more)

    assert answer.status_code == 422
    assert (set(more) & {"to", "devices", "workers", "id", "in", "out", "from"}) & set(
        answer.text.replace('"', " ").replace(":", " ").split()
    )


def test_a_disk_that_does_not_answer_is_503(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: Order) -> Fields:
        raise UnavailableError("Cannot write.")

    monkeypatch.setattr(site.work, "submit", away)

    assert site.post().status_code == 503
