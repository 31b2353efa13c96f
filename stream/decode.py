"""Bytes to readings: a fast path for clean batches, a patient one for the rest.

One malformed record costs its batch the fast path and nothing else.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, repeat

import numpy as np

from scorers.statistics import Floats, Ints
from stream import rejects
from stream.contracts import Flaw, Reason
from stream.parse import BEYOND, LARGEST, SHOWN, Fault, Judge, Parse, Reading
from stream.records import Records
from stream.rejects import WHOLE, Rejects
from stream.single import read
from stream.template import Run, Templates
from stream.texts import Texts, chained

EARLIEST = 315_532_800_000
"""1980-01-01. A stamp in seconds, read as milliseconds, falls before it."""
LATEST = 7_258_118_400_000
"""2200-01-01."""
PACKED = b"\xff\xff\xff\xff"
"""How a record of many readings begins: as an Arrow IPC stream does, and no JSON."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a record may not exceed."""

    max_bytes: int = 262_144
    max_metrics: int = 256
    max_name: int = 256
    """Longest device or metric name, in characters."""
    max_ahead_ms: int = 600_000
    """How far a reading may lie ahead of its record's Kafka timestamp."""


ABSENT = -(2**63)
"""In place of a stamp that is not there."""


@dataclass(slots=True)
class Decoded:
    """``n`` readings in columns; reading *i* is record ``row[i]`` of the batch, or is its number ``part[i]``.

    Rows ascend, and parts within them, unless another order was asked for. The device of reading *i* is
    ``names[device[i]]``, in UTF-8; names may be there that no reading has, or twice, or null.
    The values of reading *i* are ``flat[start[i]:][:len(shapes[shape[i]])]``, in the order of the
    metric names ``shapes[shape[i]]``.
    """

    row: Ints
    part: Ints
    names: Texts
    device: Ints
    ts: Ints
    shape: Ints
    shapes: list[tuple[str, ...]]
    start: Ints
    flat: Floats
    rejects: Rejects = field(default_factory=Rejects.none)

    def __len__(self) -> int:
        return len(self.row)

    def take(self, chosen: Ints) -> "Decoded":
        """The chosen readings, in that order, with the same rejects."""
        return Decoded(
            self.row[chosen],
            self.part[chosen],
            self.names,
            self.device[chosen],
            self.ts[chosen],
            self.shape[chosen],
            self.shapes,
            self.start[chosen],
            self.flat,
            self.rejects,
        )

    def alone(self, at: int) -> bytes:
        """Reading ``at`` as a record of its own: JSON, but for numbers that are not finite, which JSON lacks."""
        device, ts, start = self.names[int(self.device[at])], int(self.ts[at]), int(self.start[at])
        names = self.shapes[int(self.shape[at])]
        values = dict(zip(names, self.flat[start : start + len(names)].tolist(), strict=True))
        stamp = None if ts == ABSENT else ts
        whole = {"device_id": None if device is None else device.decode(), "ts": stamp, "values": values}
        return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()

    def refuse(self, readings: Ints, faults: Sequence[Fault]) -> Rejects:
        """Some readings kept aside, with the fault of each; one of many in a record by itself."""
        found = replace(Rejects.of(self.row[readings], faults), part=self.part[readings])
        if found.part.max(initial=WHOLE) == WHOLE:
            return found
        places = zip(readings.tolist(), found.row.tolist(), found.part.tolist(), strict=True)
        return replace(found, values={(row, part): self.alone(at) for at, row, part in places if part != WHOLE})


def together(parts: Sequence[Decoded]) -> Decoded:
    """As if decoded at once, one after the other."""
    shapes = list(dict.fromkeys(chain.from_iterable(one.shapes for one in parts)))
    place = {names: number for number, names in enumerate(shapes)}
    moved = [np.array([place[names] for names in one.shapes], np.int64) for one in parts]
    names = np.cumsum([0, *(len(one.names) for one in parts)])
    values = np.cumsum([0, *(len(one.flat) for one in parts)])
    return Decoded(
        np.concatenate([one.row for one in parts]),
        np.concatenate([one.part for one in parts]),
        chained([one.names for one in parts]),
        np.concatenate([one.device + first for one, first in zip(parts, names, strict=False)]),
        np.concatenate([one.ts for one in parts]),
        np.concatenate([number[one.shape] for one, number in zip(parts, moved, strict=True)]),
        shapes,
        np.concatenate([one.start + first for one, first in zip(parts, values, strict=False)]),
        np.concatenate([one.flat for one in parts]),
        rejects.chained([one.rejects for one in parts]),
    )


