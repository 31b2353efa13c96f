"""JSON readings that look alike, read in a compiled loop: what stands between their values must be what it was.

A template is made of one reading: its text without device, stamp and values. A record that has the same text
around them, to the byte, is read without making a Python object; any other is left to whoever reads patiently.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scorers.compiled import compiled
from scorers.statistics import Floats, Ints
from stream.number import EXACT, POWERS, nearest
from stream.texts import Texts

Bytes = NDArray[np.uint8]

DEVICE, STAMP = -1, -2
"""What stands between two texts; 0 and above: the value of that metric."""
_NUMBER = rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
_SPACE = rb"[ \t\n\r]*"
_VALUE = re.compile(rb'%s"[^"\\]*"%s:%s(%s)%s,?' % (_SPACE, _SPACE, _SPACE, _NUMBER, _SPACE))
_MEMBER = re.compile(
    rb'%s[{,]%s(?:"device_id"%s:%s"(?P<device>[^"\\]*)"|"ts"%s:%s(?P<stamp>[0-9]+)|"values"%s:%s\{(?P<values>[^{}\\]*)\})'
    % ((_SPACE,) * 8)
)
_MEMBERS = 3
_MOST = 64
"""Templates kept."""
_TRIES = 16
"""Templates made of one run at the most: a topic of poison, or of readings that never look alike, has none."""
_STAMP_DIGITS = 18
_DIGITS = 19
"""As many always fit 64 bits."""
_EXACT = np.uint64(2**53)
_ZERO, _NINE, _MINUS, _PLUS, _POINT, _E, _LARGE_E, _QUOTE, _BACKSLASH, _BLANK = b'09-+.eE"\\ '
_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """What readings that look alike have in common."""

    names: tuple[str, ...]
    """Metrics, in the order of the record."""
    text: Bytes
    """All texts, one after the other."""
    edges: Ints
    """Shape ``(texts + 1,)``: where each text begins and ends."""
    kinds: Ints
    """Shape ``(texts - 1,)``: what follows each text but the last."""


class Found(NamedTuple):
    """What a template found in a run of records: columns of those it fits, in their order."""

    row: Ints
    ts: Ints
    flat: Floats
    """Shape ``(n * metrics,)``."""
    begin: Ints
    """Where each device's name begins, and how long it is."""
    length: Ints


class Templates:
    """What readings have looked like so far. Of its state depends how fast records are read, never what is read."""

    def __init__(self, names: Callable[[bytes], Sequence[str]]) -> None:
        """``names`` as :func:`template` takes it."""
        self._names = names
        self._known: list[Template] = []

    def read(self, run: "Run") -> list[tuple[Template, Found]]:
        """What the records of a run hold, by template; ``run.left`` holds the rows of those that none fits."""
        found = []
        for made in list(self._known):
            if len(run.left):
                found += self._look(made, run)
        hard: list[int] = []
        for _ in range(_TRIES):
            if not len(run.left):
                break
            made_now = template(run.texts[int(run.left[0])] or b"", self._names)
            fitting = self._look(made_now, run) if made_now else []
            found += fitting
            if not fitting:
                hard.append(int(run.left[0]))
                run.left = run.left[1:]
        run.left = np.append(np.array(hard, np.int64), run.left)
        return found

    def _look(self, made: Template, run: "Run") -> list[tuple[Template, Found]]:
        """At what is left of a run; a template that fits is tried first the next time."""
        found, run.left = fill(made, run.data, run.texts, run.left)
        if not len(found.row):
            return []
        self._known = [made, *(other for other in self._known if other is not made)][:_MOST]
        return [(made, found)]


