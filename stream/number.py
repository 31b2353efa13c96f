"""Decimal text to the nearest double, in a compiled loop.

Eisel and Lemire's algorithm (D. Lemire, "Number parsing at a gigabyte per second", Software: Practice and
Experience 51(8), 2021), without its rare cases: those are left to Python's ``float``.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from scorers.compiled import compiled

LOWEST, HIGHEST = -300, 290
"""Powers of ten that are dealt with here: far from subnormal numbers and from infinity."""
_DIGITS = 19
"""As many always fit 64 bits."""
_EXACT = 22
"""Powers of ten up to this are doubles."""


def _powers() -> NDArray[np.uint64]:
    """The first 128 bits of 5**q, cut off, and of its reciprocals, rounded up; high and low, from ``LOWEST`` on."""
    rows = []
    for power in range(LOWEST, HIGHEST + 1):
        if power < 0:
            five = 5**-power
            bits = five.bit_length() if five & (five - 1) else five.bit_length() - 1
            value = 2 ** (bits + 127 if power >= -27 else 2 * bits + 128) // five + 1  # noqa: PLR2004 - the paper's
        else:
            value = 5**power << 128
        value >>= max(value.bit_length() - 128, 0)
        rows.append((value >> 64, value & 0xFFFF_FFFF_FFFF_FFFF))
    return np.array(rows, np.uint64)


POWERS = _powers()
EXACT = np.array([10.0**power for power in range(_EXACT + 1)])

_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_HIDDEN = np.uint64(1) << np.uint64(52)


def _multiply(_: Any, _a: Any, _b: Any) -> Any:
    """High half of a 128-bit product: one instruction, which numba has no name for."""

    def generate(_context: Any, builder: Any, _signature: Any, factors: Any) -> Any:
        wide = ir.IntType(128)
        whole = builder.mul(*(builder.zext(factor, wide) for factor in factors))
        return builder.trunc(builder.lshr(whole, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


_upper: Any = intrinsic(_multiply)


@compiled
def product(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """High and low half of a 128-bit product."""
    return _upper(a, b), a * b


@compiled
def nearest(digits: np.uint64, power: int, powers: NDArray[np.uint64]) -> np.uint64:
    """The bits of the double nearest to ``digits * 10**power``; all ones where it takes more than this to tell.

    ``digits`` is not 0; ``powers`` is ``POWERS``.
    """
    if power < LOWEST or power > HIGHEST:
        return _ALL
    lead = 0
    while digits >> np.uint64(63) == np.uint64(0):
        digits <<= np.uint64(1)
        lead += 1
    row = power - LOWEST
    high, low = product(digits, powers[row, 0])
    if high & np.uint64(0x1FF) == np.uint64(0x1FF):
        more, _ = product(digits, powers[row, 1])
        low += more
        if more > low:
            high += np.uint64(1)
    if low == _ALL and not -27 <= power <= 55:  # noqa: PLR2004 - the paper's
        return _ALL
    upper = high >> np.uint64(63)
    shift = upper + np.uint64(9)
    mantissa = high >> shift
    exponent = (((152170 + 65536) * power) >> 16) + 63 + np.int64(upper) - lead + 1023
    if exponent <= 0:
        return _ALL
    halfway = low <= np.uint64(1) and -4 <= power <= 23 and mantissa & np.uint64(3) == np.uint64(1)  # noqa: PLR2004
    if halfway and mantissa << shift == high:
        mantissa &= ~np.uint64(1)
    mantissa = (mantissa + (mantissa & np.uint64(1))) >> np.uint64(1)
    if mantissa >= _HIDDEN << np.uint64(1):
        mantissa = _HIDDEN
        exponent += 1
    if exponent >= 0x7FF:  # noqa: PLR2004 - the exponent of infinity
        return _ALL
    return (mantissa & ~_HIDDEN) | (np.uint64(exponent) << np.uint64(52))
