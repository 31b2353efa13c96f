"""Rows of a session log as they should not be: each kind is one that real logs hold."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from producers.sessions import COLUMNS, LOADS

START, END = COLUMNS.index("SessionStart"), COLUMNS.index("SessionEnd")
CELLS = ("SessionStart", "MbytesTransferred", *LOADS, "SecureBytes_Load", "TotalLoad", "ServerIP")
"""Columns that whoever sums loads cannot do without; blanks and wrong types befall these."""
NUMBERS = tuple(name for name in CELLS if name not in {"SessionStart", "ServerIP"})
NOTHING = (b"", b"", b"", b"n/a", b"NULL", b"-")
"""What stands for a blank."""
WRONG = (b"twelve", b"#DIV/0!", b"1.2.3", b"true", b"0x1F", b"7 MB")
BEYOND = (b"-1.5", b"-0.0001", b"inf", b"-Infinity", b"nan", b"2000000000", b"1e300")
"""Numbers that no load can be."""
JUNK = (
    b"\x00\x00\x00\x00",
    b"==== log rotated ====",
    b'{"level": "warn"}',
    b"\xff\xfe\x80broken",
    b"   ",
    b",,,,",
    b'"no end',
)
HEADER = ",".join(COLUMNS).encode()


@dataclass(slots=True)
class Dirt:
    """Where the chances come from, and what was done so far: rows by kind, ``kind:column`` where one cell is spoilt."""

    random: np.random.Generator
    done: Counter[str] = field(default_factory=Counter)

    def choose(self, count: int) -> int:
        """A number below ``count``."""
        return int(self.random.integers(count))


def spoil(row: bytes, dirt: Dirt) -> bytes:
    """A clean row of 17 cells without its end of line, spoilt in one way."""
    kind = SHARES[dirt.choose(len(SHARES))]
    spoilt, column = KINDS[kind](row.split(b","), dirt)
    dirt.done[f"{kind}:{column}" if column else kind] += 1
    return spoilt


def _cell(cells: list[bytes], column: str, value: bytes) -> tuple[bytes, str]:
    cells[COLUMNS.index(column)] = value
    return b",".join(cells), column


def _blank(cells: list[bytes], dirt: Dirt) -> tuple[bytes, str]:
    return _cell(cells, CELLS[dirt.choose(len(CELLS))], NOTHING[dirt.choose(len(NOTHING))])


def _type(cells: list[bytes], dirt: Dirt) -> tuple[bytes, str]:
    wrong = (*NUMBERS, "SessionStart")
    return _cell(cells, wrong[dirt.choose(len(wrong))], WRONG[dirt.choose(len(WRONG))])


def _range(cells: list[bytes], dirt: Dirt) -> tuple[bytes, str]:
    return _cell(cells, NUMBERS[dirt.choose(len(NUMBERS))], BEYOND[dirt.choose(len(BEYOND))])


def _swapped(cells: list[bytes], _: Dirt) -> tuple[bytes, str]:
    cells[START], cells[END] = cells[END], cells[START]
    return b",".join(cells), ""


def _columns(cells: list[bytes], dirt: Dirt) -> tuple[bytes, str]:
    """Some cells cut off at the end, or one too many."""
    short = dirt.choose(len(COLUMNS))
    return b",".join(cells[:short] if short else [*cells, b"0"]), ""


def _junk(_: list[bytes], dirt: Dirt) -> tuple[bytes, str]:
    return JUNK[dirt.choose(len(JUNK))], ""


def _header(_: list[bytes], __: Dirt) -> tuple[bytes, str]:
    return HEADER, ""


KINDS: dict[str, Callable[[list[bytes], Dirt], tuple[bytes, str]]] = {
    "blank": _blank,
    "type": _type,
    "range": _range,
    "swapped": _swapped,
    "columns": _columns,
    "junk": _junk,
    "header": _header,
}
"""What can befall a row."""
SHARES = ("blank",) * 6 + ("type",) * 4 + ("swapped",) * 3 + ("columns",) * 3 + ("range",) * 2 + ("junk", "header")
"""Of twenty spoilt rows, how many are of which kind."""
