"""The routes of state answer what the sinks wrote, in pages and formats, from Redis and from Parquet."""

import asyncio
import csv
import io
from pathlib import Path
from typing import Any

import fakeredis
import httpx
import msgspec
import pyarrow as pa
import pytest
from fastapi import FastAPI

from serving.older import history
from serving.recent import Recent
from serving.state import State, router
from sinks.base import Batch, Source
from sinks.parquet import ParquetSink, ParquetSpec
from sinks.read import dataset
from sinks.redis import RedisSink, RedisSpec
from stream.contracts import Alert, Score
from tests.laws.sink_kit import HOUR, NOON, NOW, ORIGIN, TOPICS, alert, encoded, score

SCORES, ALERTS = Source(TOPICS.scores, 3), Source(TOPICS.alerts, 0)
KEPT = 3
"""Windows of a device that Redis keeps."""


class Site:
    """Redis and Parquet as the sinks left them, and the routes."""

    def __init__(self, folder: Path, *, parquet: bool = True) -> None:
        self.server = fakeredis.FakeServer()
        self.folder = folder
        self.parquet = parquet
        self.at = {SCORES: 0, ALERTS: 0}
        spec = RedisSpec("redis://", history=KEPT)
        self.redis = RedisSink(spec, TOPICS, client=fakeredis.FakeRedis(server=self.server))
        self.files = ParquetSink(ParquetSpec(folder), TOPICS)
        for sink in (self.redis, self.files):
            sink.bind(ORIGIN)
            for source in self.at:
                sink.resume(source) if source.topic in sink.topics else None

    def put(self, source: Source, *records: Score | Alert) -> None:
        """What the sinks read from Kafka."""
        first = self.at[source]
        self.at[source] += len(records)
        for sink in (self.redis, self.files):
            if source.topic in sink.topics:
                sink.write(Batch(source, range(first, first + len(records)), encoded(records)))
                sink.flush(NOW, force=True)

    def ask(self, path: str, **headers: str) -> httpx.Response:
        """One request."""

        async def run() -> httpx.Response:
            client = fakeredis.FakeAsyncRedis(server=self.server, decode_responses=True)
            table = (lambda name: dataset(self.folder, name)) if self.parquet else None
            app = FastAPI()
            app.include_router(router(State(Recent(client), table)))
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as caller:
                answer = await caller.get(path, headers=headers)
            await client.aclose()
            return answer

        return asyncio.run(run())

    def rows(self, path: str, name: str) -> list[dict[str, Any]]:
        answer = self.ask(path)
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()[name]
        return rows


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [row["device_id"] for row in rows]


def pages(site: Site, path: str, name: str) -> list[dict[str, Any]]:
    """All rows, page by page."""
    rows: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = site.ask(path + cursor).json()
        rows += page[name]
        if page["next"] is None:
            return rows
        cursor = f"&cursor={page['next']}"


def test_devices_come_oddest_first_and_those_without_a_verdict_last(site: Site) -> None:
    site.put(SCORES, score("b", value=2.0), score("a", scored=False), score("c", value=9.0), score("d", value=0.5))

    assert names(site.rows("/devices", "devices")) == ["c", "b", "d", "a"]
    assert names(site.rows("/devices?sort=name", "devices")) == ["a", "b", "c", "d"]
    assert names(site.rows("/devices?anomalous=true", "devices")) == ["c", "b"]
    assert names(site.rows("/devices?anomalous=false", "devices")) == ["d", "a"]
    assert names(site.rows("/devices?above=51.9", "devices")) == ["c", "b"]
    assert names(site.rows("/devices?name=[ab]*", "devices")) == ["b", "a"]


def test_a_device_is_what_the_sink_wrote(site: Site) -> None:
    site.put(SCORES, score("pump 1"))
    site.put(ALERTS, msgspec.structs.replace(alert(1, "firing"), device_id="pump 1"), alert(2, "firing"))
    row = site.ask("/devices/pump%201").json()

    assert row["window_start"] == NOON
    assert (row["score"], row["anomaly"], row["model_version"]) == (51.5, True, "v1")
    assert row["contributors"][0]["feature"] == "temperature.mean"
    assert row["metrics"]["temperature"]["latest"]["mean"] == 1.5
    assert row["heard"] == NOW * 1000
    assert [it["alert_id"] for it in row["alerts"]] == ["alert-1"]


