"""Rows as JSON, CSV or an Arrow stream, as the caller asks by ``?format=`` or ``Accept``."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec
import pyarrow as pa
from fastapi import HTTPException, Request, Response

from stream.parse import epoch_ms

Row = Mapping[str, Any]


class Format(StrEnum):
    """How rows are written."""

    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"


MEDIA = {
    Format.JSON: "application/json",
    Format.CSV: "text/csv",
    Format.ARROW: "application/vnd.apache.arrow.stream",
}
_BY_MEDIA = {media: kind for kind, media in MEDIA.items()} | {"*/*": Format.JSON, "application/*": Format.JSON}
_BY_MEDIA |= {"text/*": Format.CSV}


def wanted(accept: str, asked: Format | None) -> Format:
    """The format to answer in; ``asked`` counts before ``accept``, whose weights count (RFC 9110, 12.5.1).

    Raises:
        HTTPException: 406, nothing in ``accept`` is known.

    >>> wanted("text/html, text/csv;q=0.5", None), wanted("text/csv", Format.ARROW), wanted("", None)
    (<Format.CSV: 'csv'>, <Format.ARROW: 'arrow'>, <Format.JSON: 'json'>)
    """
    if asked or not accept.strip():
        return asked or Format.JSON
    offered = [_weighed(part) for part in accept.split(",")]
    for media, weight in sorted(offered, key=lambda offer: -offer[1]):
        if weight > 0 and media in _BY_MEDIA:
            return _BY_MEDIA[media]
    raise HTTPException(406, f"Accept: offer one of {', '.join(MEDIA.values())}, or set format.")


def _weighed(part: str) -> tuple[str, float]:
    media, *options = (word.strip().lower() for word in part.split(";"))
    weights = [option[2:] for option in options if option.startswith("q=")]
    try:
        return media, float(weights[0]) if weights else 1.0
    except ValueError:
        return media, 0.0


@dataclass(frozen=True, slots=True)
class Page:
    """Rows to answer with: what they are called, their columns, and the cursor of the next page."""

    name: str
    rows: Sequence[Row]
    schema: pa.Schema
    following: str | None = None


def answer(request: Request, asked: Format | None, page: Page) -> Response:
    """Rows in the format asked for.

    JSON is ``{name: rows, "next": cursor}``; the others tell of a next page in the header ``Link`` (RFC 8288).
    Lists and mappings are JSON within CSV.
    """
    kind = wanted(request.headers.get("accept", ""), asked)
    headers = {"vary": "Accept"}
    if page.following:
        headers["link"] = f'<{request.url.include_query_params(cursor=page.following)}>; rel="next"'
    if kind is Format.JSON:
        rows = [{field: row.get(field) for field in page.schema.names} for row in page.rows]
        body = msgspec.json.encode({page.name: rows, "next": page.following})
    elif kind is Format.CSV:
        body = _csv(page.rows, page.schema)
    else:
        body = _arrow(page.rows, page.schema)
    return Response(body, media_type=MEDIA[kind], headers=headers)


def _csv(rows: Sequence[Row], schema: pa.Schema) -> bytes:
    text = io.StringIO()
    out = csv.writer(text)
    out.writerow(schema.names)
    out.writerows([_cell(row.get(name)) for name in schema.names] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value


def _arrow(rows: Sequence[Row], schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    columns = [pa.array([_paired(row.get(field.name)) for row in rows], field.type) for field in schema]
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.table(columns, schema=schema))
    return bytes(sink.getvalue())


def _paired(value: Any) -> Any:
    """Arrow's maps take pairs."""
    return (
        list(value.items())
        if isinstance(value, dict) and all(isinstance(it, float) for it in value.values())
        else value
    )


def moment(text: str | None, field: str) -> int | None:
    """Epoch ms of a query's field.

    Raises:
        HTTPException: 422, it is no time.
    """
    if text is None:
        return None
    number = text.removeprefix("-").isdecimal() and text.isascii()
    stamp = epoch_ms(int(text) if number and len(text) <= 20 else text)  # noqa: PLR2004 - beyond int64
    if isinstance(stamp, int):
        return stamp
    raise HTTPException(422, f"{field}: {text[:40]!r} is neither epoch milliseconds nor ISO-8601 with an offset.")
