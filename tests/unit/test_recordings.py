"""Recordings of every kind, written by the test, read as they were meant."""

import gzip
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from producers.columns import Columns
from producers.recordings import FIRST, Recording, data_root, labels, named, recording
from producers.replay import Player, Replay
from scorers.errors import InputError
from stream.contracts import Reason

NOON = 1_700_049_600_000  # 2023-11-15T12:00:00Z


def play(path: Path | Recording, columns: Columns | None = None) -> tuple[list[dict[str, Any]], Player]:
    """Every reading, decoded, and the player that gave them."""
    recorded = path if isinstance(path, Recording) else recording(path, columns)
    player = Replay(recorded, rows=3).open()
    records = chain.from_iterable(map(attrgetter("values"), player.batches()))
    return list(map(json.loads, records)), player


def write_parquet(path: Path, table: pa.Table) -> None:
    parquet.write_table(table, path)


def write_csv(path: Path, table: pa.Table) -> None:
    csv.write_csv(table, path)


def write_csv_gz(path: Path, table: pa.Table) -> None:
    with gzip.open(path, "wb") as file:
        csv.write_csv(table, file)


def write_jsonl(path: Path, table: pa.Table) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


def write_jsonl_gz(path: Path, table: pa.Table) -> None:
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in table.to_pylist())


WRITERS: Mapping[str, Callable[[Path, pa.Table], None]] = {
    "r.parquet": write_parquet,
    "r.csv": write_csv,
    "r.csv.gz": write_csv_gz,
    "r.jsonl": write_jsonl,
    "r.jsonl.gz": write_jsonl_gz,
}

