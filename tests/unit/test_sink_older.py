"""Files from before a column was written lie beside new ones: read and merged like them."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sinks.folder import strays
from sinks.read import dataset
from sinks.table import LATER, PREDICTIONS
from tests.compaction import compacted, fill, plain
from tests.laws.sink_kit import ParquetStore


def aged(folder: Path, every: int) -> None:
    """Write every so many files of predictions anew, without the columns that came later."""
    for path in sorted((folder / "predictions").rglob("*.parquet"))[::every]:
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table.drop_columns(list(LATER["predictions"])), path)


@pytest.fixture(params=[1, 2], ids=["all old", "old and new"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    fill(tmp_path / "windows")
    aged(tmp_path / "windows", request.param)
    return tmp_path / "windows"


def test_old_files_are_no_strays_and_have_nulls(folder: Path) -> None:
    rows = dataset(folder, "predictions").to_table()

    assert strays(folder) == []
    assert rows.schema.field("confidence").type == PREDICTIONS.field("confidence").type
    assert rows["model"].null_count > 0


def test_merging_keeps_every_row(folder: Path) -> None:
    before, expected = plain(folder), ParquetStore(folder).content()
    done = compacted(folder)

    assert done.strays == []
    assert plain(folder) == before
    assert ParquetStore(folder).content() == expected
    for path in (folder / "predictions").rglob("*.parquet"):
        assert pq.read_schema(path).remove_metadata() == PREDICTIONS


def test_other_missing_columns_are_still_strays(tmp_path: Path) -> None:
    fill(tmp_path / "windows")
    path: Any = next((tmp_path / "windows" / "predictions").rglob("*.parquet"))
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["model"]), path)

    assert [stray.path for stray in strays(tmp_path / "windows")] == [path]
