"""Closed windows and their verdicts to the records of ``device.scores``, by columns, in compiled loops.

What is written is ``stream.contracts.Score`` as JSON, with CloudEvents headers (binary content mode, Kafka binding).
No object is made for a window, and the interpreter's lock is not held.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from scorers.compiled import compiled
from scorers.statistics import Flags, Floats, Ints
from scorers.verdicts import Verdicts
from stream.encode import moments, scored
from stream.message import Bulk, Bytes, opening, put, put_size, written
from stream.shortest import LONGEST, TENS, put_double, put_integer
from stream.texts import Texts
from stream.window import Closed

_HEXADECIMAL = np.frombuffer(b"0123456789abcdef", np.uint8)
_QUOTE, _BACKSLASH, _BLANK, _SLASH, _U, _ZERO = b'"\\ /u0'
_ESCAPED = 6
"""Bytes of an escaped character."""

# what stands between the values of a record, by number
(
    _DEVICE, _START, _END, _COUNT, _METRICS, _LEARNING, _SCORED, _SCORE, _SEVERITY, _CALM, _ANOMALY, _VERSION,
    _MEAN, _STD, _MIN, _MAX, _LAST, _SUM, _CLOSE, _FEATURE, _SHARE, _ACTUAL, _TYPICAL, _COMMA, _NULL,
) = range(25)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Origin:
    """Where scores come from: the input topic, whether its windows sum, the fleet's version."""

    source: str
    sums: bool
    version: str


def score_bulk(topic: str, closed: Closed, verdicts: Verdicts, names: Texts, origin: Origin) -> Bulk:
    """The records of ``device.scores``, one a window; ``names[i]`` is the device of row *i*."""
    count = len(names)
    return Bulk(
        topics=[topic],
        topic=np.zeros(count, np.int64),
        keys=names,
        values=_values(closed, verdicts, names, origin),
        heads=_heads(closed, names, origin.source),
        commons=[scored(origin.source)],
        common=np.zeros(count, np.int64),
        partition=np.full(count, -1),
        timestamp=np.zeros(count, np.int64),
    )


# --- values ------------------------------------------------------------------------------------


