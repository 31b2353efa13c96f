"""What is told of records that are no JSON objects, beside what msgspec says to them."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream.syntax import CONSTANT, CUT, DEEP, EMPTY, FINE, LARGE, LEFT, STRANGE, WRONG, brackets, look
from stream.texts import Texts

DEEPEST, LONGEST = 5, 200

GOOD = b'{"device_id": "a", "ts": 17, "values": {"x": -1.5e+3, "y": [true, false, null, {}, []]}} '
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
ALPHABET = b'{}[]:,"\\u0123456789abcdefAtrnlsE+-. \n\x07\x80\xc3\xa9'


def found(*values: bytes | None) -> list[tuple[int, int]]:
    texts = Texts.of(values)
    codes, places = look(texts, np.arange(len(texts)), LONGEST, DEEPEST)
    return list(zip(codes.tolist(), places.tolist(), strict=True))


@st.composite
def nearly(draw: st.DrawFn) -> bytes:
    """JSON, or JSON with some bytes changed, added or taken away."""
    document = draw(st.dictionaries(st.text(max_size=3), DOCUMENTS, max_size=3) | DOCUMENTS)
    ascii_only = draw(st.booleans())
    text = bytearray(json.dumps(document, ensure_ascii=ascii_only).encode(errors="surrogatepass"))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        new = draw(st.lists(st.sampled_from(ALPHABET), max_size=2))
        text[at : at + draw(st.integers(0, 2))] = bytes(new)
    return bytes(text)


def decoded(value: bytes) -> Any:
    """What msgspec reads, or what it says."""
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return error


@settings(max_examples=1500)
@given(value=nearly() | st.lists(st.sampled_from(ALPHABET), max_size=12).map(bytes))
@example(value=b'{"a":01}')
@example(value=b'{"a":-}')
@example(value=b'{"a":1.}')
@example(value=b'{"a":"\\u12')
@example(value=b'{"a":tru')
@example(value=b'{"a":nul}')
@example(value=b'{"a":1e5')
def test_what_is_found_wrong_is_wrong_and_little_is_overlooked(value: bytes) -> None:
    ((code, place),) = found(value)
    verdict = decoded(value)

    assert 0 <= place <= len(value)
    if code in {CUT, WRONG, LEFT, CONSTANT}:
        assert isinstance(verdict, Exception)
    elif code in {STRANGE, EMPTY}:
        assert not isinstance(verdict, dict)
    elif code == FINE and isinstance(verdict, Exception):
        assert isinstance(verdict, UnicodeDecodeError) or any(
            told in str(verdict) for told in ("surrogate", "out of range", "utf-8")
        )


@pytest.mark.parametrize(
    ("value", "code", "place"),
    [
        (GOOD, FINE, len(GOOD)),
        (None, EMPTY, -1),
        (b"", EMPTY, 0),
        (b'{"a":"' + b"x" * LONGEST + b'"}', LARGE, LONGEST + 8),
        (b"  ", STRANGE, 2),
        (b"[1]", STRANGE, 0),
        (b'{"a":' * 6 + b"1" + b"}" * 6, DEEP, 26),
        (b'{"a":' * 5 + b"1" + b"}" * 5, FINE, 31),
        (b'{"a":[1,2', CUT, 9),
        (b'{"a":1,}', WRONG, 7),
        (b'{"a":[1,]}', WRONG, 8),
        (b'{"a" 1}', WRONG, 5),
        (b'{"a":1]', WRONG, 6),
        (b'{"a":"\n"}', WRONG, 6),
        (b'{"a":"\\x"}', WRONG, 7),
        (b'{"a":1}{', LEFT, 7),
    ],
)
def test_the_place_is_told(value: bytes | None, code: int, place: int) -> None:
    assert found(GOOD, value, GOOD) == [(FINE, len(GOOD)), (code, place), (FINE, len(GOOD))]


@pytest.mark.parametrize(
    ("value", "code", "place"),
    [
        (b'{"a":NaN}', CONSTANT, 5),
        (b'{"a":[1,-Infinity,NaN]}', CONSTANT, 8),
        (b'{"a":[-Infinity, 1}', WRONG, 18),
        (b'{"a":Infinity', CUT, 13),
        (b'{"a":NaN,}', WRONG, 9),
        (b'{"a":-NaN}', WRONG, 6),
        (b'{"NaN":1}', FINE, 9),
    ],
)
def test_a_constant_is_told_of_where_nothing_else_is_wrong(value: bytes, code: int, place: int) -> None:
    assert found(value) == [(code, place)]


def test_brackets_are_counted_wherever_they_are() -> None:
    assert brackets(Texts.of([b'{"[{": []}', b"", b"]]"]), np.arange(3)).tolist() == [4, 0, 0]