@pytest.mark.parametrize("sort", ["severity", "name", "heard"])
@pytest.mark.parametrize("limit", [1, 2, 7, 20])
def test_pages_hold_every_device_once(site: Site, sort: str, limit: int) -> None:
    fleet = [score(f"pump-{number:02}", value=number % 4, scored=number % 5 > 0) for number in range(20)]
    site.put(SCORES, *fleet)
    found = pages(site, f"/devices?sort={sort}&limit={limit}", "devices")

    assert sorted(names(found)) == [f"pump-{number:02}" for number in range(20)]
    assert found == site.rows(f"/devices?sort={sort}", "devices")


def test_unknown_devices_are_404(site: Site) -> None:
    assert site.ask("/devices/nobody").status_code == 404
    assert site.ask("/devices/nobody/history").status_code == 404


def test_history_goes_on_in_parquet_where_redis_ends(site: Site) -> None:
    windows = [score("a", hour, value=hour / 10) for hour in range(40)]
    site.put(SCORES, *windows, score("b"))
    rows = site.rows("/devices/a/history", "history")

    assert [row["window_start"] for row in rows] == [NOON + hour * HOUR for hour in reversed(range(40))]
    assert [row["means"]["temperature"] for row in rows] == [hour / 10 for hour in reversed(range(40))]
    assert [row["score"] for row in rows] == [50 + hour / 10 for hour in reversed(range(40))]
    assert rows == pages(site, "/devices/a/history?limit=7", "history")


def test_history_of_a_time_is_half_open(site: Site) -> None:
    site.put(SCORES, *(score("a", hour) for hour in range(10)))
    rows = site.rows(f"/devices/a/history?from=2023-11-15T13:00:00Z&to={NOON + 8 * HOUR}", "history")

    assert [row["window_start"] for row in rows] == [NOON + hour * HOUR for hour in range(7, 0, -1)]


def test_history_answers_while_redis_is_away(site: Site) -> None:
    site.put(SCORES, *(score("a", hour) for hour in range(5)))
    site.server.connected = False

    assert len(site.rows("/devices/a/history", "history")) == 5
    assert site.ask("/devices").status_code == 503
    assert "retry-after" in site.ask("/alerts").headers
    assert site.ask("/stream").status_code == 503

    site.parquet = False

    assert site.ask("/devices/a/history").status_code == 503


