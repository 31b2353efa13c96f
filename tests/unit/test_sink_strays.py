"""What is no whole file of ours is reported, never read, and stays where it is."""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sinks.names import Range
from sinks.parquet import ParquetSink, ParquetSpec
from tests.compaction import DAY, HERE, LATER, SOURCE, Before, compacted, fill
from tests.laws.sink_kit import TOPICS, ParquetStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path / "windows")
    return tmp_path / "windows"


@pytest.fixture
def expected(folder: Path) -> Any:
    return ParquetStore(folder).content()


@pytest.fixture
def littered(folder: Path) -> dict[str, str]:
    """Strays in a folder, and why they are."""
    dated = folder / "predictions" / DAY
    whole = min(dated.iterdir()).read_bytes()
    torn = f"{Range(SOURCE, 900, 901)}.parquet"
    (dated / torn).write_bytes(whole[: len(whole) // 2])
    (dated / f"{Range(SOURCE, 902, 903)}.parquet").write_bytes(b"")
    (dated / "part-00000.snappy.parquet").write_bytes(whole)
    (dated / "_SUCCESS").touch()
    pq.write_table(pa.table({"x": [1]}), dated / f"{Range(SOURCE, 904, 905)}.parquet")
    (dated / f"{Range(SOURCE, 906, 907)}.parquet").symlink_to(folder.parent / "elsewhere")
    (folder.parent / "elsewhere").write_bytes(whole)
    (folder / "predictions" / "notes.txt").write_text("mine")
    (folder / "rejects" / "upload.tmp").write_bytes(b"half")
    return {
        torn: "cannot be read as Parquet",
        f"{Range(SOURCE, 902, 903)}.parquet": "cannot be read as Parquet",
        "part-00000.snappy.parquet": "is not named as a file of ours",
        "_SUCCESS": "is not named as a file of ours",
        f"{Range(SOURCE, 904, 905)}.parquet": "has not the columns of predictions",
        f"{Range(SOURCE, 906, 907)}.parquet": "is a symbolic link",
        "notes.txt": "is no folder of a date",
        "upload.tmp": "is not named as a file of ours",
    }


def reasons(found: Any) -> dict[str, str]:
    return {stray.path.name: stray.why.split(" (")[0] for stray in found}


def test_strays_are_reported_and_stay_as_and_where_they_are(folder: Path, littered: dict[str, str]) -> None:
    paths = [path for path in folder.rglob("*") if path.name in littered]
    before = {path: (path.lstat().st_ino, path.is_symlink() or path.read_bytes()) for path in paths}
    done = compacted(folder)
    compacted(folder, now=LATER)

    assert reasons(done.strays) == littered
    assert len(done.merges) == 5
    assert {path: (path.lstat().st_ino, path.is_symlink() or path.read_bytes()) for path in paths} == before
    assert (folder.parent / "elsewhere").exists()


def test_strays_are_never_read(
    folder: Path, expected: Any, littered: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        caplog.clear()

        assert ParquetStore(folder).content() == expected
        assert len(caplog.records) == len(littered)
        assert all("is left out" in message for message in caplog.messages)

        compacted(folder)


def test_a_starting_sink_warns_of_foreign_names(
    folder: Path, littered: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        sink = ParquetSink(ParquetSpec(folder), TOPICS)
        sink.bind(HERE)
        sink.close()

    (message,) = caplog.messages
    named = [name for name, why in littered.items() if "cannot" not in why and "columns" not in why]

    assert message.startswith(f"{len(named)} in the tables of {folder} are not files of ours")


def test_a_foreign_file_that_comes_in_the_last_moment_is_not_lost(folder: Path) -> None:
    foreign = folder / "predictions" / DAY / "foreign.csv"
    compacted(folder, disk=Before("exchange", lambda: void(foreign.write_text("late"))))
    compacted(folder, now=LATER)

    assert foreign.read_text() == "late"


def test_a_foreign_file_replaced_while_merging_is_carried_over_as_it_is(folder: Path) -> None:
    foreign = folder / "predictions" / DAY / "foreign.csv"
    foreign.write_text("old")

    def rewrite() -> None:
        (folder / "new").write_text("new")
        (folder / "new").replace(foreign)

    compacted(folder, disk=Before("write", rewrite))
    compacted(folder, now=LATER)

    assert foreign.read_text() == "new"


def void(_: object) -> None:
    """Nothing, of anything."""


def test_a_date_with_a_folder_in_it_is_left_alone(folder: Path, expected: Any) -> None:
    inside = folder / "predictions" / DAY / "_temporary"
    inside.mkdir()
    (inside / "half").touch()
    done = compacted(folder)

    assert [stray.why for stray in done.strays] == ["is not a file", "holds a folder, and is not compacted"]
    assert len(done.merges) == 4
    assert (inside / "half").exists()
    assert ParquetStore(folder).content() == expected


def test_a_date_behind_a_link_is_read_and_left_alone(folder: Path, expected: Any) -> None:
    there = folder / "predictions" / DAY
    moved = folder.parent / "other disk"
    there.rename(moved)
    there.symlink_to(moved)
    before = sorted(moved.iterdir())
    done = compacted(folder)
    compacted(folder, now=LATER)

    assert [stray.why for stray in done.strays] == ["lies behind a symbolic link, and is not compacted"]
    assert sorted(moved.iterdir()) == before
    assert ParquetStore(folder).content() == expected
