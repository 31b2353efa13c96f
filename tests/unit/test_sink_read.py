"""DuckDB reads the sink's files: two datasets at once, and whatever becomes of the files meanwhile."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from scorers.errors import InputError
from scorers.source import opened
from sinks.read import DESCRIPTORS, dataset
from tests.compaction import compacted, fill
from tests.unit.test_sink_older import aged

JOIN_BY_DUCKDB = """
import sys
from pathlib import Path
import duckdb
from sinks.read import dataset

for _ in range(60):
    one, other = dataset(Path(sys.argv[1]), "predictions"), dataset(Path(sys.argv[1]), "predictions")
    joined = "FROM one FULL JOIN other USING (kafka_offset) WHERE one.date > '2023-11-15'"
    print(*duckdb.execute(f"SELECT count(*), sum(kafka_offset) {joined}").fetchone())
"""


def test_duckdb_reads_two_datasets_of_many_files_at_once(tmp_path: Path) -> None:
    fill(tmp_path, count=40)

    # A process of its own: threads that wait for each other cannot be interrupted.
    command = [sys.executable, "-c", JOIN_BY_DUCKDB, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "18 360\n" * 60


def content(rows: ds.Dataset) -> list[tuple[Any, ...]]:
    with opened(rows) as database:
        return database.execute("SELECT kafka_offset, device_id, window_end, score FROM source ORDER BY ALL").fetchall()


def test_duckdb_reads_on_though_files_are_merged_and_deleted(tmp_path: Path) -> None:
    fill(tmp_path)
    before = content(dataset(tmp_path, "predictions"))

    with opened(dataset(tmp_path, "predictions")) as database:
        compacted(tmp_path)
        shutil.rmtree(tmp_path)
        (found,) = database.execute("SELECT count(*) FROM source").fetchall()

    assert found == (len(before),)


@pytest.mark.parametrize("how", ["merged since", "old files beside new ones", "more files than may be open"])
def test_duckdb_reads_what_pyarrow_reads(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    rows = dataset(tmp_path, "predictions")
    before = content(rows)
    if how == "merged since":
        compacted(tmp_path, keep_s=3600)
    elif how == "old files beside new ones":
        aged(tmp_path, 2)
        rows = dataset(tmp_path, "predictions")
    else:
        monkeypatch.setattr("resource.getrlimit", lambda _: (len(rows.files), -1))

    assert content(rows) == before
    with rows.pinned() as files:
        assert (files is None) == (how != "merged since")


def test_descriptors_are_closed(tmp_path: Path) -> None:
    fill(tmp_path)
    before = len(list(DESCRIPTORS.iterdir()))
    content(dataset(tmp_path, "predictions"))

    assert len(list(DESCRIPTORS.iterdir())) == before


def test_what_is_broken_is_told_by_its_name(tmp_path: Path) -> None:
    fill(tmp_path)
    rows = dataset(tmp_path, "predictions")
    file = Path(rows.files[1])
    file.write_bytes(file.read_bytes()[:200])

    with pytest.raises(InputError, match=file.name):
        content(rows)
