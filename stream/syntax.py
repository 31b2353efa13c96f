"""What is wrong with records that are no JSON objects, told in a compiled loop: no object is made, nothing is raised.

The grammar is that of RFC 8259. What is found wrong here is wrong; what is not found may still be, as a string
that is not UTF-8: who makes an object of a record has the last word on it.
"""

import numpy as np
from numpy.typing import NDArray

from scorers.compiled import compiled
from scorers.statistics import Ints
from stream.texts import Texts

Bytes = NDArray[np.uint8]

FINE, EMPTY, LARGE, STRANGE, DEEP, CUT, WRONG, LEFT, CONSTANT = range(9)
"""Nothing found; null or no bytes; too many; no object; nested too deep; an early end; a byte that cannot be where it
is; one behind the end; NaN or an infinity in what would be JSON without."""

_FIRST, _KEY, _COLON, _ITEM, _VALUE, _NEXT = range(6)
"""What is to come: a key or the end, a key, a colon, an item or the end, a value, a comma or the end."""
_BLANK, _TAB, _NEWLINE, _RETURN = b" \t\n\r"
_OPEN, _CLOSE, _ENTER, _LEAVE = b"{}[]"
_QUOTE, _BACKSLASH, _COMMA, _DOTS, _U = b'"\\,:u'
_ZERO, _NINE, _MINUS, _PLUS, _POINT, _E, _LARGE_E = b"09-+.eE"
_I = ord("I")
_ESCAPES = np.frombuffer(b'"\\/bfnrtu', np.uint8)
_HEXADECIMAL = np.frombuffer(b"0123456789abcdefABCDEF", np.uint8)
_LITERALS, _EDGES = np.frombuffer(b"truefalsenullNaNInfinity", np.uint8), (0, 4, 9, 13, 16, 24)
_CONSTANTS = (3, 4)
"""Which of the literals many writers of JSON put for a float that is none."""
_INFINITY = _LITERALS[_EDGES[4] :]


def look(texts: Texts, rows: Ints, longest: int, deepest: int) -> tuple[Ints, Ints]:
    """What is found wrong with each of some rows, and at which of its bytes; behind the last where it is too large."""
    codes, places = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    data = np.frombuffer(texts.buffer, np.uint8)
    _look(data, texts.begin[rows], texts.size[rows], longest, np.empty(deepest + 1, np.bool_), codes, places)
    return codes, places


def brackets(texts: Texts, rows: Ints) -> Ints:
    """How many brackets are opened in each of some rows, in strings too."""
    counts = np.zeros(len(rows), np.int64)
    _count(np.frombuffer(texts.buffer, np.uint8), texts.begin[rows], texts.size[rows], counts)
    return counts


@compiled
def _count(data: Bytes, begin: Ints, size: Ints, counts: Ints) -> None:
    for row in range(len(begin)):
        for at in range(begin[row], begin[row] + size[row]):
            counts[row] += data[at] in (_OPEN, _ENTER)


@compiled
def _look(  # noqa: PLR0913, PLR0917 - a loop over columns takes columns
    data: Bytes, begin: Ints, size: Ints, longest: int, stack: NDArray[np.bool_], codes: Ints, places: Ints
) -> None:
    for row in range(len(begin)):
        if size[row] <= 0 or size[row] > longest:
            codes[row], places[row] = EMPTY if size[row] <= 0 else LARGE, size[row]
            continue
        code, at = _object(data, begin[row], begin[row] + size[row], stack)
        codes[row], places[row] = code, at - begin[row]


