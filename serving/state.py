"""The routes of state: devices as they are, as they were, and their alerts, from Redis and from Parquet."""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import anyio
import anyio.to_thread
import duckdb
import msgspec
import pyarrow as pa
from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from starlette.responses import StreamingResponse

from scorers.errors import InputError
from serving import older
from serving.events import EVENT_ID, Hub
from serving.formats import Format, Page, answer, moment
from serving.recent import CONTRIBUTORS, DEVICES, POINTS, Choice, Recent, Sort

log = logging.getLogger(__name__)

MOST = 10_000
"""Rows of a page at most; the next one is a cursor away."""
ALERTS = pa.schema(
    [
        ("alert_id", pa.string()),
        ("device_id", pa.string()),
        ("source", pa.string()),
        ("state", pa.string()),
        ("since", pa.int64()),
        ("at", pa.int64()),
        ("score", pa.float64()),
        ("severity", pa.float64()),
        ("contributors", CONTRIBUTORS),
        ("model_version", pa.string()),
        ("behaviour", pa.string()),
        ("metric", pa.string()),
    ]
)
"""One row a change of an alert; times are epoch ms."""
FORMS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {}, "application/vnd.apache.arrow.stream": {}}}}
"""What else a table may come as."""
_AT_ONCE = 4
"""Questions to Parquet at work; more wait."""

As = Annotated[Format | None, Query(alias="format", description="Instead of `Accept`.")]
Cursor = Annotated[str | None, Query(description="`next` of the page before.", max_length=1000)]
Limit = Annotated[int, Query(ge=1, le=MOST, description="Rows of a page.")]
From = Annotated[str | None, Query(alias="from", description="From this moment on: epoch ms, or ISO-8601.")]
To = Annotated[str | None, Query(description="Before this moment.")]


@dataclass(frozen=True, slots=True)
class State:
    """What the routes read: Redis, and the Parquet sink's tables (None: there are none)."""

    recent: Recent
    table: older.Table | None = None
    hub: Hub | None = None
    at_once: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(_AT_ONCE))

    async def history(self, name: str, since: int | None, until: int | None, limit: int) -> list[dict[str, Any]]:
        """Windows of a device that begin in ``[since, until)``, the newest first, one more than ``limit`` at most.

        Raises:
            HTTPException: 404, nobody has heard of it; 503, neither Redis nor Parquet can tell.
        """
        away: HTTPException | None = None
        held: list[dict[str, Any]] = []
        try:
            held = await self.recent.history(name)
        except HTTPException as error:
            away = error
        rows = [
            row
            for row in held
            if (since is None or row["window_start"] >= since) and (until is None or row["window_start"] < until)
        ][: limit + 1]
        if len(rows) <= limit and not (held and since is not None and since >= held[-1]["window_start"]):
            end = held[-1]["window_start"] if held else None
            before = min((it for it in (until, end) if it is not None), default=None)
            rows += await self._older(name, since, before, limit + 1 - len(rows), away)
        if not rows and not held and (away or not await self.recent.known(name)):
            raise HTTPException(404, f"device: nobody has heard of {name!r} at these times.")
        return rows

    async def _older(
        self, name: str, since: int | None, until: int | None, limit: int, away: HTTPException | None
    ) -> list[dict[str, Any]]:
        if self.table is not None:
            try:
                return await anyio.to_thread.run_sync(
                    older.history, self.table, name, since, until, limit, limiter=self.at_once
                )
            except InputError:
                pass  # the sink has written nothing yet
            except (duckdb.Error, OSError) as error:
                log.warning("History cannot be read: %s", error)
                raise HTTPException(503, "Parquet files cannot be read now.", {"Retry-After": "5"}) from error
        if away:
            raise away
        return []


def router(state: State) -> APIRouter:
    """The routes, to be put into an app."""
    routes = APIRouter(tags=["state"])
    _of_devices(routes, state.recent)
    _of_history(routes, state)
    _of_alerts(routes, state.recent)
    _of_events(routes, state.hub or Hub(state.recent))
    return routes