class Run:
    """Records, and which of them are still to be read."""

    def __init__(self, texts: Texts, longest: int) -> None:
        """Records of more than ``longest`` bytes, or none, are not looked at."""
        self.texts = texts
        self.data = np.frombuffer(texts.buffer, np.uint8)
        looked = (texts.size > 0) & (texts.size <= longest)
        self.left = np.flatnonzero(looked)
        self.others = np.flatnonzero(~looked)

    def leave(self, rows: Sequence[int]) -> Ints:
        """Leave these rows, ascending, to others; the same in an array."""
        gone = np.array(rows, np.int64)
        if len(gone):
            self.left = np.setdiff1d(self.left, gone, assume_unique=True)
        return gone

    def words(self, begin: Ints, length: Ints) -> tuple[Ints, Texts]:
        """Which of the distinct parts of the records each part is, and those, as they first appear."""
        parts = Texts(self.texts.buffer, begin, length)
        code, first = parts.distinct()
        return code, parts.gather(first)


def template(value: bytes, names: Callable[[bytes], Sequence[str]]) -> Template | None:
    """The template of a reading; None where it has none.

    Args:
        value: a record.
        names: gives a reading's metrics in the order of the record, or raises ValueError: the last word on what
            is a reading.
    """
    spans = _spans(value)
    if not spans:
        return None
    try:
        known = tuple(names(value))
    except ValueError:
        return None
    if not known or len(known) != len(spans) - 2:  # a name was there twice
        return None
    begins, ends = [0, *(end for _, _, end in spans)], [*(begin for _, begin, _ in spans), len(value)]
    texts = [value[begin:end] for begin, end in zip(begins, ends, strict=True)]
    edges, kinds = np.cumsum([0, *map(len, texts)]), np.array([kind for kind, _, _ in spans])
    return Template(known, np.frombuffer(b"".join(texts), np.uint8), edges, kinds)


def _spans(value: bytes) -> list[tuple[int, int, int]]:
    """Kind, begin and end of all that varies; nothing where the record is not written as a reading is."""
    spans, found, at = [], set[str | None](), 0
    while member := _MEMBER.match(value, at):
        kind, at = member.lastgroup, member.end()
        found.add(kind)
        begin, end = member.span(kind or 0)
        if kind != "values":
            spans.append((DEVICE if kind == "device" else STAMP, begin, end))
            continue
        for column in range(len(value)):
            number = _VALUE.match(value, begin, end)
            if number is None:
                break
            spans.append((column, *number.span(1)))
            begin = number.end()
        if begin != end:
            return []
    return spans if len(found) == _MEMBERS and value[at:].strip() == b"}" else []


def fill(made: Template, data: Bytes, texts: Texts, rows: Ints) -> tuple[Found, Ints]:
    """Read the records that a template fits; ``data`` is the buffer of ``texts``, ``rows`` are those to look at.

    Returns:
        What was found, and the rows of the others.
    """
    width = len(made.names)
    ts, begin, length = (np.empty(len(rows), np.int64) for _ in range(3))
    fits = np.empty(len(rows), np.bool_)
    flat = np.empty(len(rows) * width)
    bits = flat.view(np.uint64)
    _fill(
        data, texts.begin[rows], texts.size[rows], made.text, made.edges, made.kinds, POWERS, EXACT,
        ts, flat, bits, begin, length, fits,
    )  # fmt: skip
    if fits.all():
        return Found(rows, ts, flat, begin, length), rows[:0]
    found = Found(rows[fits], ts[fits], flat.reshape(-1, width)[fits].ravel(), begin[fits], length[fits])
    return found, rows[~fits]


