"""Records by themselves: an object each, where no template fits; what is no JSON is told of without one."""

from contextlib import suppress

import numpy as np

from scorers.statistics import Ints
from stream.contracts import Reason
from stream.parse import UNREADABLE, Fault, Judge, Parse, Reading, epoch_ms
from stream.rejects import WHOLE, Rejects, chained
from stream.syntax import CONSTANT, CUT, DEEP, EMPTY, FINE, LARGE, LEFT, STRANGE, WRONG, brackets, look
from stream.texts import Texts

_DEEPEST = 200
"""Levels of nesting; a reading has two. Beyond it decoding would depend on how deep our own calls are."""
_MOST = 8
"""Bytes of a record that are shown."""
_SHOWN = np.zeros(9, np.int64)
"""How many are, by code: of what is no object its beginning, of a wrong byte itself."""
_SHOWN[[STRANGE, WRONG, LEFT, CONSTANT]] = _MOST, 1, 1, 1
_WORDS = {
    EMPTY: (Reason.EMPTY, "the record has no value"),
    LARGE: (Reason.TOO_LARGE, "{place} bytes; max_bytes is {longest}"),
    STRANGE: (Reason.MALFORMED, "a JSON object is expected, not what begins with {text!r}"),
    DEEP: (Reason.MALFORMED, f"nested deeper than {_DEEPEST}"),
    CUT: (Reason.MALFORMED, "JSON is cut off: it ends at byte {place}"),
    WRONG: (Reason.MALFORMED, "JSON is malformed: {text!r} at byte {place}"),
    LEFT: (Reason.MALFORMED, "something comes after the JSON object: {text!r} at byte {place}"),
    CONSTANT: (Reason.NOT_FINITE, "{constant} is not a measurement; leave the metric out"),
}
_CONSTANTS = {b"N": "NaN", b"I": "Infinity", b"-": "-Infinity"}
_BRACE = ord("{")


def read(texts: Texts, rows: Ints, longest: int, fast: Parse, patient: Judge) -> tuple[Ints, list[Reading], Rejects]:
    """What is in each of some rows, by ``fast`` if it takes all of them; more than ``longest`` bytes are too many.

    Returns:
        The rows that hold readings, those, and the others.
    """
    refused = Rejects.none()
    verdicts: list[Reading | Fault] | None = None
    if _likely(texts, rows, longest):
        with suppress(*UNREADABLE):
            verdicts = list(map(fast, texts.pick(rows)))  # type: ignore[arg-type]  # a null is not likely
    if verdicts is None:
        codes, places = look(texts, rows, longest, _DEEPEST)
        wrong = codes != FINE
        refused = _told(texts, rows[wrong], codes[wrong], places[wrong], longest)
        rows = rows[~wrong]
        verdicts = list(map(patient, texts.pick(rows)))  # type: ignore[arg-type]  # a null is not fine
    verdicts = [one if isinstance(one, tuple) or type(one.ts) is int else _dated(one) for one in verdicts]
    readings = [one for one in verdicts if not isinstance(one, tuple)]
    if len(readings) == len(rows):
        return rows, readings, refused
    good = np.array([not isinstance(one, tuple) for one in verdicts])
    faulty = Rejects.of(rows[~good], [one for one in verdicts if isinstance(one, tuple)])
    return rows[good], readings, chained([refused, faulty])


def _likely(texts: Texts, rows: Ints, longest: int) -> bool:
    """Whether all may be objects that are decoded as if nothing were around them."""
    size, first = texts.size[rows], np.frombuffer(texts.buffer, np.uint8)[texts.begin[rows]]
    if ((size <= 0) | (size > longest) | (first != _BRACE)).any():
        return False
    long = rows[size > 2 * _DEEPEST]
    return not len(long) or int(brackets(texts, long).max()) <= _DEEPEST


def _dated(reading: Reading) -> Reading | Fault:
    """With its stamp in epoch ms."""
    ts = epoch_ms(reading.ts)
    if isinstance(ts, tuple):
        return ts
    reading.ts = ts
    return reading


def _told(texts: Texts, rows: Ints, codes: Ints, places: Ints, longest: int) -> Rejects:
    """What ``look`` found, in words, made once for all records of which they are true."""
    places = np.where(codes == STRANGE, 0, places)
    begin = np.where(_SHOWN[codes] > 0, places, 0)
    numbers = np.stack([codes, places, np.clip(texts.size[rows] - begin, 0, _SHOWN[codes])], axis=1)
    data, columns = np.frombuffer(texts.buffer, np.uint8), np.arange(_MOST)
    cells = np.minimum((texts.begin[rows] + begin)[:, None] + columns, len(data) - 1)
    shown = np.where(columns < numbers[:, 2:], data[cells], np.uint8(0))
    # all of it in bytes, to be compared as texts
    keys = np.concatenate([shown, numbers.view(np.uint8)], axis=1)
    count, width = keys.shape
    alike = Texts(keys.tobytes() + b"\0", np.arange(count) * width, np.full(count, width))
    fault, first = alike.distinct()
    found = zip(numbers[first].tolist(), shown[first], strict=True)
    faults = [_words(code, place, text[:size].tobytes(), longest) for (code, place, size), text in found]
    return Rejects(rows, np.full(count, WHOLE), fault, faults)


def _words(code: int, place: int, text: bytes, longest: int) -> Fault:
    reason, words = _WORDS[code]
    return reason, words.format(place=place, text=text, longest=longest, constant=_CONSTANTS.get(text))
