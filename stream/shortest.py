"""Doubles to their shortest decimal text, in a compiled loop.

Raffaello Giulietti's Schubfach ("The Schubfach way to render doubles", 2020), which finds the shortest decimal that
reads back as the same double and, of several, the closest: the digits that Python's ``repr`` gives.
"""

import numpy as np
from numpy.typing import NDArray

from scorers.compiled import compiled
from stream.number import product

Bytes = NDArray[np.uint8]

LONGEST = 25
"""Characters of a double, or of a 64-bit integer, at the most."""
_LOWEST, _HIGHEST = -292, 324
_WIDEST = 16
"""Numbers from 0.00001 up to so many digits before the point are written without an exponent."""
_NARROWEST = -5


def _powers() -> NDArray[np.uint64]:
    """The first 128 bits of 10**k, rounded up; high and low, from ``_LOWEST`` on."""
    rows = []
    for power in range(_LOWEST, _HIGHEST + 1):
        above, below = (10**power, 1) if power >= 0 else (1, 10**-power)
        # twice as many bits as are wanted, and those that are too many cut off
        shift = 128 + below.bit_length() - min(above.bit_length() - 1, 128 + below.bit_length())
        value = -(-(above << shift) // below)
        spare = value.bit_length() - 128
        value = -(-value >> spare) if spare > 0 else value << -spare
        rows.append((value >> 64, value & 0xFFFF_FFFF_FFFF_FFFF))
    return np.array(rows, np.uint64)


TENS = _powers()

_0, _1, _2, _4, _10, _40 = (np.uint64(number) for number in (0, 1, 2, 4, 10, 40))
_100, _HALFWAY, _TOP, _MOST = np.uint64(100), np.uint64(10**9), np.uint64(10**18), 19
_HIDDEN = np.uint64(1) << np.uint64(52)
_52 = np.uint64(52)
_ZERO, _MINUS, _POINT, _E = b"0-.e"


@compiled
def _odd(high: np.uint64, low: np.uint64, value: np.uint64) -> np.uint64:
    """The upper 64 bits of a product of 192, rounded to odd."""
    carried, _ = product(low, value)
    upper, lower = product(high, value)
    middle = lower + carried
    if middle < lower:
        upper += _1
    return upper | _1 if middle > _1 else upper


@compiled
def _digits(bits: np.uint64, tens: NDArray[np.uint64]) -> tuple[np.uint64, int]:
    """Digits and the power of ten they are times of; ``bits`` are those of a finite double above 0."""
    fraction, biased = bits & (_HIDDEN - _1), int(bits >> _52)
    significand, power = fraction, -1074
    if biased > 0:
        significand, power = fraction | _HIDDEN, biased - 1075
        if -53 < power <= 0 and significand & ((_1 << np.uint64(-power)) - _1) == _0:  # noqa: PLR2004 - bits of a double
            return significand >> np.uint64(-power), 0
    closer = fraction == _0 and biased > 1
    ten = (power * 1262611 - (524031 if closer else 0)) >> 22
    shift = np.uint64(power + ((-ten * 1741647) >> 19) + 1)
    row = -ten - _LOWEST
    high, low = tens[row, 0], tens[row, 1]
    middle = _4 * significand
    left = _odd(high, low, (middle - (_1 if closer else _2)) << shift)
    here = _odd(high, low, middle << shift)
    right = _odd(high, low, (middle + _2) << shift)
    if significand & _1:
        left, right = left + _1, right - _1
    short = here // _4
    if short >= _10:
        shorter = short // _10
        under, over = left <= _40 * shorter, _40 * shorter + _40 <= right
        if under != over:
            return shorter + (_1 if over else _0), ten + 1
    under, over = left <= _4 * short, _4 * short + _4 <= right
    if under != over:
        return short + (_1 if over else _0), ten
    half = _4 * short + _2
    up = here > half or (here == half and short & _1 == _1)
    return short + (_1 if up else _0), ten


@compiled
def put_double(out: Bytes, at: int, value: float, bits: np.uint64, tens: NDArray[np.uint64]) -> int:
    """Write a finite double; where it ends. ``bits`` are its own, ``tens`` is ``TENS``."""
    if bits >> np.uint64(63) != _0:
        out[at] = _MINUS
        at += 1
    if value == 0.0:
        out[at], out[at + 1], out[at + 2] = _ZERO, _POINT, _ZERO
        return at + 3
    digits, ten = _digits(bits & ~(_1 << np.uint64(63)), tens)
    while digits % _10 == _0:
        digits //= _10
        ten += 1
    many = _many(digits)
    point = many + ten
    if 0 < point <= _WIDEST:
        if ten < 0:
            _put_digits(out, at + 1, digits, many)
            for place in range(at, at + point):
                out[place] = out[place + 1]
            out[at + point] = _POINT
            return at + many + 1
        _put_digits(out, at, digits, many)
        at = _put_zeros(out, at + many, ten)
        out[at], out[at + 1] = _POINT, _ZERO
        return at + 2
    if _NARROWEST < point <= 0:
        out[at], out[at + 1] = _ZERO, _POINT
        at = _put_zeros(out, at + 2, -point)
        _put_digits(out, at, digits, many)
        return at + many
    _put_digits(out, at + 1, digits, many)
    out[at] = out[at + 1]
    at += 1
    if many > 1:
        out[at] = _POINT
        at += many
    out[at] = _E
    return put_integer(out, at + 1, point - 1)


@compiled
def put_integer(out: Bytes, at: int, value: int) -> int:
    """Write a 64-bit integer; where it ends."""
    left = np.uint64(value)
    if value < 0:
        out[at] = _MINUS
        at, left = at + 1, ~left + _1
    many = _many(left)
    _put_digits(out, at, left, many)
    return at + many


@compiled
def _many(digits: np.uint64) -> int:
    """How many digits there are: counted from below or from above, where fewer steps are to be expected."""
    if digits < _HALFWAY:
        many, bound = 1, _10
        while digits >= bound:
            many, bound = many + 1, bound * _10
        return many
    many, bound = _MOST, _TOP
    while digits < bound:
        many, bound = many - 1, bound // _10
    return many


@compiled
def _put_digits(out: Bytes, at: int, digits: np.uint64, many: int) -> None:
    place = at + many
    while digits >= _10:
        place -= 2
        rest, digits = digits % _100, digits // _100
        out[place], out[place + 1] = _ZERO + rest // _10, _ZERO + rest % _10
    if place > at:
        out[at] = _ZERO + digits


@compiled
def _put_zeros(out: Bytes, at: int, many: int) -> int:
    for place in range(at, at + many):
        out[place] = _ZERO
    return at + many
