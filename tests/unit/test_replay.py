"""Replay gives the same readings in any chunking, in order of time, round after round."""

import os
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from producers.columns import Columns
from producers.recordings import Part, Recording, data_root, labels, named
from producers.replay import Replay
from scorers.errors import ConfigError, InputError

NOON = 1_700_049_600_000
DATA = os.environ.get("TIDEWATCH_DATA", "../shared/data")

needs_data = [
    pytest.mark.data,
    pytest.mark.skipif(not Path(DATA).is_dir(), reason=f"no recordings at {DATA}; set TIDEWATCH_DATA"),
]


def write(folder: Path, devices: list[list[int]]) -> Recording:
    """One file a device; the values are the row numbers, the times ms after noon."""
    parts = []
    for number, times in enumerate(devices):
        path = folder / f"d{number}.parquet"
        values = np.arange(len(times), dtype=np.float64)
        parquet.write_table(pa.table({"ts": np.array(times, dtype=np.int64) + NOON, "x": values}), path)
        parts.append(Part(path, Columns(ts="ts", metrics=("x",), name=f"d{number}")))
    return Recording("test", tuple(parts))


def played(spec: Replay) -> list[tuple[bytes, bytes]]:
    return [pair for batch in spec.open().batches() for pair in zip(batch.keys, batch.values, strict=True)]


def times(spec: Replay) -> list[int]:
    """Milliseconds after noon of every reading."""
    return [int(ts) - NOON for batch in spec.open().batches() for ts in batch.ts]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    devices=st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=25), min_size=1, max_size=4),
    rows=st.integers(1, 12),
    in_order=st.booleans(),
)
def test_any_chunk_size_gives_the_same_bytes_in_order_of_time(
    devices: list[list[int]], rows: int, in_order: bool, tmp_path: Path
) -> None:
    written = [sorted(stamps) if in_order else stamps for stamps in devices]
    recorded = write(tmp_path, written)
    expected = sorted((ts, number, row) for number, stamps in enumerate(written) for row, ts in enumerate(stamps))

    assert played(Replay(recorded, rows=rows)) == [
        (b"d%d" % number, b'{"device_id":"d%d","ts":%d,"values":{"x":%d.0}}' % (number, NOON + ts, row))
        for ts, number, row in expected
    ]


def test_the_range_is_half_open(tmp_path: Path) -> None:
    recorded = write(tmp_path, [[0, 10, 20, 30], [10, 25]])

    # from          [10 .................... 30)
    # d0      0      10        20            30
    # d1             10             25
    assert times(Replay(recorded, since=NOON + 10, until=NOON + 30)) == [10, 10, 20, 25]


def test_a_range_without_rows_or_backwards_is_refused(tmp_path: Path) -> None:
    recorded = write(tmp_path, [[0, 10]])

    with pytest.raises(InputError, match="widen"):
        Replay(recorded, since=NOON + 11).open()
    with pytest.raises(ConfigError, match="swap"):
        Replay(recorded, since=NOON, until=NOON)
    with pytest.raises(ConfigError, match="at least 1"):
        Replay(recorded, rows=0)


def test_a_loop_goes_on_in_time_without_overlap(tmp_path: Path) -> None:
    player = Replay(write(tmp_path, [[0, 10, 20, 30], [5, 15, 25, 35]]), loop=True).open()
    flat = list(islice((int(ts) - NOON for batch in player.batches() for ts in batch.ts), 24))
    once = [0, 5, 10, 15, 20, 25, 30, 35]

    # round    |0 5 ... 35|45 50 ... 80|90 ...
    assert player.period == 45
    assert flat == once + [ts + 45 for ts in once] + [ts + 90 for ts in once]


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    player = Replay(write(tmp_path, [list(range(50)), [3, 2, 1]]), rows=7).open()
    readings = sum(len(batch) for batch in player.batches(lambda done, total: seen.append((done, total))))

    assert len(seen) > 5
    assert seen == sorted(seen)
    assert seen[-1] == (53, 53)
    assert readings == player.done == player.total == 53


def test_a_file_is_opened_when_its_time_comes(tmp_path: Path) -> None:
    recorded = write(tmp_path, [[0, 1, 2], [10, 11]])
    batches = Replay(recorded, rows=1).open().batches()
    next(batches)
    (tmp_path / "d1.parquet").unlink()

    with pytest.raises(InputError, match=r"d1\.parquet"):
        list(batches)


@pytest.mark.parametrize("form", ["wide", "narrow"])
@pytest.mark.parametrize("rows", [1, 2, 5, 1_000])
def test_devices_in_one_file_are_sorted_into_one_time(form: str, rows: int, tmp_path: Path) -> None:
    device, ts = ["a"] * 3 + ["b"] * 3, NOON + np.array([0, 2, 4, 1, 2, 3])
    columns: dict[str, object] = {"device": device, "ts": ts, "value": np.arange(6.0)}
    if form == "narrow":
        columns["metric"] = ["x"] * 6
    parquet.write_table(pa.table(columns), tmp_path / "long.parquet")
    names = Columns("device", "ts", ("value",)) if form == "wide" else Columns("device", "ts", None, "metric", "value")
    spec = Replay(Recording("long", (Part(tmp_path / "long.parquet", names),)), rows=rows)

    assert times(spec) == [0, 1, 2, 2, 3, 4]
    assert [key for key, _ in played(spec)] == [b"a", b"b", b"a", b"b", b"b", b"a"]


class TestPublishedRecordings:
    """The recordings on disk, where they are."""

    pytestmark = needs_data

    @pytest.mark.parametrize(
        ("name", "devices", "readings"),
        [
            ("skab", 17, 18_678),
            ("skab/anomaly_free", 1, 9_405),
            ("smd/machine-1-2", 1, 47_388),
            ("asd/omi-1", 1, 12_960),
            ("nab", 32, 177_264),
            ("mscloud", 32, 121_846),
            ("workload/appserver_per_host_daily", 4, 7_344),
            ("workload/google2019_cluster_300s", 1, 8_064),
        ],
    )
    def test_every_row_is_replayed_in_order(self, name: str, devices: int, readings: int) -> None:
        player = Replay(named(name, data_root(Path(DATA), {}))).open()
        batches = list(player.batches())

        assert sum(map(len, batches)) == readings
        assert len({key for batch in batches for key in batch.keys}) == devices
        assert player.done == player.total == readings + player.tally.rows.total()
        assert (np.diff(np.concatenate([batch.ts for batch in batches])) >= 0).all()

    @pytest.mark.parametrize("name", ["skab", "smd/machine-1-2", "asd/omi-1", "nab", "mscloud"])
    def test_labels_know_every_device_and_row(self, name: str) -> None:
        recorded = named(name, data_root(Path(DATA), {}))
        known = labels(recorded)
        player = Replay(recorded).open()

        assert set(known.device) == {key.decode() for batch in player.batches() for key in batch.keys}
        assert len(known) == player.total
        assert set(known.split) <= {"train", "test"}

    def test_skab_splits_as_published(self) -> None:
        known = labels(named("skab", data_root(Path(DATA), {})))

        assert (known[known.split == "train"].groupby("device").size() == 400).all()
        assert known.anomaly.sum() == 6_340