def both(first: Decoded, second: Decoded, rows: int) -> Decoded:
    """As if decoded together; the first comes of ``rows`` records."""
    return together([first, replace(second, row=second.row + rows, rejects=second.rejects.behind(rows))])


@dataclass(frozen=True, slots=True)
class Parser:
    """How the records of a topic are read.

    ``fast`` must raise on everything it does not understand; ``patient`` then has the last word on each record.
    """

    fast: Parse
    patient: Judge
    templates: Templates | None = None
    """Reads what looks alike; ``fast`` is only for the rest."""
    packed: Callable[[Ints, Sequence[bytes | None]], Decoded] | None = None
    """Reads records of many readings, those that begin with ``PACKED``, given with their rows."""


def decode(records: Records, limits: Limits, parser: Parser) -> Decoded:
    """Readings and rejects of a batch."""
    if parser.templates:
        run = Run(Texts.of(records.values), limits.max_bytes)
        parts = []
        if parser.packed and len(packed := _packed(run)):
            parts.append(parser.packed(packed, run.texts.pick(packed)))
        decoded = _alike(run, parser.templates)
        left = np.sort(np.append(run.left, run.others))
        if len(left):
            parts.append(_slowly(records, left, limits, parser))
        if parts:
            decoded = together([decoded, *parts])
            decoded = decoded.take(np.argsort(decoded.row, kind="stable"))
    else:
        decoded = _slowly(records, np.arange(len(records)), limits, parser)
    _check(decoded, records, limits)
    return decoded


def _packed(run: Run) -> Ints:
    """Take out of a run the rows that hold many readings."""
    begins = run.texts.begin[run.left]
    # JSON has no such byte anywhere
    likely = run.left[run.data[begins] == PACKED[0]]
    return run.leave([row for row in likely.tolist() if (run.texts[row] or b"").startswith(PACKED)])


def _alike(run: Run, templates: Templates) -> Decoded:
    """The readings that templates fit, in the order of their records; the rows of the others are ``run.left``."""
    parts = templates.read(run)
    if not parts:
        return _columns(np.empty(0, np.int64), [])
    row, ts, flat, begin, length = (
        np.concatenate(columns) for columns in zip(*(part for _, part in parts), strict=True)
    )
    code, names = run.words(begin, length)
    shapes = list(dict.fromkeys(made.names for made, _ in parts))
    shape = np.repeat([shapes.index(made.names) for made, _ in parts], [len(part.row) for _, part in parts])
    width = np.array([len(names) for names in shapes])[shape]
    strange = _strange(names)
    decoded = Decoded(row, _whole(row), names, code, ts, shape, shapes, np.cumsum(width) - width, flat)
    order = np.argsort(row)
    if strange:
        odd = np.isin(code, strange)
        run.left = np.append(run.left, row[odd])
        order = order[~odd[order]]
    return decoded.take(order)


def _strange(names: Texts) -> list[int]:
    """The numbers of those that are not UTF-8."""
    if names.buffer.isascii():
        return []
    return [at for at, name in enumerate(names) if name and name.decode(errors="replace").encode() != name]


def _slowly(records: Records, rows: Ints, limits: Limits, parser: Parser) -> Decoded:
    """Some rows, by an object a record."""
    found, readings, refused = read(Texts.of(records.values), rows, limits.max_bytes, parser.fast, parser.patient)
    decoded = _columns(found, readings)
    decoded.rejects = refused
    return decoded


def _columns(rows: Ints, readings: list[Reading]) -> Decoded:
    values = [reading.values for reading in readings]
    interned: dict[tuple[str, ...], int] = {}
    shape = [interned.setdefault(tuple(value), len(interned)) for value in values]
    shapes = list(interned)
    flat = np.array(list(chain.from_iterable(value.values() for value in values)), np.float64)
    widths = np.array([len(names) for names in shapes], np.int64)[shape] if readings else np.empty(0, np.int64)
    ts = np.array([reading.ts for reading in readings], np.int64)
    start = np.cumsum(widths) - widths
    known: dict[str, int] = {}
    device = np.array([known.setdefault(reading.device_id, len(known)) for reading in readings], np.int64)
    names = Texts.of([name.encode() for name in known])
    return Decoded(rows, _whole(rows), names, device, ts, np.array(shape, np.int64), shapes, start, flat)


def _whole(rows: Ints) -> Ints:
    """The parts of readings that are records."""
    return np.full(len(rows), WHOLE, np.int64)


