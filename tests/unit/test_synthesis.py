"""Session logs of any size."""

import csv
import io
import json
from collections import Counter
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from producers.batch import Ints
from producers.dirt import CELLS, NUMBERS
from producers.sessions import COLUMNS, lines
from producers.synthesis import LogSpec, Varied, records
from scorers.errors import ConfigError, InputError
from tidewatch.cli import app
from tidewatch.forecast.generate import generate, sized

SMALL = LogSpec(servers=12, days=3, sessions=6_000, dirty=0.2, seed=5)


def quiet(_: int, __: int) -> None:
    """Nobody watches."""


def kind(row: bytes) -> str:  # noqa: PLR0911 - one a kind
    """What is wrong with a row, said by a reader that knows nothing of how it came about."""
    try:
        cells = next(csv.reader(io.StringIO(row.decode()), quoting=csv.QUOTE_NONE), [])
    except (UnicodeDecodeError, csv.Error):
        return "junk"
    if len(cells) != 17:
        return "columns" if cells and cells[0] in {"http", "stream", "rpc", "bulk"} else "junk"
    named = dict(zip(COLUMNS, cells, strict=True))
    if cells == list(COLUMNS):
        return "header"
    if {named[name] for name in CELLS} & {"", "n/a", "NULL", "-"}:
        return "blank"
    try:
        start, end = (datetime.fromisoformat(named[name]) for name in ("SessionStart", "SessionEnd"))
        loads = [float(named[name]) for name in NUMBERS]
    except ValueError:
        return "type"
    if not all(0 <= load <= 1e9 for load in loads):
        return "range"
    return "swapped" if end < start else "clean"


def test_the_truth_counts_every_row_by_kind(tmp_path: Path) -> None:
    truth = generate(SMALL, tmp_path, workers=1, progress=quiet)
    written = [path.read_bytes() for path in sorted(tmp_path.rglob("request.csv"))]
    rows = [row for text in written for row in text.split(b"\n")[:-1]]
    plain = truth.plain()

    assert plain == json.loads((tmp_path / "truth.json").read_text())
    assert len(rows) == plain["rows"]
    assert sum(map(len, written)) == plain["bytes"]
    assert Counter(map(kind, rows)) == Counter(plain["dirty"] | {"clean": plain["clean"]})
    assert set(plain["dirty"]) == {"blank", "type", "range", "swapped", "columns", "junk", "header"}
    assert sum(plain["cells"].values()) == sum(plain["dirty"].values())
    assert 0.17 < 1 - plain["clean"] / plain["rows"] < 0.23


