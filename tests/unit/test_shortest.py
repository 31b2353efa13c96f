"""Doubles to text: shortest, and the same double again."""

from decimal import Decimal
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.compiled import compiled
from scorers.statistics import Floats, Ints
from stream.shortest import LONGEST, TENS, Bytes, put_double, put_integer

EDGES = [
    0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 1e22, 1e23, 9007199254740993.0,
    123456789012345680.0, 1e-5, 9.999e-5, 1e-6, 0.1, 1.5, 100.0, 1e15, 1e16, 1e17, 1e21, 4.35, 0.3, 2 / 3,
]  # fmt: skip


@compiled
def _all(values: Floats, bits: Bytes, tens: Bytes, out: Bytes, ends: Ints) -> None:
    at = 0
    for row in range(len(values)):
        at = put_double(out, at, values[row], bits[row], tens)  # type: ignore[arg-type]  # of 64 bits
        ends[row] = at


def texts(values: Floats) -> list[str]:
    out, ends = np.zeros(len(values) * LONGEST, np.uint8), np.zeros(len(values), np.int64)
    _all(values, values.view(np.uint64), TENS, out, ends)  # type: ignore[arg-type]  # as above
    written, places = out.tobytes(), [0, *ends.tolist()]
    return [written[begin:end].decode() for begin, end in pairwise(places)]


def check(values: Floats) -> None:
    for value, text in zip(values.tolist(), texts(values), strict=True):
        assert msgspec.json.decode(text, type=float) == value
        assert Decimal(text) == Decimal(repr(value))
        assert text.startswith("-") == repr(value).startswith("-")
        assert len(text) <= LONGEST


def test_doubles_of_every_size_are_written_as_python_knows_them() -> None:
    bits = np.random.default_rng(1).integers(0, 2**64, 100_000, np.uint64).view(np.float64)

    check(bits[np.isfinite(bits)])


@pytest.mark.parametrize(
    "values",
    [np.array(EDGES), 2.0 ** np.arange(-1074, 1024), 10.0 ** np.arange(-323, 309), np.arange(100_000) / 100],
    ids=["edges", "powers of two", "powers of ten", "hundredths"],
)
def test_doubles_that_are_hard_are_too(values: Floats) -> None:
    check(values)
    check(-values)
    neighbours = (values.view(np.int64) + 1).view(np.float64)
    check(neighbours[np.isfinite(neighbours)])


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_any_double_comes_back(values: list[float]) -> None:
    check(np.array(values))


def test_what_people_read_has_no_exponent() -> None:
    assert texts(np.array([1.5, -20.0, 0.001, 1e15, 1e17, 1e-7, 1.25e300])) == [
        "1.5", "-20.0", "0.001", "1000000000000000.0", "1e17", "1e-7", "1.25e300",
    ]  # fmt: skip


@given(st.integers(-(2**63), 2**63 - 1) | st.integers(-1000, 1000))
def test_integers_are_written_in_full(number: int) -> None:
    out = np.zeros(LONGEST, np.uint8)
    end = put_integer(out, 0, number)

    assert bytes(out[:end]) == b"%d" % number