def _check(decoded: Decoded, records: Records, limits: Limits) -> None:
    """Drop in place what is well-formed but out of bounds; nearly always nothing is."""
    if not len(decoded):
        return
    bad: dict[int, Fault] = {}

    def refuse(readings: Ints, reason: Reason | Flaw, details: Iterable[str]) -> None:
        for at, detail in zip(readings.tolist(), details, strict=False):
            bad.setdefault(at, (reason, detail))

    ts, ahead = decoded.ts, decoded.ts - records.arrival[decoded.row]
    beyond = np.flatnonzero((ts < EARLIEST) | (ts >= LATEST))
    refuse(beyond[(ts[beyond] == ABSENT) & (decoded.part[beyond] >= 0)], Reason.MISSING_FIELD, repeat("ts is missing"))
    details = (f"ts {stamp} is not epoch milliseconds between 1980 and 2199" for stamp in ts[beyond].tolist())
    refuse(beyond, Reason.BAD_TIMESTAMP, details)
    early = np.flatnonzero(ahead > limits.max_ahead_ms)
    told = zip(ts[early].tolist(), ahead[early].tolist(), strict=True)
    most = limits.max_ahead_ms
    details = (f"ts {stamp} is {by} ms ahead of the record; max_ahead is {most} ms" for stamp, by in told)
    refuse(early, Reason.FUTURE, details)
    for shape, names in enumerate(decoded.shapes):
        fault = _shape_fault(names, limits)
        if fault:
            refuse(np.flatnonzero(decoded.shape == shape), fault[0], repeat(fault[1]))
    size = decoded.names.size
    suspect = np.flatnonzero((size <= 0) | (size > limits.max_name))  # in bytes, no fewer than characters
    if len(suspect):
        refuse(np.flatnonzero(size[decoded.device] < 0), Reason.MISSING_FIELD, repeat("device_id is missing"))
        letters = [len((name or b"").decode()) for name in decoded.names.pick(suspect)]
        odd = [code for code, count in zip(suspect, letters, strict=True) if not 0 < count <= limits.max_name]
        refuse(
            np.flatnonzero(np.isin(decoded.device, odd)),
            Reason.WRONG_TYPE,
            repeat(f"device_id must have 1 to {limits.max_name} characters"),
        )
    if not np.abs(decoded.flat).max(initial=0.0) <= LARGEST:
        places = np.flatnonzero(~(np.abs(decoded.flat) <= LARGEST))
        width = np.array([len(names) for names in decoded.shapes])[decoded.shape]
        order = np.lexsort((width, decoded.start))  # of two that begin at the same place the first has no values
        owner = order[np.searchsorted(decoded.start[order], places, side="right") - 1]
        # what lies between is of readings left out before
        inside = (decoded.start[owner] <= places) & (places < decoded.start[owner] + width[owner])
        odd_ones = zip(owner[inside].tolist(), places[inside].tolist(), strict=True)
        refuse(owner[inside], Reason.NOT_FINITE, (_oddity(decoded, at, place) for at, place in odd_ones))
    if bad:
        _drop(decoded, bad)


def _shape_fault(names: tuple[str, ...], limits: Limits) -> Fault | None:
    if not names:
        return Reason.NO_VALUES, "values is empty"
    if len(names) > limits.max_metrics:
        return Reason.TOO_MANY_METRICS, f"{len(names)} metrics; max_metrics is {limits.max_metrics}"
    if not all(0 < len(name) <= limits.max_name for name in names):
        return Reason.WRONG_TYPE, f"metric names must have 1 to {limits.max_name} characters"
    return None


def _oddity(decoded: Decoded, at: int, place: int) -> str:
    """What is wrong with a value of reading ``at`` that is not within bounds."""
    value, name = decoded.flat[place], decoded.shapes[decoded.shape[at]][place - decoded.start[at]]
    if math.isfinite(value):
        return BEYOND
    return f"{name[:SHOWN]} is {value}, which is not a measurement; leave the metric out"


def _drop(decoded: Decoded, bad: Mapping[int, Fault]) -> None:
    readings = np.fromiter(bad, np.int64)
    refused = decoded.refuse(readings, list(bad.values()))
    kept = decoded.take(np.setdiff1d(np.arange(len(decoded)), readings))
    decoded.row, decoded.part, decoded.device, decoded.ts = kept.row, kept.part, kept.device, kept.ts
    decoded.shape, decoded.start = kept.shape, kept.start
    decoded.rejects = rejects.chained([decoded.rejects, refused])