def test_the_same_seed_gives_the_same_bytes_whatever_the_processes(tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        generate(SMALL, tmp_path / name, workers=workers, progress=quiet)
    generate(replace(SMALL, seed=6), tmp_path / "other", workers=1, progress=quiet)
    one, two, other = (_bytes(tmp_path / name) for name in ("one", "two", "other"))

    assert one == two
    assert one != other
    assert [str(path) for path in one] == [f"2024/01/0{day}/request.csv" for day in (1, 2, 3)] + ["truth.json"]


def test_a_monthly_file_holds_the_days_one_after_the_other(tmp_path: Path) -> None:
    spec = replace(SMALL, start=1_706_572_800_000, days=4)  # 30 January
    generate(spec, tmp_path / "days", workers=1, progress=quiet)
    generate(replace(spec, monthly=True), tmp_path / "months", workers=1, progress=quiet)
    days, months = _bytes(tmp_path / "days"), _bytes(tmp_path / "months")

    for month, two in (("2024/01", ("30", "31")), ("2024/02", ("01", "02"))):
        own = b"".join(days[Path(month) / day / "request.csv"] for day in two)
        assert months[Path(month) / "request.csv"] == own


def _bytes(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_there_are_about_as_many_sessions_as_asked_for() -> None:
    log = LogSpec(servers=40, days=9, sessions=50_000).build()
    tables = [table for day in range(9) for table in log.tables(day)]

    assert sum(map(len, tables)) == pytest.approx(50_000, rel=0.03)


def test_starts_are_in_order_within_their_day_and_before_their_ends() -> None:
    log = replace(SMALL, sessions=60_000).build()
    start, end = (_stamps(pa.concat_tables(log.tables(1)), name) for name in ("SessionStart", "SessionEnd"))
    midnight = SMALL.start + 86_400_000

    assert (np.diff(start) >= 0).all()
    assert midnight <= start[0]
    assert start[-1] < midnight + 86_400_000
    assert (end >= start).all()


def test_a_large_day_is_cut_into_slices_that_can_be_held() -> None:
    log = replace(SMALL, servers=2_000, days=31, sessions=1e8).build()

    first = next(log.tables(0))

    assert log.slices == 18
    assert len(first) < 600_000
    assert LogSpec(sessions=1e12).build().slices == 288


def test_hourly_peaks_are_low_medium_and_high() -> None:
    spec = LogSpec(servers=120, days=10, sessions=400_000)
    tables = pa.concat_tables(table for day in range(10) for table in spec.build().tables(day))
    cells = pd.DataFrame({"server": tables["ServerIP"], "cell": _stamps(tables, "SessionStart") // 300_000})
    sums = tables["TotalLoad"].to_pandas().groupby([cells.server, cells.cell]).sum()
    hours = sums.groupby([sums.index.get_level_values(0), sums.index.get_level_values(1) // 12]).max()
    peaks = hours.unstack().fillna(0).to_numpy()  # noqa: PD010 - an index, not a table

    shares = [(peaks <= 100).mean(), ((peaks > 100) & (peaks <= 500)).mean(), (peaks > 500).mean()]

    assert min(shares) > 0.1
    assert max(shares) < 0.6


def test_a_log_of_so_many_bytes_has_about_so_many(tmp_path: Path) -> None:
    truth = generate(sized(replace(SMALL, dirty=0.01, servers=30), 3e6), tmp_path, workers=1, progress=quiet)

    assert truth.bytes == pytest.approx(3e6, rel=0.05)


def test_records_hold_what_the_rows_hold() -> None:
    log = replace(SMALL, dirty=0.0).build()
    table = next(log.tables(0))
    batch = records()(table)
    rows = list(csv.reader(lines(table).decode().splitlines()))

    told = [msgspec.json.decode(value) for value in batch.values]  # noqa: PD011 - of a Batch

    assert [tuple(record) for record in told] == [COLUMNS] * len(rows)
    for record, row in zip(told, rows, strict=True):
        assert [type(value)(cell) for value, cell in zip(record.values(), row, strict=True)] == list(record.values())
    assert [key.decode() for key in batch.keys] == [row[15] for row in rows]
    assert batch.ts.tolist() == [round(datetime.fromisoformat(row[1]).timestamp() * 1000) for row in rows]


def test_a_live_fleet_begins_in_the_middle_of_a_day_and_goes_on_for_ever() -> None:
    noon = SMALL.start + 12 * 3_600_000
    fleet = Varied(3, seed=2, start=noon, rate=0.001).build()
    ts = np.concatenate([batch.ts for batch in islice(fleet.batches(), 40)])
    again = next(fleet.batches())

    assert fleet.now == noon <= ts[0]
    assert (np.diff(ts) >= 0).all()
    assert ts[-1] > noon + 38 * 86_400_000
    assert len(ts) == pytest.approx(0.001 * 3 * 86_400 * 39.5, rel=0.25)
    assert again.values == next(fleet.batches()).values  # noqa: PD011 - of a Batch


def test_a_folder_with_a_log_is_left_alone(tmp_path: Path) -> None:
    generate(replace(SMALL, days=1), tmp_path, workers=1, progress=quiet)

    with pytest.raises(InputError, match="another folder"):
        generate(SMALL, tmp_path, workers=1, progress=quiet)
    assert not list(tmp_path.glob(".making-*"))


@pytest.mark.parametrize(
    "wrong", [{"days": 0}, {"sessions": 0}, {"dirty": 2}, {"start": 1}, {"servers": 0}, {"timezone": "?"}]
)
def test_a_log_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        replace(SMALL, **wrong)


def test_what_is_stopped_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(SMALL, tmp_path, workers=1, progress=stop)

    assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    words = ["load", "generate", "--out", str(tmp_path), "--days", "2", "--servers", "3", "--workers", "1", "--json"]

    told = CliRunner().invoke(app, [*words, "--sessions", "1e3", "--start", "2026-03-01"])

    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["rows"] == pytest.approx(1000, rel=0.2)
    assert (tmp_path / "2026/03/02/request.csv").is_file()


@pytest.mark.parametrize(
    "size", [["--sessions", "many"], ["--gigabytes", "-1"], ["--sessions", "1", "--gigabytes", "1"]]
)
def test_the_command_refuses_a_size_that_is_none(tmp_path: Path, size: list[str]) -> None:
    told = CliRunner().invoke(app, ["load", "generate", "--out", str(tmp_path), *size])

    assert isinstance(told.exception, ConfigError)


def _stamps(table: pa.Table, name: str) -> Ints:
    stamps: Ints = table[name].cast(pa.timestamp("ms", "UTC")).cast(pa.int64()).to_numpy()
    return stamps