READINGS = [
    {"device_id": "a", "ts": NOON, "values": {"flow": 1.25, "heat": 70.1}},
    {"device_id": "b", "ts": NOON, "values": {"heat": 0.1}},
    {"device_id": "a", "ts": NOON + 1_000, "values": {"flow": 1e-300, "heat": 71.0}},
    {"device_id": "b", "ts": NOON + 1_000, "values": {"flow": 0.30000000000000004, "heat": -0.0}},
]
TABLE = pa.table(
    {
        "machine": ["a", "b", "a", "b"],
        "time": [NOON, NOON, NOON + 1_000, NOON + 1_000],
        "flow": [1.25, None, 1e-300, 0.30000000000000004],
        "heat": [70.1, 0.1, 71.0, -0.0],
    }
)


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_readings(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name, TABLE)
    readings, player = play(tmp_path / name)

    assert readings == READINGS
    assert player.done == player.total == 4


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson"])
def test_records_of_the_contract_replay_as_they_are(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"readings.{suffix}"
    path.write_text("".join(json.dumps(reading) + "\n" for reading in READINGS))

    assert play(path)[0] == READINGS


def test_a_metric_may_appear_late_in_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "late.jsonl"
    rows: list[dict[str, Any]] = [{"ts": NOON + row, "values": {"a": 1.0}} for row in range(10)]
    rows[9]["values"]["b"] = 2.0
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert play(path)[0][9] == {"device_id": "late", "ts": NOON + 9, "values": {"a": 1.0, "b": 2.0}}


@pytest.mark.parametrize(
    "stamp",
    [
        pa.array([NOON], pa.int64()),
        pa.array([NOON // 1_000], pa.int32()),
        pa.array([NOON / 1_000]),
        pa.array([NOON * 1_000]),
        pa.array([NOON * 1_000_000]),
        pa.array([str(NOON)]),
        pa.array([datetime(2023, 11, 15, 12)]),  # noqa: DTZ001 - a stamp without a zone is the point
        pa.array([datetime(2023, 11, 15, 12)], pa.timestamp("ns")),  # noqa: DTZ001 - as above
        pa.array([datetime(2023, 11, 15, 12, tzinfo=UTC)], pa.timestamp("us", "Europe/Zurich")),
        pa.array(["2023-11-15T12:00:00Z"]),
        pa.array(["2023-11-15 12:00:00"]),
        pa.array(["2023-11-15T13:00:00.000+01:00"]),
        pa.array(["2023-11-15T12:00:00Z"]).dictionary_encode(),
    ],
    ids=lambda stamp: f"{stamp.type}:{stamp[0]}",
)
def test_every_way_to_write_noon_is_noon(stamp: pa.Array, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"ts": stamp, "x": [1.0]}), tmp_path / "noon.parquet")

    assert play(tmp_path / "noon.parquet")[0] == [{"device_id": "noon", "ts": NOON, "values": {"x": 1.0}}]


def test_a_fraction_of_a_second_is_kept(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("ts,x\n1700049600.123,1\n1700049600.999,2\n")

    assert [reading["ts"] for reading in play(tmp_path / "f.csv")[0]] == [NOON + 123, NOON + 999]


def test_float32_is_widened_exactly(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    parquet.write_table(pa.table({"ts": NOON + np.arange(100), "x": values}), tmp_path / "f.parquet")
    readings, _ = play(tmp_path / "f.parquet")

    assert [reading["values"]["x"] for reading in readings] == values.astype(np.float64).tolist()


def test_rows_that_make_no_reading_are_counted_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(
        "device,ts,x,y\n"
        f"a,{NOON},1,2\n"
        "a,,1,2\n"  # no time
        "a,yesterday,1,2\n"  # no time either
        f",{NOON},1,2\n"  # no device
        f"a,{NOON + 1},,\n"  # no value
        f"a,{NOON + 2},1,2,3\n"  # a cell too many
        f"a,{NOON + 3},inf,2\n"  # one value left
        f"a,{NOON + 4},oops,2\n"  # one value left
        f"a,{NOON + 5},inf,nan\n"  # none left
    )
    readings, player = play(path)

    assert [reading["values"] for reading in readings] == [{"x": 1.0, "y": 2.0}, {"y": 2.0}, {"y": 2.0}]
    assert player.tally.rows == {
        Reason.BAD_TIMESTAMP: 2,
        Reason.MISSING_FIELD: 1,
        Reason.NO_VALUES: 2,
        Reason.MALFORMED: 1,
    }
    assert player.tally.cells == {Reason.NOT_FINITE: 2, Reason.WRONG_TYPE: 1}
    assert player.done == player.total == 9


def test_broken_json_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"ts": %d, "x": 1}\n{"ts": \n[1]\n\n\xff\n{"ts": %d, "x": 2}\n' % (NOON, NOON))
    readings, player = play(path)

    assert [reading["values"]["x"] for reading in readings] == [1.0, 2.0]
    assert player.tally.rows == {Reason.MALFORMED: 3}


def test_narrow_rows_of_one_time_make_one_reading(tmp_path: Path) -> None:
    path = tmp_path / "narrow.csv"
    path.write_text(
        "TS,Device,Sensor,Value\n"
        "2023-11-15T12:00:00Z,1,5,100.2\n"
        "2023-11-15T12:00:00Z,2,5,7\n"
        "2023-11-15T12:00:00Z,1,4,0.5\n"
        "2023-11-15T12:00:00Z,1,5,100.3\n"  # the same sensor again: a reading of its own
        "2023-11-15T12:00:01Z,1,,1\n"
    )
    readings, player = play(path)

    assert readings == [
        {"device_id": "1", "ts": NOON, "values": {"5": 100.2, "4": 0.5}},
        {"device_id": "2", "ts": NOON, "values": {"5": 7.0}},
        {"device_id": "1", "ts": NOON, "values": {"5": 100.3}},
    ]
    assert player.tally.rows == {Reason.NO_VALUES: 1}


def test_a_mapping_overrules_what_names_suggest(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"device,when,ts,x,y\na,{NOON},5,1,2\n")
    columns = Columns(device="device", ts="when", metrics=("y",))

    assert play(tmp_path / "m.csv", columns)[0] == [{"device_id": "a", "ts": NOON, "values": {"y": 2.0}}]


def test_a_fixed_name_overrules_the_device_column(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"device,ts,x\n7,{NOON},1\n")

    assert play(tmp_path / "m.csv", Columns(name="pump"))[0][0]["device_id"] == "pump"


def test_row_numbers_need_a_start_and_a_step(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("t,x\n0,1\n1,2\n")

    with pytest.raises(InputError, match="--start"):
        play(tmp_path / "n.csv")
    assert [reading["ts"] for reading in play(tmp_path / "n.csv", Columns(start=NOON, step=60_000))[0]] == [
        NOON,
        NOON + 60_000,
    ]


def test_other_delimiters_are_seen(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text(f"ts;x;y\n{NOON};1;2\n")

    assert play(tmp_path / "s.csv")[0][0]["values"] == {"x": 1.0, "y": 2.0}


def test_a_folder_is_its_parquet_files(tmp_path: Path) -> None:
    for day in ("b", "a"):
        (tmp_path / day).mkdir()
        parquet.write_table(pa.table({"ts": [NOON], "x": [1.0]}), tmp_path / day / f"{day}.parquet")
    (tmp_path / "notes.csv").write_text("x\n1\n")

    assert [reading["device_id"] for reading in play(tmp_path)[0]] == ["a", "b"]
    assert [reading["device_id"] for reading in play(tmp_path / "*" / "b*.parquet")[0]] == ["b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.txt", b"", "of no known kind"),
        ("r.parquet", b"not parquet", r"r\.parquet.*cannot be read"),
        ("r.csv.gz", b"not gzip", r"r\.csv\.gz.*cannot be read"),
        ("r.csv", b"ts,x\n", "holds no rows"),
        ("r.csv", b"", "cannot be read|holds no rows"),
        ("r.csv", b"x,y\n1,2\n", "--ts"),
        ("r.csv", b"ts,x\n1700049600,word\n", "--metrics"),
        ("r.csv", b"ts,x\nnoon,1\n", "'ts' of .* holds no time"),
        ("r.jsonl", b"\x00\x01", "holds no rows"),
    ],
)
def test_an_unreadable_recording_is_named_with_the_fix(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(InputError, match=message):
        play(tmp_path / name)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_column_that_is_not_there_is_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"r.{suffix}"
    WRITERS[path.name](path, TABLE)

    with pytest.raises(InputError, match="has no column 'speed'"):
        play(path, Columns(metrics=("speed",)))


def test_a_path_to_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recording at"):
        recording(tmp_path / "*.parquet")


def test_narrow_and_wide_files_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"ts,x\n{NOON},1\n")
    (tmp_path / "b.csv").write_text(f"ts,metric,value\n{NOON},x,1\n")

    with pytest.raises(InputError, match="replay them apart"):
        play(tmp_path)


def test_the_data_folder_is_the_one_given_or_set(tmp_path: Path) -> None:
    assert data_root(tmp_path, {"TIDEWATCH_DATA": "elsewhere"}) == tmp_path
    assert data_root(None, {"TIDEWATCH_DATA": str(tmp_path)}) == tmp_path
    with pytest.raises(InputError, match="TIDEWATCH_DATA"):
        data_root(tmp_path / "missing", {})


@pytest.mark.parametrize("name", ["skab", "smd", "smd/machine-9-9", "nab", "workload/none", "workload"])
def test_a_named_recording_without_files_is_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        named(name, tmp_path)


def test_an_unknown_name_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="skab, smd, asd, nab, mscloud, workload"):
        named("swat", tmp_path)


def write_machine(folder: Path) -> None:
    for split, rows in (("train", 4), ("test", 3)):
        columns: dict[str, Any] = {"t": np.arange(rows, dtype=np.int32), "cpu": np.arange(rows, dtype=np.float32)}
        if split == "test":
            columns["label"] = np.array([0, 1, 0], dtype=np.int8)
        parquet.write_table(pa.table(columns), folder / f"machine-1-1_{split}.parquet")


def test_the_test_of_a_machine_follows_its_training(tmp_path: Path) -> None:
    write_machine(tmp_path)
    readings, player = play(named("smd", tmp_path))

    assert [reading["ts"] for reading in readings] == [FIRST + row * 60_000 for row in range(7)]
    assert {reading["device_id"] for reading in readings} == {"smd-machine-1-1"}
    assert player.metrics == ("cpu",)


def test_labels_tell_split_and_truth_of_every_row(tmp_path: Path) -> None:
    write_machine(tmp_path)
    expected = pd.DataFrame(
        {
            "device": ["smd-machine-1-1"] * 7,
            "ts": FIRST + np.arange(7) * 60_000,
            "split": ["train"] * 4 + ["test"] * 3,
            "label": [0, 0, 0, 0, 0, 1, 0],
        }
    )

    pd.testing.assert_frame_equal(labels(named("smd", tmp_path)), expected, check_dtype=False)


def test_a_recording_without_labels_says_so(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(f"ts,x\n{NOON},1\n")

    with pytest.raises(InputError, match="has no labels"):
        labels(recording(tmp_path / "r.csv"))