class _Pieces:
    """Texts one after the other: their bytes, and where each begins and ends."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self.text = np.frombuffer(b"".join(texts) + b"\0", np.uint8)
        self.edges = np.cumsum([0, *map(len, texts)])
        self.longest = max(map(len, texts), default=0)


def _values(closed: Closed, verdicts: Verdicts, names: Texts, origin: Origin) -> Texts:
    block = closed.statistics
    fixed, metrics, features = (
        _between(origin.source, origin.version),
        _metrics(block.metrics),
        _features(verdicts.names),
    )
    numbers = [block.mean, block.std, block.min, block.max, block.last]
    if origin.sums:
        numbers.append(block.mean * block.count)
    cells = np.ascontiguousarray(np.stack(numbers, axis=2))
    judged = np.stack([verdicts.decision, verdicts.score, verdicts.severity], axis=1)
    parts = np.ascontiguousarray(np.stack([verdicts.share, verdicts.actual, verdicts.typical], axis=2))
    row = int(fixed.edges[-1]) + 4 * LONGEST + len(metrics.text) + len(block.metrics) * 7 * (LONGEST + fixed.longest)
    row += _ENDINGS.longest + verdicts.feature.shape[1] * (features.longest + 3 * (LONGEST + fixed.longest))
    out = np.empty(len(names) * row + _ESCAPED * int(names.size.sum()) + 1, np.uint8)
    ends = np.empty(len(names), np.int64)
    _write(
        out, ends, fixed.text, fixed.edges, metrics.text, metrics.edges, features.text, features.edges,
        np.frombuffer(names.buffer, np.uint8), names.begin, names.size, closed.start, closed.end, closed.count,
        block.count, cells, cells.view(np.uint64), verdicts.scored, verdicts.anomaly, judged, judged.view(np.uint64),
        verdicts.feature, parts, parts.view(np.uint64),
        _ENDINGS.text, _ENDINGS.edges, _ending(verdicts), TENS,
    )  # fmt: skip
    return written(out, ends)


@lru_cache(maxsize=64)
def _between(source: str, version: str) -> _Pieces:
    """What stands between the values of a record, in the order of the numbers above."""
    encode = msgspec.json.encode
    nothing = (
        b'"decision":null,"score":null,"severity":null,"anomaly":false,"contributors":[],"model_version":null,'
        b'"model":null,"confidence":null}'
    )
    return _Pieces([
        b'{"device_id":"', b'","source":' + encode(source) + b',"window_start":', b',"window_end":', b',"count":',
        b',"metrics":{', b'},"state":"learning",' + nothing, b'},"state":"scored","decision":', b',"score":',
        b',"severity":', b',"anomaly":false,"contributors":[', b',"anomaly":true,"contributors":[',
        b'],"model_version":' + encode(version) + b",", b',"mean":', b',"std":', b',"min":', b',"max":', b',"last":',
        b',"sum":', b"}", b'{"feature":', b',"share":', b',"actual":', b',"typical":', b",", b"null",
    ])  # fmt: skip


_GRADES = [b"%.2f" % (percent / 100) for percent in range(101)] + [b"null"]
"""Of confidence."""
_ENDINGS = _Pieces([
    b'"model":"%b","confidence":%b}' % (whose, grade) for whose in (b"own", b"type") for grade in _GRADES
])  # fmt: skip
"""What may end a record."""


def _ending(verdicts: Verdicts) -> Ints:
    """The number of what ends each record: whose model, and its confidence in hundredths."""
    grade = np.rint(np.nan_to_num(100 * verdicts.confidence, nan=len(_GRADES) - 1))
    return np.asarray(len(_GRADES) * verdicts.lent + grade.astype(np.int64))


@lru_cache(maxsize=1024)
def _metrics(names: tuple[str, ...]) -> _Pieces:
    return _Pieces([msgspec.json.encode(name) + b':{"count":' for name in names])


@lru_cache(maxsize=64)
def _features(names: tuple[str, ...]) -> _Pieces:
    return _Pieces([msgspec.json.encode(name) for name in names])


@compiled
def _write(  # noqa: PLR0913, PLR0917 - a loop over columns takes columns
    out: Bytes, ends: Ints, fixed: Bytes, edges: Ints, metric: Bytes, metric_edges: Ints, feature: Bytes,
    feature_edges: Ints, names: Bytes, name: Ints, size: Ints, start: Ints, end: Ints, count: Ints,
    readings: Ints, cells: Floats, cell_bits: NDArray[np.uint64], scored: Flags, anomaly: Flags,
    judged: Floats, judged_bits: NDArray[np.uint64], which: Ints, parts: Floats, part_bits: NDArray[np.uint64],
    endings: Bytes, ending_edges: Ints, ending: Ints, tens: NDArray[np.uint64],
) -> None:  # fmt: skip
    at = 0
    for row in range(len(name)):
        at = _put(out, at, fixed, edges, _DEVICE)
        at = _put_name(out, at, names, name[row], size[row])
        at = put_integer(out, _put(out, at, fixed, edges, _START), start[row])
        at = put_integer(out, _put(out, at, fixed, edges, _END), end[row])
        at = put_integer(out, _put(out, at, fixed, edges, _COUNT), count[row])
        at = _put(out, at, fixed, edges, _METRICS)
        more = False
        for column in range(readings.shape[1]):
            if readings[row, column] == 0:
                continue
            if more:
                at = _put(out, at, fixed, edges, _COMMA)
            more = True
            at = put_integer(out, _put(out, at, metric, metric_edges, column), readings[row, column])
            for number in range(cells.shape[2]):
                at = _put(out, at, fixed, edges, _MEAN + number)
                at = _put_value(out, at, fixed, edges, cells[row, column, number], cell_bits[row, column, number], tens)
            at = _put(out, at, fixed, edges, _CLOSE)
        if not scored[row]:
            at = ends[row] = _put(out, at, fixed, edges, _LEARNING)
            continue
        for number in range(3):
            at = _put(out, at, fixed, edges, _SCORED + number)
            at = _put_value(out, at, fixed, edges, judged[row, number], judged_bits[row, number], tens)
        at = _put(out, at, fixed, edges, _ANOMALY if anomaly[row] else _CALM)
        more = False
        for place in range(which.shape[1]):
            if which[row, place] < 0:
                continue
            if more:
                at = _put(out, at, fixed, edges, _COMMA)
            more = True
            at = _put(out, at, fixed, edges, _FEATURE)
            at = _put(out, at, feature, feature_edges, which[row, place])
            for number in range(3):
                at = _put(out, at, fixed, edges, _SHARE + number)
                at = _put_value(out, at, fixed, edges, parts[row, place, number], part_bits[row, place, number], tens)
            at = _put(out, at, fixed, edges, _CLOSE)
        at = _put(out, at, fixed, edges, _VERSION)
        at = ends[row] = _put(out, at, endings, ending_edges, ending[row])


@compiled
def _put(out: Bytes, at: int, text: Bytes, edges: Ints, number: int) -> int:
    """Write a piece; where it ends."""
    for place in range(edges[number], edges[number + 1]):
        out[at] = text[place]
        at += 1
    return at


@compiled
def _put_value(  # noqa: PLR0913, PLR0917 - as above
    out: Bytes, at: int, fixed: Bytes, edges: Ints, value: float, bits: np.uint64, tens: NDArray[np.uint64]
) -> int:
    """Write a double, or null for what is none."""
    if np.isfinite(value):
        return put_double(out, at, value, bits, tens)
    return _put(out, at, fixed, edges, _NULL)


@compiled
def _put_name(out: Bytes, at: int, text: Bytes, begin: int, size: int) -> int:
    """Write UTF-8 within a string of JSON (RFC 8259, section 7)."""
    for place in range(begin, begin + size):
        byte = text[place]
        if byte < _BLANK:
            out[at], out[at + 1], out[at + 2], out[at + 3] = _BACKSLASH, _U, _ZERO, _ZERO
            out[at + 4], out[at + 5] = _HEXADECIMAL[byte >> 4], _HEXADECIMAL[byte & 15]
            at += _ESCAPED
            continue
        if byte in (_QUOTE, _BACKSLASH):
            out[at] = _BACKSLASH
            at += 1
        out[at] = byte
        at += 1
    return at


# --- headers -----------------------------------------------------------------------------------


def _heads(closed: Closed, names: Texts, source: str) -> Texts:
    """``ce_time``, the window's end, and ``ce_id``: source, device and start of the window."""
    times, which = moments(closed.end)
    first = np.frombuffer(opening("ce_id", 0), np.uint8)
    prefix = np.frombuffer(source.encode() + b"/", np.uint8)
    row = times.shape[1] + len(first) + len(prefix) + 1 + LONGEST
    out, ends = np.empty(len(names) * row + int(names.size.sum()) + 1, np.uint8), np.empty(len(names), np.int64)
    text = np.frombuffer(names.buffer, np.uint8)
    _write_heads(out, ends, times, which, first, prefix, text, names.begin, names.size, closed.start)
    return written(out, ends)


@compiled
def _write_heads(  # noqa: PLR0913, PLR0917 - as above
    out: Bytes, ends: Ints, times: Bytes, which: Ints, first: Bytes, prefix: Bytes, text: Bytes, begin: Ints,
    size: Ints, start: Ints,
) -> None:  # fmt: skip
    at = 0
    for row in range(len(begin)):
        head = put(out, at, times[which[row]])
        value = put(out, head, first)
        at = put(out, value, prefix)
        at = put(out, at, text[begin[row] : begin[row] + size[row]])
        out[at] = _SLASH
        at = ends[row] = put_integer(out, at + 1, start[row])
        put_size(out, head, value, at)