def test_only_files_of_the_dates_that_are_needed_are_opened(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.put(SCORES, *(score("a", 24 * day) for day in range(60)))
    opened: list[str] = []
    kept = "sinks.read.Kept.open_input_file"
    before: Any = __import__("sinks.read", fromlist=["Kept"]).Kept.open_input_file

    def counted(self: Any, path: str) -> Any:
        opened.append(path)
        return before(self, path)

    data = {name: dataset(site.folder, name) for name in ("predictions", "statistics")}
    monkeypatch.setattr(kept, counted)
    rows = history(data.__getitem__, "a", None, None, 2)

    assert len(rows) == 2
    assert len({Path(path).parent for path in opened}) <= 2 * 3


def test_nothing_in_a_name_is_part_of_a_statement(site: Site) -> None:
    name = "x' OR 1=1 --"
    site.put(SCORES, *(score(name, hour) for hour in range(5)), *(score("b", hour) for hour in range(5)))

    assert len(site.rows(f"/devices/{name}/history", "history")) == 5
    assert len(site.rows("/devices/b/history", "history")) == 5


def test_alerts_that_fire_and_the_log_of_all(site: Site) -> None:
    site.put(ALERTS, alert(1, "firing"), alert(2, "firing"), alert(1, "resolved"))
    log = pages(site, "/alerts?which=log&limit=1", "alerts")

    assert [it["alert_id"] for it in site.rows("/alerts", "alerts")] == ["alert-2"]
    assert [(it["alert_id"], it["state"]) for it in log] == [
        ("alert-1", "resolved"),
        ("alert-2", "firing"),
        ("alert-1", "firing"),
    ]
    assert len(site.rows("/alerts?which=log&state=resolved", "alerts")) == 1
    assert site.rows("/alerts?device=other", "alerts") == []
    assert site.rows(f"/alerts?to={NOON + HOUR}", "alerts") == []
    assert len(site.rows(f"/alerts?from={NOON + HOUR}&above=89", "alerts")) == 1


def test_open_alerts_come_in_pages(site: Site) -> None:
    changes = [msgspec.structs.replace(alert(number, "firing"), at=NOON + number % 3) for number in range(10)]
    site.put(ALERTS, *changes)

    found = pages(site, "/alerts?limit=3", "alerts")

    assert sorted(it["alert_id"] for it in found) == sorted(it.alert_id for it in changes)
    assert found == site.rows("/alerts", "alerts")


def test_formats_hold_the_same(site: Site) -> None:
    site.put(SCORES, *(score("a", hour) for hour in range(5)), score("b", scored=False))
    for path, name in (("/devices", "devices"), ("/devices/a/history", "history"), ("/alerts", "alerts")):
        rows = site.rows(path, name)
        table = pa.ipc.open_stream(site.ask(path, accept="application/vnd.apache.arrow.stream").content).read_all()
        text = site.ask(f"{path}?format=csv")
        lines = list(csv.DictReader(io.StringIO(text.text)))

        assert text.headers["content-type"].startswith("text/csv")
        assert [_plain(row) for row in table.to_pylist()] == rows
        assert len(lines) == len(rows)
        for line, row in zip(lines, rows, strict=True):
            assert {it: line[it] for it in row if isinstance(row[it], str)} == {
                it: value for it, value in row.items() if isinstance(value, str)
            }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: dict(value) if name == "means" else value for name, value in row.items()}


def test_the_next_page_is_a_link_where_rows_have_no_envelope(site: Site) -> None:
    site.put(SCORES, score("a"), score("b"))
    answer = site.ask("/devices?limit=1&format=csv")

    assert 'rel="next"' in answer.headers["link"]
    assert "cursor=" in answer.headers["link"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/devices?limit=0", "limit"),
        ("/devices?limit=x", "limit"),
        ("/devices?sort=size", "sort"),
        ("/devices?above=nan", "above"),
        ("/devices?cursor=x", "cursor"),
        ("/devices?format=xml", "format"),
        ("/devices/a/history?from=yesterday", "from"),
        ("/devices/a/history?to=99999999999999999999999", "to"),
        ("/devices/a/history?from=5&to=5", "to"),
        ("/devices/a/history?cursor=x", "cursor"),
        ("/alerts?cursor=x", "cursor"),
        ("/alerts?which=log&cursor=x", "cursor"),
        ("/alerts?state=gone", "state"),
    ],
)
def test_bad_input_is_422_and_names_the_field(site: Site, path: str, field: str) -> None:
    answer = site.ask(path)

    assert answer.status_code == 422
    assert field in answer.text


@pytest.mark.parametrize("moment", ["-9223372036854775808", "9223372036854775807", "0001-01-01T00:00:00Z", "-1"])
def test_moments_far_away_are_no_fault(site: Site, moment: str) -> None:
    site.put(SCORES, *(score("a", hour) for hour in range(5)))

    assert site.ask(f"/devices/a/history?from={moment}").status_code in {200, 404}
    assert site.ask(f"/devices/a/history?to={moment}").status_code in {200, 404}


def test_what_cannot_be_offered_is_406(site: Site) -> None:
    assert site.ask("/devices", accept="image/png").status_code == 406
    assert site.ask("/devices", accept="text/html, */*;q=0.1").status_code == 200
    assert site.ask("/stream", **{"last-event-id": "x"}).status_code == 422
