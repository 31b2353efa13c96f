"""Many small files become few, with the same rows."""

import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from scorers.errors import ConfigError, InputError
from sinks.base import Source
from sinks.compact import plan
from sinks.folder import strays
from sinks.names import Range, merged, ours
from sinks.parquet import ParquetSink, ParquetSpec
from sinks.replace import AREA, NOTICE
from sinks.table import PREDICTIONS
from tests.compaction import DAY, SOURCE, compacted, fill, names, plain, specified
from tests.laws.sink_kit import NOW, ORIGIN, TOPICS, ParquetStore, batch, encoded, forecast


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path / "windows")
    return tmp_path / "windows"


@pytest.fixture
def expected(folder: Path) -> Any:
    return ParquetStore(folder).content()


def test_small_files_of_each_folder_become_one(folder: Path, expected: Any) -> None:
    before = plain(folder)
    done = compacted(folder)

    assert [(str(merge.path.relative_to(folder)), merge.files_before, merge.files_after) for merge in done.merges] == [
        (f"predictions/{DAY}", 10, 1),
        ("predictions/date=2023-11-16", 11, 1),
        (f"statistics/{DAY}", 10, 1),
        ("statistics/date=2023-11-16", 11, 1),
        ("rejects", 3, 1),
    ]
    assert done.strays == []
    assert len(names(folder, "*/**/*.parquet")) == 5
    assert plain(folder) == before
    assert ParquetStore(folder).content() == expected


def test_files_of_forecasts_become_one(tmp_path: Path) -> None:
    source = Source(TOPICS.forecasts, 0)
    log = {source: encoded([forecast(f"10.0.0.{n % 2}", n // 2, ahead=3) for n in range(6)])}
    sink = ParquetSink(ParquetSpec(tmp_path), TOPICS)
    sink.bind(ORIGIN)
    sink.resume(source)
    for offset in range(6):
        sink.write(batch(log, source, offset, offset + 1))
        sink.flush(NOW, force=True)
    sink.close()
    before = ParquetStore(tmp_path).content()
    done = compacted(tmp_path)

    assert [(merge.files_before, merge.files_after, merge.rows) for merge in done.merges] == [(6, 1, 18)]
    assert ParquetStore(tmp_path).content() == before


def test_rows_lie_sorted_in_row_groups_of_the_sink(folder: Path) -> None:
    compacted(folder)
    (path,) = (folder / "predictions" / DAY).iterdir()
    table = pq.read_table(path, partitioning=None)
    order = [(row["device_id"], row["window_start"], row["kafka_offset"]) for row in table.to_pylist()]
    metadata = pq.read_metadata(path)

    assert order == sorted(order)
    assert metadata.row_group(0).num_rows == 5
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    assert table.schema.remove_metadata() == PREDICTIONS


def test_compacting_twice_does_nothing_the_second_time(folder: Path) -> None:
    compacted(folder)
    before = names(folder)
    again = compacted(folder)

    assert again.merges == []
    assert names(folder) == before


def test_a_file_is_closed_once_it_is_large_enough_and_then_left_alone(folder: Path, expected: Any) -> None:
    like = ParquetSpec(folder, row_group_rows=1)
    done, again = (compacted(folder, files=like, target_mb=0.008, tables=("statistics",)) for _ in range(2))

    assert all(1 < merge.files_after < merge.files_before for merge in done.merges)
    assert again.merges == []
    assert ParquetStore(folder).content() == expected


def test_few_files_are_left_alone(folder: Path) -> None:
    done = compacted(folder, min_files=11)

    assert {merge.files_before for merge in done.merges} == {11}


@pytest.mark.parametrize(
    ("since", "until", "dates"),
    [
        (None, None, {"2023-11-15", "2023-11-16", None}),
        (date(2023, 11, 16), None, {"2023-11-16"}),
        (None, date(2023, 11, 16), {"2023-11-15"}),
        (date(2024, 1, 1), None, set()),
    ],
)
def test_dates_may_be_chosen(folder: Path, since: date | None, until: date | None, dates: set[str | None]) -> None:
    done = compacted(folder, since=since, until=until)
    found = {merge.path.name.partition("=")[2] or None for merge in done.merges}

    assert found == dates


def test_a_plan_touches_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    planned = plan(specified(folder))

    assert [merge.rows for merge in planned.merges] == [merge.rows for merge in compacted(folder).merges]
    assert [path for path in before if not path.exists()] != []
    assert not any(AREA in str(path) for path in before)


def test_the_sink_goes_on_where_it_was_and_its_files_are_merged_in_turn(folder: Path) -> None:
    compacted(folder)
    fill(folder, first=24, count=8)
    done = compacted(folder)

    assert [merge.files_after for merge in done.merges] == [1] * 5
    assert {row[2] for row in plain(folder)} == set(range(32))


def test_a_file_of_another_partition_is_merged_too(folder: Path) -> None:
    fill(folder, source=Source(TOPICS.scores, 4))
    before = plain(folder)
    compacted(folder)

    assert plain(folder) == before
    assert len(before) == 2 * (21 + 42 + 3)


def test_rows_that_are_there_twice_are_refused_by_name(folder: Path) -> None:
    dated = folder / "predictions" / DAY
    first = min(dated.iterdir())
    shutil.copy(first, dated / f"{Range(SOURCE, 900, 901)}.parquet")
    before = names(folder)

    with pytest.raises(
        InputError, match=r"kafka_partition 3, kafka_offset 0\) is there twice, in .*0001.parquet and .*901.parquet"
    ):
        compacted(folder)

    assert names(folder) == before


def test_a_file_damaged_inside_is_refused_by_name(folder: Path) -> None:
    path = min((folder / "predictions" / DAY).iterdir())
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    path.write_bytes(content)
    before = names(folder)

    with pytest.raises(InputError, match=rf"{path.name} cannot be read as Parquet .*; move it away"):
        compacted(folder)

    assert names(folder) == before


def test_a_folder_named_like_a_pattern_is_compacted(tmp_path: Path) -> None:
    folder = tmp_path / "a [b] {c,d} *?"
    fill(folder)
    expected = ParquetStore(folder).content()
    done = compacted(folder)

    assert len(done.merges) == 5
    assert ParquetStore(folder).content() == expected


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder of the Parquet sink"):
        compacted(tmp_path)


def test_the_sink_takes_names_of_merged_files_for_no_range() -> None:
    name = merged("20261121T120000Z-00c0ffee00c0ffee", 1)

    assert Range.parse(name) is None
    assert ours(f"{name}.parquet")
    assert not ours(f"{name}.parquet.tmp")


def test_a_merged_folder_keeps_its_mode(folder: Path) -> None:
    (folder / "predictions" / DAY).chmod(0o2770)
    compacted(folder)

    assert (folder / "predictions" / DAY).stat().st_mode & 0o7777 == 0o2770


@pytest.mark.parametrize(
    ("name", "value"), [("min_files", 1), ("target_mb", 0), ("memory_mb", 1), ("keep_s", -1), ("tables", ("alerts",))]
)
def test_a_spec_that_cannot_work_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"set|name"):
        specified(tmp_path, **{name: value})


def test_pandas_reads_a_compacted_folder(folder: Path) -> None:
    compacted(folder)
    frame = pd.read_parquet(folder / "predictions")

    assert len(frame) == 21
    assert set(frame["date"].astype(str)) == {"2023-11-15", "2023-11-16"}
    assert strays(folder) == []
    assert NOTICE not in [path.read_bytes() for path in folder.rglob("*.parquet")]
