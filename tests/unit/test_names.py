"""Names and their numbers: a dict, in a table."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.names import Names
from stream.texts import Texts

TEXTS = st.lists(st.text(max_size=4) | st.sampled_from(["pump-1", "pump-2", "pümp-1", ""]), max_size=12)


def texts(names: list[str]) -> Texts:
    return Texts.of([name.encode() for name in names])


@settings(max_examples=300)
@given(st.lists(TEXTS, max_size=8), TEXTS)
def test_they_are_numbered_as_they_come(steps: list[list[str]], others: list[str]) -> None:
    names, known = Names(), dict[str, int]()
    for step in steps:
        expected = [known.setdefault(name, len(known)) for name in step]
        assert names.enter(texts(step)).tolist() == expected

    asked = [*known, *others]
    assert names.find(texts(asked)).tolist() == [known.get(name, -1) for name in asked]
    assert names.pick(range(len(names))) == list(known)


def test_many_are_found_again() -> None:
    names, many = Names(), [f"device-{number:06d}" for number in range(50_000)]
    for begin in range(0, len(many), 7_000):
        names.enter(texts(many[begin : begin + 7_000]))

    assert names.find(texts(many)).tolist() == list(range(len(many)))
    assert names.find(texts(["device-050000", "", "device-00000"])).tolist() == [-1, -1, -1]
    assert names[49_999] == "device-049999"


def test_there_is_no_name_past_the_last() -> None:
    names = Names()
    names.enter(Texts(b"abc\0", np.array([0, 1]), np.array([1, 2])))

    assert names.pick([0, 1]) == ["a", "bc"]
    for number in (-1, 2):
        with pytest.raises(IndexError):
            names[number]
