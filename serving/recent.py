"""How things are now, as the Redis sink keeps it (its docstring lists the keys)."""

import base64
import fnmatch
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import pyarrow as pa
from fastapi import HTTPException
from redis.exceptions import RedisError

Sort = Literal["severity", "name", "heard"]
CHUNK = 500
"""Devices that are read from Redis at a time."""
CONTRIBUTORS = pa.list_(
    pa.struct([("feature", pa.string()), ("share", pa.float64()), ("actual", pa.float64()), ("typical", pa.float64())])
)
DEVICES = pa.schema(
    [
        ("device_id", pa.string()),
        ("source", pa.string()),
        ("window_start", pa.int64()),
        ("window_end", pa.int64()),
        ("count", pa.int64()),
        ("state", pa.string()),
        ("decision", pa.float64()),
        ("score", pa.float64()),
        ("severity", pa.float64()),
        ("anomaly", pa.bool_()),
        ("model_version", pa.string()),
        ("model", pa.string()),
        ("confidence", pa.float64()),
        ("contributors", CONTRIBUTORS),
        ("heard", pa.int64()),
    ]
)
"""One row a device; times are epoch ms."""
POINTS = pa.schema(
    [
        ("window_start", pa.int64()),
        ("window_end", pa.int64()),
        ("state", pa.string()),
        ("score", pa.float64()),
        ("severity", pa.float64()),
        ("anomaly", pa.bool_()),
        ("means", pa.map_(pa.string(), pa.float64())),
    ]
)
"""One row a window of a device: its verdict, and each metric's mean."""
_TYPES = {field.name: field.type for schema in (DEVICES, POINTS) for field in schema}
Place = tuple[float | str, str]
"""Where a device is in an order: what it is ordered by, then its name."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which devices are asked for."""

    sort: Sort = "severity"
    anomalous: bool | None = None
    above: float | None = None
    name: str | None = None
    """A pattern such as ``pump-*``."""

    def takes(self, row: dict[str, Any]) -> bool:
        """Whether a device's newest window is of these."""
        return (self.anomalous is None or row.get("anomaly", False) == self.anomalous) and (
            self.above is None or (row.get("score") is not None and row["score"] > self.above)
        )


class Recent:
    """Reads what the Redis sink wrote.

    Args:
        client: an asyncio client of Redis that decodes answers.
        prefix: of all keys.

    Raises:
        HTTPException: 503, Redis does not answer; from every method.
    """

    def __init__(self, client: Any, prefix: str = "tw") -> None:
        self.client = client
        self.prefix = prefix

    async def devices(self, choice: Choice, limit: int, cursor: str | None) -> tuple[list[dict[str, Any]], str | None]:
        """A page of devices, and the cursor of the next one.

        The cursor holds the last device's place in the order: a page goes on behind it however others move meanwhile.
        """
        after = None if cursor is None else _place(cursor, choice.sort)
        async with reading():
            order = await self._order(choice)
            at = 0 if after is None else bisect_right(order, after)
            rows: list[dict[str, Any]] = []
            while at < len(order) and len(rows) <= limit:
                chunk = order[at : at + CHUNK]
                at += len(chunk)
                rows += [row for row in await self._latest([name for _, name in chunk]) if choice.takes(row)]
            places = {name: (key, name) for key, name in order}
        following = _cursor(places[rows[limit - 1]["device_id"]]) if len(rows) > limit else None
        return rows[:limit], following

    async def device(self, name: str) -> dict[str, Any] | None:
        """All about one device: newest window, metrics, open alerts; None where nobody has heard of it."""
        async with reading():
            rows = await self._latest([name])
            if not rows:
                return None
            metrics = await self.client.hgetall(self.key("stats", name))
            alerts = [it for it in await self.open() if it["device_id"] == name]
        return rows[0] | {"metrics": {it: msgspec.json.decode(text) for it, text in metrics.items()}, "alerts": alerts}

    async def history(self, name: str) -> list[dict[str, Any]]:
        """The last windows of a device, newest first; with ``POINTS``' fields."""
        async with reading():
            held = await self.client.xrevrange(self.key("history", name))
        return [_typed(fields) for _, fields in held]

    async def known(self, name: str) -> bool:
        """Whether anybody has heard of this device lately."""
        async with reading():
            return await self.client.zscore(self.key("devices"), name) is not None

    async def open(self) -> list[dict[str, Any]]:
        """Alerts that fire, the newest first."""
        async with reading():
            held = await self.client.hvals(self.key("alerts", "open"))
        return sorted(map(msgspec.json.decode, held), key=lambda alert: (-alert["at"], alert["alert_id"]))

    async def log(self, before: str | None) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Changes of alerts with their ids, the newest first, from before the id on."""
        last = f"({before}" if before else "+"
        while True:
            async with reading():
                held = await self.client.xrevrange(self.key("alerts", "log"), max=last, count=CHUNK)
            for number, fields in held:
                yield number, msgspec.json.decode(fields["alert"])
            if len(held) < CHUNK:
                return
            last = f"({held[-1][0]}"

    def key(self, *names: str) -> str:
        """A key of Redis."""
        return ":".join((self.prefix, *names))

    async def _order(self, choice: Choice) -> list[Place]:
        """The places of the devices whose name fits, in order."""
        heard = dict(await self.client.zrange(self.key("devices"), 0, -1, withscores=True))
        if choice.name is not None:
            heard = {name: at for name, at in heard.items() if fnmatch.fnmatchcase(name, choice.name)}
        if choice.sort == "name":
            return sorted((name, name) for name in heard)
        if choice.sort == "heard":
            return sorted((-at, name) for name, at in heard.items())
        severity = dict(await self.client.zrange(self.key("oddest"), 0, -1, withscores=True))
        return sorted((-severity.get(name, float("-inf")), name) for name in heard)

    async def _latest(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Rows of ``DEVICES``; devices that have expired meanwhile are left out."""
        pipe = self.client.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(self.key("device", name))
            pipe.zscore(self.key("devices"), name)
        held = await pipe.execute()
        return [
            {"device_id": name} | _typed(fields) | {"heard": None if heard is None else round(heard * 1000)}
            for name, fields, heard in zip(names, held[::2], held[1::2], strict=True)
            if fields
        ]


@asynccontextmanager
async def reading() -> AsyncIterator[None]:
    """Redis away is 503."""
    try:
        yield
    except RedisError as error:
        raise HTTPException(503, "Redis does not answer; start it, or set redis.url.", {"Retry-After": "5"}) from error


def _typed(fields: dict[str, str]) -> dict[str, Any]:
    """Fields of a hash or stream as values."""
    return {name: _value(text, _TYPES[name]) for name, text in fields.items() if name in _TYPES}


def _value(text: str, kind: pa.DataType) -> Any:
    if pa.types.is_int64(kind):
        return int(text)
    if pa.types.is_float64(kind):
        return float(text)
    if pa.types.is_boolean(kind):
        return text == "1"
    return text if pa.types.is_string(kind) else msgspec.json.decode(text)


def _cursor(place: Place) -> str:
    value, name = place
    return base64.urlsafe_b64encode(
        msgspec.json.encode([repr(value) if isinstance(value, float) else value, name])
    ).decode()


def _place(cursor: str, sort: Sort) -> Place:
    try:
        value, name = msgspec.json.decode(base64.urlsafe_b64decode(cursor), type=tuple[str, str])
        return (value if sort == "name" else float(value)), name
    except (ValueError, msgspec.DecodeError):
        raise HTTPException(422, f"cursor: {cursor[:40]!r} is none of this order; leave it out to begin.") from None
