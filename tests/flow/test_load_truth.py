"""A generated log, read again: nothing that is wrong with it goes unseen, nothing that is right is lost."""

import json
from pathlib import Path

import msgspec
import pyarrow.compute as pc
import pyarrow.parquet as pq
from typer.testing import CliRunner

from producers.archive import Archive
from producers.dirt import NUMBERS
from producers.logs import REJECTS
from producers.synthesis import LogSpec
from scorers.forecast.schema import UNIT
from stream.sessions import SESSIONS
from tidewatch.cli import app
from tidewatch.forecast.generate import generate

SPEC = LogSpec(servers=8, days=2, sessions=8_000, dirty=0.3, seed=11)


def test_the_etl_finds_every_spoilt_row_by_its_kind(tmp_path: Path) -> None:
    truth = generate(SPEC, tmp_path / "log", workers=1, progress=lambda _, __: None).plain()
    words = ["load", "etl", "--in", str(tmp_path / "log"), "--out", str(tmp_path / "load"), "--json"]
    told = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    kinds, cells, rejects = truth["dirty"], truth["cells"], told["rejects"]
    optional = sum(cells[f"blank:{name}"] for name in NUMBERS if name != "TotalLoad")

    assert told["lines"] == truth["rows"]
    assert told["sessions"] == truth["clean"] + optional
    assert told["blank"] == optional
    assert rejects["missing_field"] == kinds["blank"] - optional
    assert rejects["bad_timestamp"] == cells["type:SessionStart"]
    assert rejects["wrong_type"] == kinds["type"] - cells["type:SessionStart"]
    assert rejects["not_finite"] + rejects["out_of_range"] == kinds["range"]
    assert rejects["swapped"] == kinds["swapped"]
    assert rejects["header"] == kinds["header"]
    assert rejects["columns"] + rejects["empty"] + rejects["malformed"] == kinds["columns"] + kinds["junk"]


def test_without_dirt_nothing_is_rejected_and_the_largest_load_is_in_an_hour(tmp_path: Path) -> None:
    log = LogSpec(servers=1, days=2, sessions=24, dirty=0.0, seed=1)
    generate(log, tmp_path / "log", workers=1, progress=lambda _, __: None)
    words = ["load", "etl", "--in", str(tmp_path / "log"), "--out", str(tmp_path / "load"), "--json"]
    told = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    hours = pq.read_table(tmp_path / "load" / "hours")
    biggest = max(pc.max(table["TotalLoad"]).as_py() for day in range(2) for table in log.build().tables(day))

    assert told["rejects"] == {}
    assert pc.max(hours["peak_total"]).as_py() >= round(biggest * UNIT)


def test_what_is_replayed_of_a_clean_row_the_stream_reads_at_once(tmp_path: Path) -> None:
    truth = generate(SPEC, tmp_path / "log", workers=1, progress=lambda _, __: None).plain()
    read = 0
    for batch in Archive(tmp_path / "log").batches():
        for value in batch.values:
            try:
                SESSIONS.fast(value)
            except msgspec.MsgspecError:
                continue
            read += 1

    kept = truth["clean"] + truth["dirty"]["swapped"] + sum(truth["cells"].get(f"range:{n}", 0) for n in NUMBERS)
    assert truth["clean"] <= read <= kept + truth["cells"]["type:SessionStart"]


def test_rejects_name_the_line(tmp_path: Path) -> None:
    generate(SPEC, tmp_path / "log", workers=1, progress=lambda _, __: None)
    words = ["load", "etl", "--in", str(tmp_path / "log"), "--out", str(tmp_path / "load"), "--json"]
    CliRunner().invoke(app, words, catch_exceptions=False)
    rejects = pq.read_table(tmp_path / "load" / "rejects")
    lines = {str(path): path.read_bytes().split(b"\n") for path in (tmp_path / "log").rglob("*.csv")}

    assert rejects.schema.names == REJECTS.names
    assert all(lines[row["file"]][row["line"] - 1] == row["value"] for row in rejects.to_pylist())
