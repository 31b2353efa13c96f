"""Files are whole, and rows are there once, wherever the process dies."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pandas as pd
import pyarrow.parquet as pq
import pytest

from scorers.errors import ConfigError, UnavailableError
from sinks.base import Origin, Source
from sinks.parquet import ParquetSink, ParquetSpec
from sinks.read import dataset
from sinks.table import PREDICTIONS, STATISTICS
from tests.disks import Countdown, CrashError, Hooked
from tests.laws.sink_kit import NOW, ORIGIN, TOPICS, Log, ParquetStore, batch, encoded, feed, forecast, score, started

SOURCE = Source(TOPICS.scores, 3)
HERE = Origin(ORIGIN.cluster, {TOPICS.scores: "id-1"})
LOG: Log = {SOURCE: [*encoded([score(hour=hour) for hour in (0, 11, 12, 13)]), b"junk", *encoded([score(hour=36)])]}
"""Three days, and a reject."""


def sink_on(folder: Path, hook: Callable[[], None] = lambda: None, **spec: Any) -> ParquetSink:
    return ParquetSink(ParquetSpec(folder, **spec), TOPICS, disk=Hooked(hook))


def live(sink: ParquetSink, log: Log = LOG) -> None:
    """A process that reads two records at a time, and writes each time."""
    sink.bind(HERE)
    offset = sink.resume(SOURCE)
    while offset < len(log[SOURCE]):
        sink.write(batch(log, SOURCE, offset, offset + 2))
        offset = sink.flush(NOW, force=True)[SOURCE]


def dies(sink: ParquetSink) -> bool:
    """Whether the process met its crash; the kernel takes its locks either way."""
    try:
        live(sink)
    except CrashError:
        return True
    finally:
        sink.close()
    return False


def rows(folder: Path) -> list[tuple[Any, ...]]:
    """What a reader sees of both tables, as device, window and metric."""
    seen: list[tuple[Any, ...]] = []
    for table, columns in (("predictions", ["window_start"]), ("statistics", ["window_start", "metric"])):
        if list((folder / table).rglob("*.parquet")):
            read = pd.read_parquet(folder / table, columns=["device_id", *columns])
            seen += [(table, *row) for row in read.itertuples(index=False)]
    return seen


def expected(tmp_path: Path) -> Any:
    return feed(ParquetStore(tmp_path / "undisturbed"), LOG)


def crash_points(tmp_path: Path) -> Iterator[Path]:
    """One folder for every place where a process can die."""
    operations, crashed = 0, True
    while crashed:
        folder = tmp_path / f"crash-{operations}"
        crashed = dies(sink_on(folder, Countdown(operations, CrashError())))
        operations += 1
        yield folder
    assert operations > 60


def test_a_crash_at_any_point_neither_loses_nor_doubles_rows(tmp_path: Path) -> None:
    undisturbed = expected(tmp_path)
    for folder in crash_points(tmp_path):
        seen = rows(folder)
        live(sink_on(folder))

        assert len(seen) == len(set(seen))
        assert ParquetStore(folder).content() == undisturbed


def test_a_crash_during_recovery_neither_loses_nor_doubles_rows(tmp_path: Path) -> None:
    undisturbed = expected(tmp_path)
    for folder in crash_points(tmp_path):
        for operations in range(0, 40, 3):
            dies(sink_on(folder, Countdown(operations, CrashError())))
        live(sink_on(folder))

        assert ParquetStore(folder).content() == undisturbed


def test_a_full_disk_commits_nothing_and_is_named(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    disk = Hooked(lambda: None)
    sink = ParquetSink(ParquetSpec(tmp_path / "full"), TOPICS, disk=disk)
    sink.bind(HERE)
    sink.resume(SOURCE)
    sink.write(batch(LOG, SOURCE, 0, 6))
    disk.hook = Countdown(2, full)

    with pytest.raises(UnavailableError, match=r"Cannot write to .*full \(No space left on device\); free space"):
        sink.flush(NOW, force=True)

    disk.hook = lambda: None
    sink.release(SOURCE)

    assert rows(tmp_path / "full") == []
    assert sink.resume(SOURCE) == 0


def test_a_full_disk_at_any_point_only_delays(tmp_path: Path) -> None:
    undisturbed = expected(tmp_path)
    for operations in range(12, 70, 4):
        folder = tmp_path / f"full-{operations}"
        with pytest.raises(UnavailableError):
            live(sink := sink_on(folder, Countdown(operations, OSError(errno.ENOSPC, "full"))))
        sink.close()
        live(sink_on(folder))

        assert ParquetStore(folder).content() == undisturbed


def test_readers_see_whole_files_and_rows_never_leave(tmp_path: Path) -> None:
    folder = tmp_path / "read"
    seen: list[set[tuple[Any, ...]]] = [set()]

    def read() -> None:
        found = rows(folder)

        assert len(found) == len(set(found))
        assert seen[-1] <= set(found)
        seen.append(set(found))

    live(sink_on(folder, read))
    read()

    assert len(seen[-1]) == 5 + 10


def test_duckdb_reads_while_files_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "duck"
    counts = []

    def read() -> None:
        if list((folder / "predictions").rglob("*.parquet")):
            query = f"SELECT count(*), count(DISTINCT date) FROM '{folder}/predictions/**/*.parquet'"
            counts.append(database.execute(query).fetchall()[0])

    with duckdb.connect() as database:
        live(sink_on(folder, read))
        read()

    assert counts == sorted(counts)
    assert counts[-1] == (5, 3)


def test_files_lie_by_date_and_are_named_by_offsets(tmp_path: Path) -> None:
    feed(ParquetStore(tmp_path), LOG)
    name = "device.scores-0003-00000000000000000000-00000000000000000005.parquet"

    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet")) == [
        f"predictions/date=2023-11-15/{name}",
        f"predictions/date=2023-11-16/{name}",
        f"predictions/date=2023-11-17/{name}",
        f"rejects/{name}",
        f"statistics/date=2023-11-15/{name}",
        f"statistics/date=2023-11-16/{name}",
        f"statistics/date=2023-11-17/{name}",
    ]


def test_files_have_the_documented_schema(tmp_path: Path) -> None:
    feed(ParquetStore(tmp_path), LOG)
    schemas = {
        name: {str(pq.read_schema(path).remove_metadata()) for path in (tmp_path / name).rglob("*.parquet")}
        for name in ("predictions", "statistics")
    }

    assert schemas == {"predictions": {str(PREDICTIONS)}, "statistics": {str(STATISTICS)}}


def test_rejects_keep_their_bytes_and_place(tmp_path: Path) -> None:
    feed(ParquetStore(tmp_path), LOG)
    (reject,) = dataset(tmp_path, "rejects").to_table().to_pylist()
    reason = reject.pop("reason")

    assert reject == {"kafka_topic": TOPICS.scores, "kafka_partition": 3, "kafka_offset": 4, "value": b"junk"}
    assert "malformed" in reason


def test_rows_are_written_when_there_are_enough(tmp_path: Path) -> None:
    sink = sink_on(tmp_path, max_rows=6)  # a window makes three rows
    sink.bind(HERE)
    sink.resume(SOURCE)
    sink.write(batch(LOG, SOURCE, 0, 1))
    few = sink.flush(NOW)
    sink.write(batch(LOG, SOURCE, 1, 2))
    enough = sink.flush(NOW)
    sink.close()

    assert (few, enough) == ({}, {SOURCE: 2})


def test_rows_are_written_when_they_waited_long_enough(tmp_path: Path) -> None:
    sink = sink_on(tmp_path, max_seconds=30)
    sink.bind(HERE)
    sink.resume(SOURCE)
    idle = sink.flush(NOW - 1000)
    sink.write(batch(LOG, SOURCE, 0, 1))
    flushed = [sink.flush(NOW + seconds) for seconds in (0, 29, 30)]
    sink.close()

    assert (idle, *flushed) == ({}, {}, {}, {SOURCE: 1})


def test_a_clock_set_back_does_not_hold_rows_for_long(tmp_path: Path) -> None:
    sink = sink_on(tmp_path, max_seconds=30)
    sink.bind(HERE)
    sink.resume(SOURCE)
    sink.write(batch(LOG, SOURCE, 0, 1))
    flushed = [sink.flush(NOW + seconds) for seconds in (0, -7200, -7170)]
    sink.close()

    assert flushed == [{}, {}, {SOURCE: 1}]


def test_two_sinks_never_own_one_partition(tmp_path: Path) -> None:
    first, second = sink_on(tmp_path), sink_on(tmp_path)
    first.bind(HERE)
    second.bind(HERE)
    first.resume(SOURCE)

    with pytest.raises(UnavailableError, match=r"Another sink is writing device\.scores/3"):
        second.resume(SOURCE)

    other = second.resume(Source(TOPICS.scores, 4))
    first.release(SOURCE)

    assert (other, second.resume(SOURCE)) == (0, 0)
    second.close()


@pytest.mark.parametrize(
    "other",
    [
        Origin("cluster-2", HERE.topics),
        Origin(HERE.cluster, {"blue.device.scores": None}),
        Origin(HERE.cluster, {TOPICS.scores: "made-again"}),
        Origin(HERE.cluster, HERE.topics, format=2),
    ],
    ids=["cluster", "topic", "made again", "format"],
)
def test_a_folder_of_another_origin_is_refused(tmp_path: Path, other: Origin) -> None:
    feed(ParquetStore(tmp_path), LOG)

    with pytest.raises(ConfigError, match=r"holds .* not .*; set parquet\.folder to an empty one"):
        sink_on(tmp_path).bind(other)


def test_an_unknown_topic_id_proves_nothing(tmp_path: Path) -> None:
    feed(ParquetStore(tmp_path), LOG)
    sink = sink_on(tmp_path)
    sink.bind(Origin(HERE.cluster, dict.fromkeys(sink.topics)))

    assert sink.resume(SOURCE) == 6
    sink.close()


def test_a_folder_from_before_there_were_forecasts_takes_them_in(tmp_path: Path) -> None:
    feed(ParquetStore(tmp_path), LOG)
    named = tmp_path / "_tidewatch.json"
    named.write_bytes(msgspec.json.encode(Origin(HERE.cluster, {TOPICS.scores: HERE.topics[TOPICS.scores]})))
    (tmp_path / "forecasts").rmdir()
    store, foretold = ParquetStore(tmp_path), {Source(TOPICS.forecasts, 0): encoded([forecast(ahead=2)])}
    feed(store, foretold)
    rows = store.content()["forecasts"]

    assert [(row["server"], row["hour"] - row["issued"], row["date"]) for row in rows] == [
        ("10.0.0.1", timedelta(hours=n), date(2023, 11, 15)) for n in range(2)
    ]
    assert len(store.content()["predictions"]) > 0
    assert msgspec.json.decode(named.read_bytes(), type=Origin).topics.keys() == {TOPICS.scores, TOPICS.forecasts}


def test_files_without_a_ledger_are_refused(tmp_path: Path) -> None:
    feed(ParquetStore(tmp_path), LOG)
    (tmp_path / "_tidewatch.json").unlink()

    with pytest.raises(ConfigError, match="unknown origin"):
        sink_on(tmp_path).bind(HERE)


def test_a_ledger_that_is_gone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "_tidewatch.json").write_bytes(b'{"cluster": null, "topics": {"device.scores": null}}')

    with pytest.raises(ConfigError, match=r"_log is gone.*restore it"):
        sink_on(tmp_path).bind(HERE)


def test_an_unreadable_origin_is_refused(tmp_path: Path) -> None:
    (tmp_path / "_tidewatch.json").write_text("{")

    with pytest.raises(ConfigError, match="cannot be read"):
        sink_on(tmp_path).bind(HERE)


def test_old_dates_may_be_deleted(tmp_path: Path) -> None:
    feed(ParquetStore(tmp_path), LOG)
    for path in tmp_path.rglob("*.parquet"):
        path.unlink()
    sink, ahead = started(ParquetStore(tmp_path), LOG)
    sink.close()

    assert ahead == {SOURCE: 6}


def test_a_folder_that_is_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(UnavailableError, match="Cannot write"):
        sink_on(tmp_path / "file").bind(HERE)


@pytest.mark.parametrize(
    ("name", "value"), [("max_rows", 0), ("max_seconds", -1.0), ("row_group_rows", 0), ("compression", "zip")]
)
def test_a_spec_that_cannot_work_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"parquet\.{name} is .*; set"):
        replace(ParquetSpec(tmp_path), **{name: value})
