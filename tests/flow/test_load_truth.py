"""A generated log, read again: nothing that is wrong with it goes unseen, nothing that is right is lost."""

import json
from collections import Counter
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from producers import logs
from producers.archive import Archive, files
from producers.dirt import KINDS, NUMBERS
from producers.logs import REJECTS
from producers.sessions import COLUMNS
from producers.synthesis import LogSpec
from scorers.forecast.hours import SESSIONS as READ
from scorers.forecast.schema import UNIT
from stream.decode import Limits, decode
from stream.forecast.sessions import ENDED, measured
from stream.sessions import SESSIONS
from tests.workload import Session, log
from tidewatch.cli import app
from tidewatch.forecast.generate import generate

UNSENT = {"columns", "empty", "header", "malformed"}
"""Reasons of lines that are no rows, and are not replayed."""
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


def live(values: list[bytes]) -> tuple[list[str | None], pa.Table]:
    """Why each record is none to the live forecaster, None where it is one; and ``SESSIONS`` of the others."""
    decoded = decode(log(list[Session | bytes](values)), Limits(), ENDED)
    reasons: list[str | None] = [None] * len(values)
    for reject in decoded.rejects:
        reasons[reject.row] = str(reject.reason)
    servers = [decoded.names[device].decode() for device in decoded.device.tolist()]
    return reasons, pa.table([servers, decoded.ts, *measured(decoded).T], schema=READ)


def test_batch_and_live_refuse_the_same_rows_for_the_same_reasons_and_read_the_others_alike(tmp_path: Path) -> None:
    """Every kind of dirt, once as a log and once replayed to ``server.sessions``."""
    truth = generate(SPEC, tmp_path / "log", workers=1, progress=lambda _, __: None).plain()
    archive = Archive(tmp_path / "log")
    values = [value for batch in archive.batches() for value in batch.values]
    reasons, sessions = live(values)
    rows, read = list[str | None](), list[pa.Table]()
    unsent = Counter[str]()
    for path in files(tmp_path / "log"):
        text = path.read_bytes()
        found = logs.read(logs.Block(text, 0, 1), str(path))
        of_line = dict(zip(found.rejects["line"].to_pylist(), found.rejects["reason"].to_pylist(), strict=True))
        lines = [of_line.get(number) for number in range(1, text.count(b"\n") + 1)]
        unsent += Counter(reason for reason in lines if reason in UNSENT)
        rows += [reason for reason in lines if reason not in UNSENT]
        read.append(found.sessions)

    assert set(truth["dirty"]) == set(KINDS)
    assert set(filter(None, rows)) == {
        "missing_field", "wrong_type", "not_finite", "out_of_range", "bad_timestamp", "swapped"
    }  # fmt: skip
    assert reasons == rows
    assert ordered(sessions) == ordered(pa.concat_tables(read))
    assert archive.tally.rows.total() == unsent.total() > 0


def ordered(table: pa.Table) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in table.schema.names])


@pytest.mark.parametrize(
    "text", ["1e300", "-0.5", "1e999", "NaN", "-inf", ".5", "+2", "05", " 3 ", "1_000", "0x1F", "N/A"]
)
@pytest.mark.parametrize("name", ["TotalLoad", "SubService_2_Load", "ConcurrentConnectionCounts"])
def test_batch_and_live_take_a_number_alike(tmp_path: Path, name: str, text: str) -> None:
    cells = dict.fromkeys(COLUMNS, "1") | {
        "SessionStart": "2024-01-01T10:00:00",
        "ServerIP": "10.0.0.1",
        "SessionEnd": "",
    }
    rows = "".join(",".join({**cells, **one}.values()) + "\n" for one in ({}, {name: text}))
    (tmp_path / "request.csv").write_text(rows)
    reasons, sessions = live([value for batch in Archive(tmp_path).batches() for value in batch.values])
    found = logs.read(logs.Block(rows.encode(), 0, 1), "request.csv")

    assert [reason for reason in reasons if reason] == found.rejects["reason"].to_pylist()
    assert sessions == found.sessions


def test_rejects_name_the_line(tmp_path: Path) -> None:
    generate(SPEC, tmp_path / "log", workers=1, progress=lambda _, __: None)
    words = ["load", "etl", "--in", str(tmp_path / "log"), "--out", str(tmp_path / "load"), "--json"]
    CliRunner().invoke(app, words, catch_exceptions=False)
    rejects = pq.read_table(tmp_path / "load" / "rejects")
    lines = {str(path): path.read_bytes().split(b"\n") for path in (tmp_path / "log").rglob("*.csv")}

    assert rejects.schema.names == REJECTS.names
    assert all(lines[row["file"]][row["line"] - 1] == row["value"] for row in rejects.to_pylist())
