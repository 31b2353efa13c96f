"""Names by number and numbers by name: texts in one buffer beside a hash table of numbers.

Open addressing with linear probing, as in ``stream/index.py``. A name of 13 letters takes some 35 bytes, where a
dict of strings to integers takes 140, and is found without an object being made.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from scorers.compiled import compiled
from scorers.statistics import Ints
from stream.texts import Bytes, Texts, copied, home, same

_FREE = -1
_ROOM = 2
"""Places a name, at least."""
_GROWTH = 8
"""What is full grows by one part in so many, at least."""

Table = NDArray[np.int32]
Column = TypeVar("Column", Bytes, Ints)


class Names:
    """Distinct names, numbered from 0 as they come."""

    def __init__(self) -> None:
        self._text = np.zeros(0, np.uint8)
        self._edges = np.zeros(1, np.int64)
        """Where each name begins and ends; more are there than are used."""
        self._table: Table = np.full(_ROOM, _FREE, np.int32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> str:
        if not 0 <= number < self._count:
            raise IndexError(number)
        return self.pick([number])[0]

    def pick(self, numbers: Sequence[int] | Ints) -> list[str]:
        """The names of these numbers, all of which are there."""
        rows, text = np.asarray(numbers, np.int64), self._text.data
        places = zip(self._edges[rows].tolist(), self._edges[rows + 1].tolist(), strict=True)
        return [str(text[begin:end], "utf-8") for begin, end in places]

    def gather(self, numbers: Ints) -> Texts:
        """Likewise, in UTF-8."""
        begin = self._edges[numbers]
        return copied(self._text, begin, self._edges[numbers + 1] - begin)

    def find(self, names: Texts) -> Ints:
        """The number of each name, -1 where it has none."""
        data, found = np.frombuffer(names.buffer, np.uint8), np.empty(len(names), np.int64)
        _find(self._table, self._text, self._edges, data, names.begin, names.size, found)
        return found

    def enter(self, names: Texts) -> Ints:
        """The number of each name, given to those that have none."""
        self._reserve(len(names), int(names.size.sum()))
        found = np.empty(len(names), np.int64)
        self._count = _enter(
            self._table, self._text, self._edges, self._count,
            np.frombuffer(names.buffer, np.uint8), names.begin, names.size, found,
        )  # fmt: skip
        return found

    def _reserve(self, names: int, size: int) -> None:
        """Make room for so many more names, of so many bytes together."""
        used = int(self._edges[self._count])
        self._text = _grown(self._text, used, used + size)
        self._edges = _grown(self._edges, self._count + 1, self._count + names + 1)
        if (self._count + names) * _ROOM > len(self._table):
            self._table = np.full(1 << ((self._count + names) * _ROOM - 1).bit_length(), _FREE, np.int32)
            _place(self._table, self._text, self._edges, self._count)


def _grown(column: Column, used: int, wanted: int) -> Column:
    """The same with room for ``wanted``."""
    if wanted <= len(column):
        return column
    larger = np.empty(max(wanted, len(column) + len(column) // _GROWTH), column.dtype)
    larger[:used] = column[:used]
    return larger


@compiled
def _look(table: Table, text: Bytes, edges: Ints, data: Bytes, begin: int, size: int) -> np.int64:  # noqa: PLR0913, PLR0917 - numba compiles functions, not objects
    """The place of a name in the table, or the free one where it belongs."""
    mask = len(table) - 1
    place = home(data, begin, begin + size, mask)
    while table[place] != _FREE:
        number = table[place]
        if same(text, edges[number], edges[number + 1], data, begin, size):
            break
        place = (place + 1) & mask
    return place


@compiled
def _find(table: Table, text: Bytes, edges: Ints, data: Bytes, begin: Ints, size: Ints, found: Ints) -> None:  # noqa: PLR0913, PLR0917 - as above
    for i in range(len(begin)):
        found[i] = table[_look(table, text, edges, data, begin[i], size[i])]


@compiled
def _enter(  # noqa: PLR0913, PLR0917 - as above
    table: Table, text: Bytes, edges: Ints, count: int, data: Bytes, begin: Ints, size: Ints, found: Ints
) -> int:
    for i in range(len(begin)):
        place = _look(table, text, edges, data, begin[i], size[i])
        if table[place] == _FREE:
            table[place] = count
            for at in range(size[i]):
                text[edges[count] + at] = data[begin[i] + at]
            edges[count + 1] = edges[count] + size[i]
            count += 1
        found[i] = table[place]
    return count


@compiled
def _place(table: Table, text: Bytes, edges: Ints, count: int) -> None:
    """Put the first ``count`` names into an empty table."""
    mask = len(table) - 1
    for number in range(count):
        place = home(text, edges[number], edges[number + 1], mask)
        while table[place] != _FREE:
            place = (place + 1) & mask
        table[place] = number
