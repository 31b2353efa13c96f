"""Plain lines of a session log to numbers, in a compiled loop; what is not plain is left to ``producers.logs``.

Plain is what nearly every line is: 17 fields in ASCII, quoted or not, times such as ``2024-03-01T08:00:00.123Z``,
numbers such as ``0.531`` or ``5.31e-1``. A number comes out as Python's ``round(float(text) * 1e6)`` gives it, or it is
not plain.
"""

import numpy as np
from numpy.typing import NDArray

from scorers.compiled import compiled

FIELDS = 17
START, END, SERVER, CONNECTIONS = 1, 2, 15, 3
MEASURED = (14, 4, 8, 9, 10, 11, 12, 13)
"""Columns of ``scorers.forecast.schema.LOADS``, in their order."""
LARGEST = 1e9
"""No load is more."""

BLANK, ODD = -1, -2
COMMA, QUOTE, RETURN, SPACE, TAB, NIL, NINE, POINT = b',"\r \t09.'
DASH, COLON, CAPITAL_T, CAPITAL_Z = b"-:TZ"
CAPITAL_E, SMALL_E, PLUS = b"Ee+"
SMALL_A, SMALL_Z = b"az"
CASE = 32
"""What makes a capital letter small."""
NOTHING = tuple(b"in")
"""Small letters with which ``inf``, ``nan``, ``null`` and ``none`` begin."""
NAME = 255
"""Bytes of a server's name at most."""
EXACT = 1 << 53
"""Whole numbers below are doubles."""
POWERS = 10.0 ** np.arange(23)
"""Powers of ten that are doubles."""
TOLERANCE = 2.0**-50
"""Relative error of two roundings, and some more."""
DIGITS = 18
"""More do not fit into 64 bits."""
FAR = 10_000
"""An exponent that none is read with."""
SECONDS = 19
"""Bytes of a time to the second."""
FIRST_YEAR, LAST_YEAR, FEBRUARY = 1980, 2198, 2
MONTHS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@compiled
def cut(text: Bytes, begin: int, end: int, first: Ints, last: Ints) -> bool:
    """Where each field is, ``[first, last)``, without quotes and spaces around it; or that the line is not plain."""
    at, field = begin, 0
    while field < FIELDS:
        while at < end and (text[at] == SPACE or text[at] == TAB):
            at += 1
        quoted = at < end and text[at] == QUOTE
        at += quoted
        first[field] = at
        while at < end and (text[at] != QUOTE if quoted else text[at] != COMMA):
            if text[at] >= 128 or text[at] == 0 or text[at] == QUOTE:  # noqa: PLR2004 - beyond ASCII
                return False
            at += 1
        last[field] = at
        if quoted:
            at += 1
            if at > end or (at < end and text[at] != COMMA):
                return False
        while last[field] > first[field] and (text[last[field] - 1] == SPACE or text[last[field] - 1] == TAB):
            last[field] -= 1
        field += 1
        if at >= end:
            break
        at += 1
        if field == FIELDS:
            return False
    return field == FIELDS


@compiled
def digits(text: Bytes, begin: int, end: int) -> int:
    """A whole number of digits alone; or ``ODD``."""
    value = 0
    for at in range(begin, end):
        if text[at] < NIL or text[at] > NINE:
            return ODD
        value = value * 10 + (text[at] - NIL)
    return value


@compiled
def shaped(text: Bytes, begin: int, size: int) -> bool:
    """Whether it has the marks of ``2024-03-01T08:00:00`` and, after it, nothing or a point with one to nine digits."""
    if size < SECONDS or size > SECONDS + 10 or size == SECONDS + 1:
        return False
    dashes = text[begin + 4] == DASH and text[begin + 7] == DASH
    colons = text[begin + 13] == COLON and text[begin + 16] == COLON
    middle = text[begin + 10] == CAPITAL_T or text[begin + 10] == SPACE
    behind = size == SECONDS or text[begin + SECONDS] == POINT
    return dashes and colons and middle and behind


