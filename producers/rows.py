"""Rows of CSV that would spoil others: with a quote that nothing closes, or bytes that are not UTF-8.

An open quote takes in what follows, and no reader goes past bytes that are no text. A row ends with its line, even
within quotes (unlike RFC 4180): where a quote is lost, nobody can tell what it was to hold.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from scorers.compiled import compiled

NEWLINE, RETURN, QUOTE = b'\n\r"'
ASCII = 0x80
"""Bytes below are characters."""

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


def sound(text: bytes, delimiter: str, reject: Callable[[bytes], None]) -> bytes:
    """The rows of some whole lines without those that would spoil others, which ``reject`` is given as they are."""
    plain = _plain(text)
    if plain and b'"' not in text:
        return text
    codes = np.frombuffer(text, np.uint8)
    marks = (codes == NEWLINE) | (codes == RETURN) | (codes == QUOTE)
    at = np.flatnonzero(marks if plain else marks | (codes >= ASCII))
    begin, end, torn = np.empty(len(at) + 1, np.int64), np.empty(len(at) + 1, np.int64), np.empty(len(at) + 1, np.bool_)
    found = doubtful(codes, at, ord(delimiter), begin, end, torn)
    parts, past = [], 0
    for first, last, lost in zip(begin[:found].tolist(), end[:found].tolist(), torn[:found].tolist(), strict=True):
        if lost or not _plain(text[first:last]):
            parts.append(text[past:first])
            reject(text[first:last].removesuffix(b"\r"))
            past = last
    return b"".join((*parts, text[past:])) if parts else text


def _plain(text: bytes) -> bool:
    """Whether it is UTF-8."""
    try:
        return text.isascii() or bool(text.decode())
    except UnicodeDecodeError:
        return False


@compiled
def doubtful(text: Bytes, marks: Ints, delimiter: int, begin: Ints, end: Ints, torn: Flags) -> int:  # noqa: PLR0913, PLR0917 - arrays to fill
    """How many rows leave a quote open or have one of ``marks`` beyond ASCII.

    Fills where each is, ``[begin, end)`` without its line end, and whether its quote is open. Quotes are read as Apache
    Arrow reads them: a doubled one within quotes is one, and one behind the beginning of a field a letter.

    Args:
        text: the bytes.
        marks: where ends of lines and quotes are, and what else is asked for.
        delimiter: a byte.
        begin: to fill, one more than ``marks`` has, as the others.
        end: to fill.
        torn: to fill.
    """
    found, first, past, quoted, foreign = 0, 0, 0, False, False
    for mark in range(len(marks) + 1):
        at = marks[mark] if mark < len(marks) else len(text)
        byte = text[at] if mark < len(marks) else NEWLINE
        if at < past:
            continue
        if byte == NEWLINE or (byte == RETURN and not quoted):
            if foreign or quoted:
                begin[found], end[found], torn[found] = first, at, quoted
                found += 1
            first, quoted, foreign = at + 1, False, False
        elif byte == QUOTE and quoted:
            quoted = at + 1 < len(text) and text[at + 1] == QUOTE
            past = at + 1 + quoted
        elif byte == QUOTE:
            quoted = at == first or text[at - 1] == delimiter
        elif byte >= ASCII:
            foreign = True
    return found
