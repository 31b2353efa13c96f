"""Plain lines of a session log to numbers, in a compiled loop; what is not plain is left to ``producers.logs``.

Plain is what nearly every line is: 17 fields in ASCII, quoted or not, times such as ``2024-03-01T08:00:00.123Z``, numbers
such as ``0.531`` or ``5.31e-1``. A number comes out as Python's ``round(float(text) * 1e6)`` gives it, or is not plain.
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
def moment(text: Bytes, begin: int, end: int) -> int:
    """Epoch ms of a time in UTC; or ``BLANK``, or ``ODD``."""
    if begin == end:
        return BLANK
    if text[end - 1] == CAPITAL_Z:
        end -= 1
    if end - begin < 19 or end - begin > 29:  # noqa: PLR2004 - to the second; to the nanosecond
        return ODD
    if text[begin + 4] != DASH or text[begin + 7] != DASH or text[begin + 13] != COLON or text[begin + 16] != COLON:
        return ODD
    if text[begin + 10] != CAPITAL_T and text[begin + 10] != SPACE:
        return ODD
    year, month = digits(text, begin, begin + 4), digits(text, begin + 5, begin + 7)
    day, hour = digits(text, begin + 8, begin + 10), digits(text, begin + 11, begin + 13)
    minute, second = digits(text, begin + 14, begin + 16), digits(text, begin + 17, begin + 19)
    thousandths = 0
    if end - begin > 19:  # noqa: PLR2004
        if text[begin + 19] != POINT or end - begin == 20:  # noqa: PLR2004
            return ODD
        for place in range(20, end - begin):
            if text[begin + place] < NIL or text[begin + place] > NINE:
                return ODD
        for place in range(20, 23):
            digit = text[begin + place] - NIL if begin + place < end else 0
            thousandths = thousandths * 10 + digit
    if year < 1980 or month < 1 or month > 12 or day < 1 or hour < 0 or minute < 0 or second < 0:  # noqa: PLR2004
        return ODD
    leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)  # noqa: PLR2004
    if year > 2198 or day > MONTHS[month - 1] + leap or hour > 23 or minute > 59 or second > 59:  # noqa: PLR2004
        return ODD
    # days since 1970-01-01 of a proleptic Gregorian date, as Hinnant counts them from 1 March
    # (http://howardhinnant.github.io/date_algorithms.html)
    shifted = year - (month <= 2)  # noqa: PLR2004
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1  # noqa: PLR2004
    days = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    return ((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + thousandths


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
    if counted == 0 or counted > 18:  # noqa: PLR2004 - more do not fit into 64 bits
        return ODD
    if at < end:
        if text[at] != SMALL_E and text[at] != CAPITAL_E:
            return ODD
        at += 1
        sign = 1
        if at < end and (text[at] == DASH or text[at] == PLUS):
            sign = -1 if text[at] == DASH else 1
            at += 1
        if at == end or end - at > 3:  # noqa: PLR2004
            return ODD
        power = digits(text, at, end)
        if power == ODD:
            return ODD
        places -= sign * power
    if places > 22 or places < -22:  # noqa: PLR2004 - as far as POWERS reach
        return ODD
    value = mantissa / POWERS[places] if places >= 0 else mantissa * POWERS[-places]
    if value > LARGEST:
        return ODD
    scaled = value * 1e6
    if mantissa >= EXACT and abs(scaled - np.floor(scaled) - 0.5) <= scaled * TOLERANCE:
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