@compiled
def days(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 to a date of the Gregorian calendar; or ``ODD`` where there is none, or it is far off.

    As Howard Hinnant counts them, http://howardhinnant.github.io/date_algorithms.html.
    """
    if year < FIRST_YEAR or year > LAST_YEAR or month < 1 or month > len(MONTHS):
        return ODD
    leap = month == FEBRUARY and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day < 1 or day > MONTHS[month - 1] + leap:
        return ODD
    shifted = year - (month <= FEBRUARY)
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * (month + (-3 if month > FEBRUARY else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


@compiled
def moment(text: Bytes, begin: int, end: int) -> int:
    """Epoch ms of a time in UTC; or ``BLANK``, or ``ODD``."""
    if begin == end:
        return BLANK
    end -= text[end - 1] == CAPITAL_Z
    if not shaped(text, begin, end - begin):
        return ODD
    date = days(digits(text, begin, begin + 4), digits(text, begin + 5, begin + 7), digits(text, begin + 8, begin + 10))
    hour, minute = digits(text, begin + 11, begin + 13), digits(text, begin + 14, begin + 16)
    second, behind = digits(text, begin + 17, begin + SECONDS), digits(text, begin + SECONDS + 1, end)
    if min(date, hour, minute, second, behind) < 0 or hour >= 24 or max(minute, second) >= 60:  # noqa: PLR2004
        return ODD
    count = max(end - begin - SECONDS - 1, 0)
    while count < 3:  # noqa: PLR2004 - to thousandths
        behind *= 10
        count += 1
    while count > 3:  # noqa: PLR2004
        behind //= 10
        count -= 1
    return ((date * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + behind


@compiled
def exponent(text: Bytes, begin: int, end: int) -> int:
    """The power of ten that ``e-5`` and the like stand for, 0 where there is nothing; or ``FAR``."""
    if begin == end:
        return 0
    if text[begin] != SMALL_E and text[begin] != CAPITAL_E:
        return FAR
    begin += 1
    minus = begin < end and text[begin] == DASH
    begin += begin < end and (minus or text[begin] == PLUS)
    power = digits(text, begin, end)
    if begin == end or end - begin > 3 or power == ODD:  # noqa: PLR2004 - digits
        return FAR
    return -power if minus else power


@compiled
def millionths(text: Bytes, begin: int, end: int) -> int:
    """A number in whole millionths, half to even; or ``BLANK``, or ``ODD``."""
    if begin == end:
        return BLANK
    mantissa, places, counted, behind, at = 0, 0, 0, False, begin
    while at < end:
        if text[at] == POINT and not behind:
            behind = True
        elif NIL <= text[at] <= NINE:
            mantissa = mantissa * 10 + (text[at] - NIL)
            counted += 1
            places += behind
        else:
            break
        at += 1
    places -= exponent(text, at, end)
    if counted == 0 or counted > DIGITS or abs(places) >= len(POWERS):
        return ODD
    value = mantissa / POWERS[places] if places >= 0 else mantissa * POWERS[-places]
    scaled = value * 1e6
    near = abs(scaled - np.floor(scaled) - 0.5) <= scaled * TOLERANCE
    if value > LARGEST or (mantissa >= EXACT and near):
        return ODD  # whether it is nearer to this or to the next one, an exact reading tells
    return int(np.rint(scaled))


@compiled
def named(text: Bytes, begin: int, end: int) -> bool:
    """Whether a server's name is surely one: an address, or a word that reads neither as a number nor as nothing."""
    if end - begin > NAME or begin == end:
        return False
    points = 0
    for at in range(begin, end):
        points += text[at] == POINT
    letter = text[begin] | CASE
    return points > 1 or (SMALL_A <= letter <= SMALL_Z and letter not in NOTHING)


@compiled
def read(  # noqa: PLR0913, PLR0917 - arrays to fill
    text: Bytes,
    begin: Ints,
    end: Ints,
    start: Ints,
    loads: Ints,
    names: Bytes,
    offsets: NDArray[np.int32],
    odd: Ints,
) -> tuple[int, int, int]:
    """Read lines ``[begin, end)`` ``(n,)`` of ``text``.

    Fills, for the ``k`` that are plain: ``start`` ``(n,)`` epoch ms, ``loads`` ``(8, n)`` millionths, servers as
    ``names`` at ``offsets`` ``(n + 1,)``; and ``odd`` ``(n,)`` with the numbers of the others.

    Returns:
        how many are plain, how many are not, and how many loads were blank.
    """
    first, last = np.empty(FIELDS, np.int64), np.empty(FIELDS, np.int64)
    row, strange, blanks = 0, 0, 0
    offsets[0] = 0
    for line in range(len(begin)):
        stop = end[line]
        if stop > begin[line] and text[stop - 1] == RETURN:
            stop -= 1
        fine = cut(text, begin[line], stop, first, last)
        empty = 0
        if fine:
            began = moment(text, first[START], last[START])
            ended = moment(text, first[END], last[END])
            fine = began >= 0 and ended != ODD and (ended == BLANK or ended >= began)
        if fine:
            size = last[SERVER] - first[SERVER]
            fine = named(text, first[SERVER], last[SERVER])
            fine = fine and millionths(text, first[CONNECTIONS], last[CONNECTIONS]) != ODD
        if fine:
            for place in range(len(MEASURED)):
                column = MEASURED[place]
                value = millionths(text, first[column], last[column])
                if value == ODD or (value == BLANK and place == 0):
                    fine = False
                    break
                empty += value == BLANK
                loads[place, row] = max(value, 0)
        if not fine:
            odd[strange] = line
            strange += 1
            continue
        start[row] = began
        at = offsets[row]
        for place in range(size):
            names[at + place] = text[first[SERVER] + place]
        offsets[row + 1] = at + size
        blanks += empty
        row += 1
    return row, strange, blanks