@compiled
def _fill(  # noqa: PLR0913, PLR0917 - a loop over columns takes columns
    data: Bytes, starts: Ints, sizes: Ints, text: Bytes, text_edges: Ints, kinds: Ints, powers: NDArray[np.uint64],
    exact: Floats, ts: Ints, flat: Floats, bits: NDArray[np.uint64], begin: Ints, length: Ints, fits: NDArray[np.bool_],
) -> None:  # fmt: skip
    width = len(kinds) - 2
    # a record that is cut short is read on into the next; it does not end where it should, and does not fit
    for i in range(len(starts)):
        at = starts[i]
        fits[i] = False
        for part in range(len(kinds)):
            at = _same(data, at, text[text_edges[part] : text_edges[part + 1]])
            if at < 0:
                break
            kind = kinds[part]
            if kind >= 0:
                at = _number(data, at, powers, exact, flat, bits, i * width + kind)
            elif kind == DEVICE:
                begin[i] = at
                at = _name(data, at)
                length[i] = at - begin[i]
            else:
                at = _stamp(data, at, ts, i)
            if at < 0:
                break
        if at >= 0:
            at = _same(data, at, text[text_edges[len(kinds)] : text_edges[len(kinds) + 1]])
            fits[i] = at == starts[i] + sizes[i]


@compiled
def _same(data: Bytes, at: int, text: Bytes) -> int:
    """Where a text ends; -1 where it is not there. The 0 that ends the buffer is in no text."""
    for byte in text:
        if data[at] != byte:
            return -1
        at += 1
    return at


@compiled
def _name(data: Bytes, at: int) -> int:
    """The closing quote; -1 where there is an escape or a control character before it."""
    while data[at] != _QUOTE:
        if data[at] < _BLANK or data[at] == _BACKSLASH:
            return -1
        at += 1
    return at


@compiled
def _digit(byte: int) -> bool:
    return _ZERO <= byte <= _NINE


@compiled
def _stamp(data: Bytes, at: int, ts: Ints, row: int) -> int:
    """Past an integer of JSON, put into ``ts[row]``; -1 where there is none, or one of too many digits."""
    first, value = at, 0
    while _digit(data[at]):
        value = 10 * value + data[at] - _ZERO
        at += 1
        if at - first > _STAMP_DIGITS:
            return -1
    if at == first or (data[first] == _ZERO and at - first > 1):
        return -1
    ts[row] = value
    return at


@compiled
def _number(  # noqa: PLR0912, PLR0913, PLR0917 - one loop over the grammar of JSON (RFC 8259)
    data: Bytes, at: int, powers: NDArray[np.uint64], exact: Floats, flat: Floats, bits: NDArray[np.uint64], cell: int
) -> int:  # fmt: skip
    """Past a number of JSON, put into ``flat[cell]`` as Python's ``float`` has it; -1 where that is hard to tell."""
    negative = data[at] == _MINUS
    at += negative
    first = at
    digits, many, power = np.uint64(0), 0, 0
    while _digit(data[at]):
        digits = digits * np.uint64(10) + np.uint64(data[at] - _ZERO)
        many += many > 0 or data[at] != _ZERO
        at += 1
    if at == first or (data[first] == _ZERO and at - first > 1):
        return -1
    if data[at] == _POINT:
        point = at = at + 1
        while _digit(data[at]):
            digits = digits * np.uint64(10) + np.uint64(data[at] - _ZERO)
            many += many > 0 or data[at] != _ZERO
            at += 1
        if at == point:
            return -1
        power = point - at
    if data[at] == _E or data[at] == _LARGE_E:
        at += 1
        down = data[at] == _MINUS
        at += down or data[at] == _PLUS
        begin, exponent = at, 0
        while _digit(data[at]):
            exponent = min(10 * exponent + data[at] - _ZERO, 10_000)
            at += 1
        if at == begin:
            return -1
        power += -exponent if down else exponent
    if many > _DIGITS or (digits == np.uint64(0) and negative):
        return -1
    if digits == np.uint64(0):
        flat[cell] = 0.0
    elif digits <= _EXACT and 0 <= power < len(exact):
        flat[cell] = np.float64(digits) * exact[power]
    elif digits <= _EXACT and -len(exact) < power < 0:
        flat[cell] = np.float64(digits) / exact[-power]
    else:
        found = nearest(digits, power, powers)
        if found == _ALL:
            return -1
        bits[cell] = found
    if negative:
        flat[cell] = -flat[cell]
    return at