@compiled
def _object(  # noqa: PLR0911, PLR0912 - one loop over a grammar
    data: Bytes, at: int, end: int, stack: NDArray[np.bool_]
) -> tuple[int, int]:
    """What is wrong and where; ``stack`` holds by level whether it is an object, and has one more than may be."""
    at = _pass(data, at, end)
    if at == end or data[at] != _OPEN:
        return STRANGE, at
    level, state, constant = 1, _FIRST, -1
    stack[0] = True
    at += 1
    while level:
        at = _pass(data, at, end)
        if at == end:
            return CUT, at
        byte = data[at]
        if state in (_FIRST, _KEY) and byte == _QUOTE:
            code, at = _string(data, at + 1, end)
            if code:
                return code, at
            state = _COLON
        elif state == _COLON and byte == _DOTS:
            at, state = at + 1, _VALUE
        elif state == _NEXT and byte == _COMMA:
            at, state = at + 1, _KEY if stack[level - 1] else _VALUE
        elif (state in (_FIRST, _NEXT) and byte == _CLOSE and stack[level - 1]) or (
            state in (_ITEM, _NEXT) and byte == _LEAVE and not stack[level - 1]
        ):
            at, level, state = at + 1, level - 1, _NEXT
        elif state not in (_ITEM, _VALUE):
            return WRONG, at
        elif byte in (_OPEN, _ENTER):
            stack[level] = byte == _OPEN
            at, level, state = at + 1, level + 1, _FIRST if byte == _OPEN else _ITEM
            if level == len(stack):
                return DEEP, at
        else:
            first = at
            code, at = _plain(data, at, end)
            if code == CONSTANT:
                constant = first if constant < 0 else constant
            elif code:
                return code, at
            state = _NEXT
    at = _pass(data, at, end)
    if at < end:
        return LEFT, at
    return (FINE, at) if constant < 0 else (CONSTANT, constant)


@compiled
def _pass(data: Bytes, at: int, end: int) -> int:
    """The next byte that is not blank, or the end."""
    while at < end and data[at] in (_BLANK, _TAB, _NEWLINE, _RETURN):
        at += 1
    return at


@compiled
def _plain(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Past a string, number or literal; or past a constant, with its code."""
    byte = data[at]
    if byte == _QUOTE:
        return _string(data, at + 1, end)
    if byte == _MINUS or _ZERO <= byte <= _NINE:
        return _number(data, at, end)
    for number in range(len(_EDGES) - 1):
        literal = _LITERALS[_EDGES[number] : _EDGES[number + 1]]
        if byte == literal[0]:
            code, at = _literal(data, at, end, literal)
            return code or (CONSTANT if number in _CONSTANTS else FINE), at
    return WRONG, at


@compiled
def _literal(data: Bytes, at: int, end: int, literal: Bytes) -> tuple[int, int]:
    """Past a word."""
    for letter in literal:
        if at == end:
            return CUT, at
        if data[at] != letter:
            return WRONG, at
        at += 1
    return FINE, at


@compiled
def _string(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Past the closing quote."""
    while at < end:
        byte = data[at]
        if byte == _QUOTE:
            return FINE, at + 1
        if byte < _BLANK:
            return WRONG, at
        at += 1
        if byte == _BACKSLASH:
            if at == end:
                break
            if not _among(data[at], _ESCAPES):
                return WRONG, at
            digits = 4 if data[at] == _U else 0
            at += 1
            while digits and at < end:
                if not _among(data[at], _HEXADECIMAL):
                    return WRONG, at
                at, digits = at + 1, digits - 1
    return CUT, end


@compiled
def _among(byte: int, some: Bytes) -> bool:
    for one in some:  # noqa: SIM110 - numba knows no any()
        if byte == one:
            return True
    return False


@compiled
def _number(data: Bytes, at: int, end: int) -> tuple[int, int]:
    if data[at] == _MINUS:
        at += 1
        if at < end and data[at] == _I:
            code, at = _literal(data, at, end, _INFINITY)
            return code or CONSTANT, at
    zero = at < end and data[at] == _ZERO
    first, at = at, _digits(data, at, end)
    if at == first or (zero and at - first > 1):
        return (CUT, at) if at == end else (WRONG, first + zero)
    if at < end and data[at] == _POINT:
        first, at = at + 1, _digits(data, at + 1, end)
        if at == first:
            return (CUT, at) if at == end else (WRONG, at)
    if at < end and data[at] in (_E, _LARGE_E):
        at += 1
        at += at < end and data[at] in (_MINUS, _PLUS)
        first, at = at, _digits(data, at, end)
        if at == first:
            return (CUT, at) if at == end else (WRONG, at)
    return FINE, at


@compiled
def _digits(data: Bytes, at: int, end: int) -> int:
    """Past some digits."""
    while at < end and _ZERO <= data[at] <= _NINE:
        at += 1
    return at