def _of_devices(routes: APIRouter, recent: Recent) -> None:
    @routes.get("/devices", summary="Devices, as their newest windows are", responses=FORMS)
    async def devices(  # noqa: PLR0913, PLR0917 - a query has one parameter a field
        request: Request,
        sort: Annotated[Sort, Query(description="The oddest first, by name, or the one last heard of.")] = "severity",
        anomalous: Annotated[bool | None, Query(description="Only those that are, or are not.")] = None,
        above: Annotated[float | None, Query(description="Only scores above this.", allow_inf_nan=False)] = None,
        name: Annotated[str | None, Query(description="A pattern such as `pump-*`.", max_length=200)] = None,
        limit: Limit = 100,
        cursor: Cursor = None,
        kind: As = None,
    ) -> Response:
        rows, following = await recent.devices(Choice(sort, anomalous, above, name), limit, cursor)
        return answer(request, kind, Page("devices", rows, DEVICES, following))

    @routes.get("/devices/{device}", summary="All about one device", responses={404: {"description": "Unknown."}})
    async def device(device: str) -> Response:
        found = await recent.device(device)
        if found is None:
            raise HTTPException(404, f"device: nobody has heard of {device!r} lately; its history may tell more.")
        return Response(msgspec.json.encode(found), media_type="application/json")


def _of_history(routes: APIRouter, state: State) -> None:
    @routes.get(
        "/devices/{device}/history",
        summary="Windows of one device, the newest first",
        responses=FORMS | {404: {"description": "Unknown."}},
    )
    async def history(  # noqa: PLR0913, PLR0917
        request: Request,
        device: str,
        since: From = None,
        to: To = None,
        limit: Limit = 500,
        cursor: Cursor = None,
        kind: As = None,
    ) -> Response:
        begin, end = moment(since, "from"), moment(to, "to")
        if begin is not None and end is not None and begin >= end:
            raise HTTPException(422, "to: it must be later than from.")
        page = moment(cursor, "cursor")
        ends = [it for it in (end, page) if it is not None]
        rows = await state.history(device, begin, min(ends, default=None), limit)
        following = str(rows[limit - 1]["window_start"]) if len(rows) > limit else None
        return answer(request, kind, Page("history", rows[:limit], POINTS, following))


def _of_alerts(routes: APIRouter, recent: Recent) -> None:
    @routes.get("/alerts", summary="Alerts that fire, or the log of all changes, the newest first", responses=FORMS)
    async def alerts(  # noqa: PLR0913, PLR0917
        request: Request,
        which: Annotated[Literal["open", "log"], Query(description="Those that fire, or all changes.")] = "open",
        device: Annotated[str | None, Query(description="Only of this device.", max_length=200)] = None,
        change: Annotated[Literal["firing", "resolved"] | None, Query(alias="state")] = None,
        behaviour: Annotated[str | None, Query(description="Such as `drift`.", max_length=50)] = None,
        above: Annotated[float | None, Query(description="Only scores above this.", allow_inf_nan=False)] = None,
        since: From = None,
        to: To = None,
        limit: Limit = 100,
        cursor: Cursor = None,
        kind: As = None,
    ) -> Response:
        begin, end = moment(since, "from"), moment(to, "to")
        asked = {"device_id": device, "state": change, "behaviour": behaviour}

        def fits(alert: dict[str, Any]) -> bool:
            return (
                all(value is None or alert.get(it) == value for it, value in asked.items())
                and (above is None or alert["score"] > above)
                and (begin is None or alert["at"] >= begin)
                and (end is None or alert["at"] < end)
            )

        found: list[tuple[str, dict[str, Any]]] = []
        async for place, alert in _alerts(recent, which, cursor):
            if fits(alert):
                found.append((place, alert))
            if len(found) > limit:
                break
        following = found[limit - 1][0] if len(found) > limit else None
        return answer(request, kind, Page("alerts", [alert for _, alert in found[:limit]], ALERTS, following))


def _of_events(routes: APIRouter, hub: Hub) -> None:
    @routes.get(
        "/stream",
        summary="Changes of alerts as they come, as server-sent events",
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def stream(
        last: Annotated[str | None, Header(alias="Last-Event-ID", description="Goes on behind this event.")] = None,
    ) -> StreamingResponse:
        if last is not None and not EVENT_ID.fullmatch(last):
            raise HTTPException(422, "Last-Event-ID: it is the id of an event of this stream, such as 1700000000000-0.")
        events = await hub.listen(last)
        return StreamingResponse(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def _alerts(recent: Recent, which: str, cursor: str | None) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Alerts behind a cursor, each with the cursor of what follows it."""
    if which == "log":
        if cursor is not None and not EVENT_ID.fullmatch(cursor):
            raise HTTPException(422, "cursor: it is `next` of a page of the log.")
        async for entry in recent.log(cursor):
            yield entry
        return
    at, dot, name = (cursor or "").partition(".")
    if cursor is not None and not (dot and at.lstrip("-").isdecimal() and len(at) < 20):  # noqa: PLR2004 - int64
        raise HTTPException(422, "cursor: it is `next` of a page of open alerts.")
    for alert in await recent.open():
        if cursor is None or (-alert["at"], alert["alert_id"]) > (-int(at), name):
            yield f"{alert['at']}.{alert['alert_id']}", alert
