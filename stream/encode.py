"""Alerts and rejects to bytes, with CloudEvents headers (binary content mode, Kafka binding); scores: ``score``."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from scorers.compiled import compiled
from scorers.statistics import Ints
from stream.contracts import Alert, Reason, Receipt
from stream.decode import WHOLE, Reject
from stream.message import Bulk, Message, header, opening
from stream.records import Records, Texts
from stream.shortest import LONGEST, put_integer

_encoder = msgspec.json.Encoder()
_JSON = header("content-type", b"application/json")
_VERSION = header("ce_specversion", b"1.0")
_SCORE = header("ce_type", b"io.tidewatch.score.v1")
_REJECT = header("ce_type", b"io.tidewatch.reject.v1")
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


def reject_messages(topic: str, records: Records, rejects: Sequence[Reject]) -> Bulk:
    """The records of ``rejects``: the original key, its bytes or one reading of many; where from and why in headers."""
    rows = np.array([reject.row for reject in rejects], np.int64)
    source, partition = records.topic.encode(), b"%d" % records.partition
    origin = header("ce_source", source) + header("tw_topic", source) + header("tw_partition", partition)
    verdicts: dict[tuple[Reason, str], int] = {}
    common = [verdicts.setdefault((reject.reason, reject.detail), len(verdicts)) for reject in rejects]
    parts = np.array([reject.part for reject in rejects], np.int64)
    values = _values(Texts.of(records.values), rows, rejects, parts)
    return Bulk(
        topics=[topic],
        topic=np.zeros(len(rows), np.int64),
        keys=Texts.of(records.keys).gather(rows),
        values=Texts(values.buffer, values.begin, np.maximum(values.size, 0)),
        heads=_places(source + b"/" + partition + b"/", records.offsets[rows], parts, records.timestamps[rows]),
        commons=[_VERSION + _REJECT + origin + _verdict(*verdict) for verdict in verdicts],
        common=np.array(common, np.int64),
        partition=np.full(len(rows), -1),
        timestamp=np.zeros(len(rows), np.int64),
    )


def _values(texts: Texts, rows: Ints, rejects: Sequence[Reject], parts: Ints) -> Texts:
    """What is kept of each."""
    if parts.max(initial=WHOLE) == WHOLE:
        return texts.gather(rows)
    return Texts.of([texts[reject.row] if reject.value is None else reject.value for reject in rejects])


def _places(prefix: bytes, offsets: Ints, parts: Ints, timestamps: Ints) -> Texts:
    """The headers of records that tell each from the others, made by columns of characters."""
    second, millisecond = np.divmod(np.clip(timestamps, 0, _LAST_MS), 1000)
    seconds, which = np.unique(second, return_inverse=True)
    times = _rows([_second(one) for one in seconds.tolist()])[which]
    places, stamps, thousandths = _decimal(offsets), _decimal(timestamps), _decimal(millisecond + 1000)[:, 1:4]
    pieces = _pieces(parts)
    sizes = np.stack([(column > 0).sum(axis=1) for column in (places, stamps, pieces)], axis=1)
    tables = []
    # nearly always one run of rows with as many characters
    for run in np.split(np.arange(len(offsets)), np.flatnonzero(np.diff(sizes, axis=0).any(axis=1)) + 1):
        digits, figures, more = sizes[run[:1]].max(axis=0, initial=0).tolist()
        place, stamp, piece = places[run, :digits], stamps[run, :figures], pieces[run, :more]
        tables.append(_table(
            len(run),
            opening("ce_id", len(prefix) + digits + (more and 1 + more)) + prefix, place, b"/" if more else b"", piece,
            opening("tw_part", more) if more else b"", piece, opening("tw_offset", digits), place,
            times[run], b".", thousandths[run], b"Z", opening("tw_timestamp", figures), stamp,
        ))  # fmt: skip
    size = np.concatenate([np.full(len(table), table.shape[1]) for table in tables])
    return Texts(b"".join([*(table.tobytes() for table in tables), b"\0"]), np.cumsum(size) - size, size)


def _pieces(parts: Ints) -> NDArray[np.uint8]:
    """Parts as characters, none for a whole record; nearly always all are whole."""
    if parts.max(initial=WHOLE) == WHOLE:
        return np.zeros((len(parts), 0), np.uint8)
    pieces = _decimal(parts)
    pieces[parts == WHOLE] = 0
    return pieces


def _decimal(numbers: Ints) -> NDArray[np.uint8]:
    """A row of characters for each number; shorter ones end in zeros."""
    characters = np.zeros((len(numbers), LONGEST), np.uint8)
    _write(numbers, characters)
    return characters


@compiled
def _write(numbers: Ints, characters: NDArray[np.uint8]) -> None:
    for row in range(len(numbers)):
        put_integer(characters[row], 0, numbers[row])


def _table(count: int, *parts: bytes | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Row by row, what is the same in all and what is in each."""
    blocks = [np.frombuffer(part, np.uint8) if isinstance(part, bytes) else part for part in parts]
    return np.concatenate([np.broadcast_to(block, (count, block.shape[-1])) for block in blocks], axis=1)


@lru_cache(maxsize=4096)
def _verdict(reason: Reason, detail: str) -> bytes:
    return header("tw_reason", reason.encode()) + header("tw_detail", detail.encode(errors="replace"))


def receipt_message(topic: str, partition: int, receipt: Receipt, epoch_ms: int) -> Message:
    """The record of ``rejects`` which says that rejects of this partition were sent back at that time."""
    identity = f"{topic}/{partition}/{receipt.offsets[0]}"
    head = _event(RECEIPT, topic, identity, epoch_ms)
    return Message(topic, None, _encoder.encode(receipt), head, partition)
