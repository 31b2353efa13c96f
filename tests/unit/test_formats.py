"""Files to tables: what cannot be taken apart is left out row by row, kept as it was, and spoils nothing else."""

from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers import formats
from producers.formats import Tally, read

WIDTH = 3
NAMES = ["a", "b", "c"]
Row = tuple[str, ...]

cells = st.text('xyz 1é€😀",', max_size=5)


def written(cell: str, *, quoted: bool) -> str:
    """A cell as CSV may have it."""
    plain = not quoted and "," not in cell and not cell.startswith('"')
    return cell if plain else '"' + cell.replace('"', '""') + '"'


def line(row: list[tuple[str, bool]]) -> str:
    return ",".join(written(cell, quoted=quoted) for cell, quoted in row)


@st.composite
def good(draw: st.DrawFn) -> tuple[bytes, Row | None]:
    row = draw(st.lists(st.tuples(cells, st.booleans()), min_size=WIDTH, max_size=WIDTH))
    return line(row).encode(), tuple(cell for cell, _ in row)


@st.composite
def wide(draw: st.DrawFn) -> tuple[bytes, Row | None]:
    sizes = st.integers(1, 6).filter(lambda size: size != WIDTH)
    size = draw(sizes)
    row = draw(st.lists(st.tuples(cells, st.booleans()), min_size=size, max_size=size))
    return (line(row) or "x").encode(), None  # an empty line is none


@st.composite
def foreign(draw: st.DrawFn) -> tuple[bytes, Row | None]:
    sound, _ = draw(good() | wide())
    at = draw(st.integers(0, len(sound)))
    return sound[:at] + draw(st.sampled_from([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])) + sound[
        at:
    ], None


@st.composite
def torn(draw: st.DrawFn) -> tuple[bytes, Row | None]:
    before = draw(st.lists(st.tuples(cells, st.booleans()), max_size=4))
    return ",".join(
        [*(written(cell, quoted=quoted) for cell, quoted in before), '"' + draw(st.text("xé, "))]
    ).encode(), None


def taken(body: bytes, block: int = formats.BLOCK) -> tuple[list[Row], list[bytes]]:
    """Rows that were read, and the originals of those that were not."""
    kept: list[bytes] = []
    with TemporaryDirectory() as folder, patch.object(formats, "BLOCK", block):
        path = Path(folder) / "r.csv"
        path.write_bytes(b"a,b,c\n" + body)
        tally = Tally(keep=kept.append)
        tables = list(read(path, NAMES, rows=4, tally=tally))
    assert sum(tally.rows.values()) == len(kept)
    return [tuple(cell or "" for cell in row.values()) for table in tables for row in table.to_pylist()], kept


@given(
    st.lists(st.tuples(good() | wide() | foreign() | torn(), st.sampled_from([b"\n", b"\r\n"]))),
    st.integers(1, 100),
)
def test_any_mix_gives_the_good_rows_and_the_originals_of_the_bad(
    lines: list[tuple[tuple[bytes, Row | None], bytes]], block: int
) -> None:
    body = b"".join(text + end for (text, _), end in lines)
    rows, kept = taken(body, block)

    assert rows == [row for (_, row), _ in lines if row is not None]
    assert sorted(kept) == sorted(text for (text, row), _ in lines if row is None)


@pytest.mark.parametrize(
    ("body", "rows", "kept"),
    [
        (b'1,2,3\n4,"5,6\n7,8,9\n', [("1", "2", "3"), ("7", "8", "9")], [b'4,"5,6']),
        (b"1,2,3\n\xff,2\n7,8,9\n", [("1", "2", "3"), ("7", "8", "9")], [b"\xff,2"]),
        (b'1,"2\n3",4\n', [], [b'1,"2', b'3",4']),
        (b'1,2,"3', [], [b'1,2,"3']),
        (b'"1\r2",3,4\r5,6,7', [("1\r2", "3", "4"), ("5", "6", "7")], []),
        (b'x"y,"a""b","c"d\n', [('x"y', 'a"b', "cd")], []),
        (b"\n\r\n\n", [], []),
        (b"", [], []),
    ],
)
def test_a_row_ends_with_its_line(body: bytes, rows: list[Row], kept: list[bytes]) -> None:
    assert taken(body) == (rows, kept)


def test_a_line_may_be_longer_than_a_block() -> None:
    cell = "x" * 3_000_000

    assert taken(f'1,2,3\n"{cell}",5,6\n'.encode(), 1 << 20)[0] == [("1", "2", "3"), (cell, "5", "6")]
