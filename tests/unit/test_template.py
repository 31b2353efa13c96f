"""Readings that look alike are read in a compiled loop: exactly as patient reading would, or left to it."""

import json
import random
import struct
from dataclasses import replace
from decimal import Decimal, getcontext
from fractions import Fraction
from math import inf, nextafter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream.decode import PACKED, Decoded, Limits, decode
from stream.readings import READINGS, metrics
from stream.records import Records
from stream.template import Run, Templates, fill, template
from stream.texts import Texts

NOW = 1_700_000_000_000
LIMITS = Limits()
PATIENT = replace(READINGS, templates=None)
NUMBERS = (
    "1.5", "0", "-0", "-0.0", "0.0", "00", "01", "-01", "1.", ".5", "-", "+1", "1e5", "1E-5", "1e+5", "1e", "1e999",
    "1e-999", "0e5", "9007199254740993", "123456789012345678901", "0.1234567890123456789", "1.7976931348623157e308",
    "5e-324", "NaN", "1 ", " 1", "1\n", "true", "null", '"1"', "1.5.5", "1-2", "1e5e5", "9" * 400, "1_0", "0x1",
)  # fmt: skip


def records(values: list[bytes]) -> Records:
    count = len(values)
    return Records("t", 0, np.arange(count), np.full(count, NOW), [None] * count, values, [()] * count)


def told(decoded: Decoded) -> tuple[list[tuple[int, str, int, dict[str, str]]], list[tuple[int, str]]]:
    """Readings (values as text: -0.0 is not 0.0) and rejects."""
    readings = []
    for at, code in enumerate(decoded.device.tolist()):
        names = decoded.shapes[int(decoded.shape[at])]
        values = map(repr, decoded.flat[decoded.start[at] :][: len(names)].tolist())
        readings.append(
            (
                int(decoded.row[at]),
                (decoded.names[code] or b"").decode(),
                int(decoded.ts[at]),
                dict(zip(names, values, strict=True)),
            )
        )
    return readings, sorted((reject.row, f"{reject.reason} {reject.detail}") for reject in decoded.rejects)


def assert_read_alike(values: list[bytes], limits: Limits = LIMITS) -> None:
    assert told(decode(records(values), limits, READINGS)) == told(decode(records(values), limits, PATIENT))


def reading(device: str = "a", ts: str = str(NOW), **values: str) -> bytes:
    parts = ", ".join(f'"{name}": {value}' for name, value in (values or {"x": "1.5"}).items())
    return f'{{"device_id": "{device}", "ts": {ts}, "values": {{{parts}}}}}'.encode()


@pytest.mark.parametrize("number", NUMBERS)
def test_a_value_is_read_as_ever_or_refused_as_ever(number: str) -> None:
    assert_read_alike([reading(), reading(x=number), reading(x=number, y="2"), reading(x="2", y=number)])


@pytest.mark.parametrize("ts", [*NUMBERS, '"2023-11-14T22:13:20Z"', "1700000000000.0", "-5", "9" * 19, "9" * 18])
def test_a_stamp_is_read_as_ever_or_refused_as_ever(ts: str) -> None:
    assert_read_alike([reading(), reading(ts=ts)])


@pytest.mark.parametrize(
    "device", ["", "b", "\u00fc", "\\u00fc", "\\n", "\\", "a\x00", "\x07", "x" * 300, "a b", "\U0001f600"]
)
def test_a_device_is_named_as_ever_or_refused_as_ever(device: str) -> None:
    assert_read_alike([reading(), reading(device=device), reading(device=device)])


def test_a_name_that_is_no_utf_8_costs_nobody_else() -> None:
    assert_read_alike([reading(), reading().replace(b'"a"', b'"\xff\xfe"'), reading("c"), reading("\u00fc")])


