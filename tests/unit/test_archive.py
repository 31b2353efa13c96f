"""Session logs back from disk, as records."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from producers.archive import Archive, is_log
from producers.batch import Batch
from producers.sessions import COLUMNS
from producers.synthesis import LogSpec
from scorers.errors import ConfigError, InputError
from tidewatch.forecast.generate import generate

SPEC = LogSpec(servers=12, days=3, sessions=6_000, dirty=0.0, seed=5)
DAY_MS = 86_400_000


def quiet(_: int, __: int) -> None:
    """Nobody watches."""


def told(batches: list[Batch]) -> list[dict[str, object]]:
    return [msgspec.json.decode(value) for batch in batches for value in batch.values]


def test_a_clean_log_gives_the_records_the_fleet_would_have_sent(tmp_path: Path) -> None:
    generate(SPEC, tmp_path, workers=1, progress=quiet)
    sent, read = list(SPEC.build().batches()), list(Archive(tmp_path).batches())

    assert is_log(tmp_path)
    assert told(read) == told(sent)
    assert [key for batch in read for key in batch.keys] == [key for batch in sent for key in batch.keys]
    assert np.array_equal(np.concatenate([batch.ts for batch in read]), np.concatenate([batch.ts for batch in sent]))


def test_of_a_dirty_log_every_row_is_sent_or_tallied(tmp_path: Path) -> None:
    truth = generate(replace(SPEC, dirty=0.2), tmp_path, workers=1, progress=quiet).plain()
    log = Archive(tmp_path)
    rows = told(list(log.batches()))
    kinds = truth["dirty"]

    assert is_log(tmp_path)
    assert len(rows) == truth["rows"] - kinds["columns"] - kinds["junk"] - kinds["header"]
    assert log.tally.rows.total() == kinds["columns"] + kinds["junk"] + kinds["header"]
    assert sum(row["TotalLoad"] is None for row in rows) == truth["cells"]["blank:TotalLoad"]
    assert sum(row["ServerIP"] is None for row in rows) == truth["cells"]["blank:ServerIP"]
    assert sum(isinstance(row["TotalLoad"], str) for row in rows) >= truth["cells"]["type:TotalLoad"]


def test_only_what_starts_in_the_range_is_sent(tmp_path: Path) -> None:
    generate(SPEC, tmp_path, workers=1, progress=quiet)
    log = Archive(tmp_path, SPEC.start + DAY_MS, SPEC.start + DAY_MS + 3_600_000)
    ts = np.concatenate([batch.ts for batch in log.batches()])

    assert log.since <= ts.min()
    assert ts.max() == log.last < log.until
    with pytest.raises(InputError, match="widen"):
        list(Archive(tmp_path, SPEC.start - 2 * DAY_MS, SPEC.start - DAY_MS).batches())
    with pytest.raises(ConfigError, match="swap"):
        Archive(tmp_path, 2, 1)


def test_a_local_time_is_utc_and_one_with_an_offset_stays(tmp_path: Path) -> None:
    path = tmp_path / "request.csv.gz"
    row = "http,{},{},1,2.50,gold,0,web,1,1,1,1,1,1,6,10.0.0.1,172.16.0.1\n"
    rows = [row.format("2024-01-01 10:00:00", "2024-01-01 10:01:00")]
    rows.append(row.format("2024-01-01T12:00:00+01:00", "2024-01-01T12:01:00+01:00"))
    path.write_bytes(gzip.compress("".join(rows).encode()))
    log = Archive(path)
    first, second = told(list(log.batches()))

    assert is_log(path)
    assert (first["SessionStart"], second["SessionStart"]) == ("2024-01-01T10:00:00.000Z", "2024-01-01T12:00:00+01:00")
    assert json.dumps(first["MbytesTransferred"]) == "2.5"
    assert tuple(first) == COLUMNS
    assert log.last == 1_704_106_800_000


@pytest.mark.parametrize("text", ["", "ts,device,value\n2024-01-01T00:00:00Z,a,1\n", "a,b\n" * 40])
def test_other_files_are_no_session_log(tmp_path: Path, text: str) -> None:
    (tmp_path / "some.csv").write_text(text)

    assert not is_log(tmp_path)
    assert not is_log(tmp_path / "some.csv")


def test_a_folder_without_csv_is_no_session_log(tmp_path: Path) -> None:
    assert not is_log(tmp_path)
