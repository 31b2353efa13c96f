"""Alerts and rejects to bytes, with CloudEvents headers (binary content mode, Kafka binding); scores: ``score``."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from scorers.compiled import compiled
from scorers.statistics import Ints
from stream.contracts import Alert, Forecast, Reason, Receipt
from stream.message import Bulk, Bytes, Message, header, opening, put, put_size, written
from stream.records import Records
from stream.rejects import WHOLE, Rejects
from stream.shortest import LONGEST, put_integer
from stream.texts import Texts

_encoder = msgspec.json.Encoder()
_JSON = header("content-type", b"application/json")
_VERSION = header("ce_specversion", b"1.0")
_SCORE = header("ce_type", b"io.tidewatch.score.v1")
_REJECT = header("ce_type", b"io.tidewatch.reject.v1")
_SLASH = ord("/")
_LAST_MS = 253_402_300_799_999
RECEIPT = "io.tidewatch.receipt.v1"
"""The ``ce_type`` that tells a receipt from a reject."""


def _time(epoch_ms: int) -> bytes:
    """``ce_time``: the nearest moment of the years 1970 to 9999 (RFC 3339)."""
    second, millisecond = divmod(min(max(epoch_ms, 0), _LAST_MS), 1000)
    return b"%s.%03dZ" % (_second(second), millisecond)


@lru_cache(maxsize=4096)
def _second(epoch_s: int) -> bytes:
    moment = datetime.fromtimestamp(epoch_s, UTC).isoformat().removesuffix("+00:00").encode()
    return opening("ce_time", len(moment) + len(".000Z")) + moment


def _event(kind: str, source: str, identity: str, epoch_ms: int) -> bytes:
    about = header("ce_type", kind.encode()), header("ce_source", source.encode()), header("ce_id", identity.encode())
    return b"".join((_VERSION, *about, _time(epoch_ms), _JSON))


@lru_cache(maxsize=64)
def scored(source: str) -> bytes:
    """The headers that all scores of an input topic share."""
    return b"".join((_VERSION, _SCORE, _JSON, header("ce_source", source.encode())))


def moments(epoch_ms: Ints) -> tuple[NDArray[np.uint8], Ints]:
    """``ce_time`` for each distinct moment, a row of bytes, and which row is whose."""
    distinct, which = np.unique(epoch_ms, return_inverse=True)
    return _rows([_time(moment) for moment in distinct.tolist()]), which


def _rows(texts: Sequence[bytes]) -> NDArray[np.uint8]:
    """Texts of one length, a row each."""
    return np.frombuffer(b"".join(texts), np.uint8).reshape(len(texts), len(texts[0]) if texts else 0)


def alert_message(topic: str, alert: Alert) -> Message:
    """The record of ``device.alerts`` for one change of state."""
    head = _event("io.tidewatch.alert.v1", alert.source, f"{alert.alert_id}/{alert.state}", alert.at)
    return Message(topic, alert.device_id.encode(), _encoder.encode(alert), head)


def forecast_message(topic: str, source: str, forecast: Forecast) -> Message:
    """The record of ``server.forecasts``; ``source`` is the topic of the sessions it rests on."""
    identity = f"{source}/{forecast.server}/{forecast.issued}"
    head = _event("io.tidewatch.forecast.v1", source, identity, forecast.issued)
    return Message(topic, forecast.server.encode(), _encoder.encode(forecast), head)


def reject_messages(topic: str, records: Records, rejects: Rejects) -> Bulk:
    """The records of ``rejects``: the original key, its bytes or one reading of many; where from and why in headers.

    No header says what another does: each costs the way out and the broker as much as a field of a reading does.
    """
    rows, count = rejects.row, len(rejects)
    source = records.topic.encode()
    shared = _VERSION + _REJECT + header("ce_source", source)
    values = _values(Texts.of(records.values), rejects)
    prefix = b"%s/%d/" % (source, records.partition)
    return Bulk(
        topics=[topic],
        topic=np.zeros(count, np.int64),
        keys=Texts.of(records.keys).gather(rows),
        values=Texts(values.buffer, values.begin, np.maximum(values.size, 0)),
        heads=_heads(prefix, records.offsets[rows], rejects.part, records.timestamps[rows]),
        commons=[shared + _verdict(*fault) for fault in rejects.faults],
        common=rejects.fault,
        partition=np.full(count, -1),
        timestamp=np.zeros(count, np.int64),
    )


def _values(texts: Texts, rejects: Rejects) -> Texts:
    """What is kept of each."""
    if not rejects.values:
        return texts.gather(rejects.row)
    places = zip(rejects.row.tolist(), rejects.part.tolist(), strict=True)
    return Texts.of([rejects.values.get(place, texts[place[0]]) for place in places])


def _heads(prefix: bytes, offsets: Ints, parts: Ints, timestamps: Ints) -> Texts:
    """The headers that tell records from each other: their place and their time."""
    opened = opening("ce_id", 0), opening("tw_timestamp", 0)
    row = sum(map(len, opened)) + len(prefix) + 3 * LONGEST
    out, ends = np.empty(len(offsets) * row + 1, np.uint8), np.empty(len(offsets), np.int64)
    first, stamp = (np.frombuffer(text, np.uint8) for text in opened)
    _write_heads(out, ends, first, np.frombuffer(prefix, np.uint8), stamp, offsets, parts, timestamps)
    return written(out, ends)


@compiled
def _write_heads(  # noqa: PLR0913, PLR0917 - a loop over columns takes columns
    out: Bytes, ends: Ints, first: Bytes, source: Bytes, stamp: Bytes, offsets: Ints, parts: Ints, timestamps: Ints
) -> None:
    at = 0
    for row in range(len(offsets)):
        value = put(out, at, first)
        end = put_integer(out, put(out, value, source), offsets[row])
        if parts[row] != WHOLE:
            out[end] = _SLASH
            end = put_integer(out, end + 1, parts[row])
        put_size(out, at, value, end)
        at = _put_number(out, end, stamp, timestamps[row])
        ends[row] = at


@compiled
def _put_number(out: Bytes, head: int, name: Bytes, number: int) -> int:
    """Write a header; where it ends."""
    begin = put(out, head, name)
    end = put_integer(out, begin, number)
    put_size(out, head, begin, end)
    return end


@lru_cache(maxsize=4096)
def _verdict(reason: Reason, detail: str) -> bytes:
    return header("tw_reason", reason.encode()) + header("tw_detail", detail.encode(errors="replace"))


def receipt_message(topic: str, partition: int, receipt: Receipt, epoch_ms: int) -> Message:
    """The record of ``rejects`` which says that rejects of this partition were sent back at that time."""
    identity = f"{topic}/{partition}/{receipt.offsets[0]}"
    head = _event(RECEIPT, topic, identity, epoch_ms)
    return Message(topic, None, _encoder.encode(receipt), head, partition)