@pytest.mark.parametrize(
    "value",
    [
        b'{"values": {"x": 1}, "ts": 1700000000000, "device_id": "b"}',
        b' { "device_id":"b" ,\t"ts":1700000000000 , "values":{ "x" : 1 , "y":2 } } \n',
        b'{"device_id": "b", "ts": 1700000000000, "values": {"x": 1, "x": 2}}',
        b'{"device_id": "b", "device_id": "c", "ts": 1700000000000, "values": {"x": 1}}',
        b'{"device_id": "b", "ts": 1, "ts": 1700000000000, "values": {"x": 1}}',
        b'{"device_id": "b", "ts": 1700000000000, "values": {"x": 1}, "unit": "bar"}',
        b'{"meta": {"ts": 1}, "device_id": "b", "ts": 1700000000000, "values": {"x": 1}}',
        b'{"device_id": "b", "ts": 1700000000000, "values": {}}',
        b'{"device_id": "b", "ts": 1700000000000, "values": {"x": 1,}}',
        b'{"device_id": "b", "ts": 1700000000000, "values": {"x}": 1, "y,": 2, "\\u0041": 3}}',
        b'{"TS":"2023-11-14T22:13:20Z","Device":1,"Sensor":5,"Value":1.2}',
    ],
)
def test_readings_written_otherwise_are_read_as_ever(value: bytes) -> None:
    cut = [value[:end] for end in range(0, len(value), 3)]

    assert_read_alike([value, value.replace(b"1", b"2"), reading(), value, *cut])


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.builds(
                lambda device, ts, values, cut: json.dumps({"device_id": device, "ts": ts, "values": values}).encode()[
                    : cut or None
                ],
                st.text(max_size=3),
                st.integers(NOW - 10**6, NOW + 10**6),
                st.dictionaries(st.sampled_from("xyz"), st.floats() | st.integers(-(10**20), 10**20), max_size=3),
                st.just(0) | st.integers(1, 60),
            ),
            st.binary(max_size=40).filter(lambda value: not value.startswith(PACKED)),  # which is no JSON
        ),
        min_size=1,
        max_size=20,
    )
)
@example([reading(), reading()[:-3] + b"5}}", reading()[:-5], b"5}}"])
def test_whatever_comes_is_read_as_patiently_as_ever(values: list[bytes]) -> None:
    assert_read_alike(values, Limits(max_bytes=200))


def hard_numbers(seed: int, count: int) -> list[str]:
    """Doubles of every size in their shortest form and in too many digits, and decimals halfway between two."""
    chance = random.Random(seed)
    getcontext().prec = 19
    found: list[str] = []
    while len(found) < count:
        (double,) = struct.unpack("d", struct.pack("Q", chance.getrandbits(64)))
        near = struct.unpack("d", struct.pack("Q", chance.randrange(1_000, 1_070) << 52 | chance.getrandbits(52)))[0]
        half = (Fraction(near) + Fraction(nextafter(near, inf))) / 2
        found += [
            repr(double), repr(chance.uniform(-1e3, 1e3)), f"{chance.uniform(0, 100):.{chance.randrange(1, 20)}f}",
            str(chance.randrange(-(10**18), 10**18)), f"{chance.getrandbits(60)}e{chance.randrange(-330, 310)}",
            str(Decimal(half.numerator) / Decimal(half.denominator)),
        ]  # fmt: skip
    return [number for number in found if "n" not in number]


def test_every_number_that_is_read_is_the_nearest_double() -> None:
    numbers = ["1.5", *hard_numbers(1, 60_000)]
    texts = Texts.of([reading(x=number) for number in numbers])
    made = template(texts[0] or b"", metrics)
    assert made is not None

    found, _ = fill(made, np.frombuffer(texts.buffer, np.uint8), texts, np.arange(len(texts)))

    assert len(found.row) > 0.9 * len(numbers)
    expected = np.array([float(numbers[row]) for row in found.row])
    assert found.flat.tobytes() == expected.tobytes()


def test_what_a_template_has_read_needs_no_patience() -> None:
    templates = Templates(metrics)
    values = [reading(device, x="1.25", y=str(at)) for at, device in enumerate("abca")]
    mixed = Run(Texts.of([*values, b"junk", reading(z="3")]), 1_000)
    templates.read(mixed)
    again = Run(Texts.of([reading(z="4"), values[0]]), 1_000)

    assert mixed.left.tolist() == [4]
    assert sum(len(found.row) for _, found in templates.read(again)) == 2
    assert again.left.tolist() == []
