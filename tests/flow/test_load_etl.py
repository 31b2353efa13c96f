"""`tidewatch load etl`: dirty logs in, hours and features out; the same on DuckDB and Spark, whole or not at all."""

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from producers.sessions import COLUMNS, ServerFleet, to_csv
from producers.synthesis import LogSpec
from scorers.errors import ConfigError, InputError, UnavailableError
from scorers.forecast.features import FeatureSpec, features
from scorers.forecast.schema import FEATURES, HOUR_MS, HOURS
from tidewatch.cli import app
from tidewatch.forecast import local, pieces
from tidewatch.forecast.etl import PARTS, Manifest, Request, Runner, etl, manifest
from tidewatch.forecast.generate import generate
from tidewatch.forecast.spec import Choice
from tidewatch.groups import Settings
from tidewatch.jobs import Cancelled
from tidewatch.locks import lock
from tidewatch.servers import JAVA, java_version
from tidewatch.settings import load, override

needs_java = pytest.mark.skipif(java_version() < JAVA, reason=f"Spark needs Java {JAVA}")
START = 1_706_011_200_000
"""2024-01-23T12:00:00Z: twelve days reach into February."""
SPARK = {
    "spark.driver.memory": "2g",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
}
"""For few rows: planning and compiling less takes a third of the time."""
FEBRUARY = START + 204 * HOUR_MS
JUNK = [
    (b",".join(name.encode() for name in COLUMNS), "header"),
    (b"", "empty"),
    (b"--- rotated ---", "columns"),
    (b"caf\xe9,", "malformed"),
    (b"a,2024-02-01T00:00:00Z,,1,1,,,,1,1,1,1,1,1,heavy,10.0.0.0,c", "wrong_type"),
    (b"a,2024-02-01T00:00:00Z,2024-01-01,1,1,,,,1,1,1,1,1,1,1,10.0.0.0,c", "swapped"),
    (b"a,2024-02-01T00:00:00Z,,1,1,,,,1,1,1,1,1,1,-1,10.0.0.0,c", "out_of_range"),
    (b"a,,,1,1,,,,1,1,1,1,1,1,1,10.0.0.0,c", "missing_field"),
]
BLANK = b"a,2024-02-01 00:00:00,,,,,,,,,,,,,1,10.0.0.0,c"


def logs(folder: Path) -> Path:
    """Twelve days of three servers and dirt, in months; one file is packed."""
    fleet = ServerFleet(3, rate=0.0008, interval_ms=60_000, start=START).build()
    rows = to_csv(fleet.columns(fleet.sessions(12 * 24 * 60)[0])).splitlines()
    random = np.random.default_rng(1)
    for junk in [junk for junk, _ in JUNK] + [BLANK]:
        for _ in range(3):
            rows.insert(int(random.integers(len(rows))), junk)
    # the second file begins amid an hour, even amid its busiest five minutes as like as not
    middle = len(rows) // 2
    for name, part in (("2024/01/a/request.csv", rows[:middle]), ("2024/02/request.csv.gz", rows[middle:])):
        (folder / name).parent.mkdir(parents=True)
        text = b"\r\n".join(part)
        (folder / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    (folder / "README").write_text("not a log")
    return folder


def settings(folder: Path, **more: Any) -> Settings:
    changes = {"spark.master": "local[2]", "spark.log": folder / "spark.log", "load.timezone": "America/New_York"}
    options = {f"spark.options.{name}": value for name, value in SPARK.items()}
    return override(load({}, environ={}), changes | options | more).settings


def made(folder: Path, **more: Any) -> Manifest:
    """What becomes of the logs in ``folder/logs``."""
    target = folder / more.pop("name", "out")
    return etl(settings(folder), Request((str(folder / "logs"),), target, **more))


def table(folder: Path, part: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((folder / part).glob("*.parquet"))])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    logs(tmp_path / "logs")
    return tmp_path


def test_dirty_logs_become_hours_and_features(folder: Path) -> None:
    told = made(folder)
    hours, found = table(folder / "out", "hours"), table(folder / "out", "features")

    assert (hours.schema, found.schema) == (HOURS, FEATURES)
    assert told["rejects"] == dict.fromkeys(sorted(reason for _, reason in JUNK), 3)
    assert told["blank"] == 3 * 7
    assert told["lines"] == told["sessions"] + 3 * len(JUNK)
    assert (told["hours"], told["features"], told["servers"]) == (len(hours), len(found), 3)
    assert told == manifest(folder / "out") == json.loads((folder / "out/etl.json").read_bytes())
    assert sorted(path.name for path in (folder / "out/hours").iterdir()) == ["2024-01.parquet", "2024-02.parquet"]
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["_etl.lock", "etl.json", *sorted(PARTS)]
    # files of months are the features of the whole
    whole = features(hours, hours.select(["server", "hour"]), FeatureSpec(**told["spec"]))
    assert found.sort_by([("server", "ascending"), ("hour", "ascending")]) == whole


def test_what_the_generator_spoils_is_counted(tmp_path: Path) -> None:
    spec = LogSpec(servers=5, days=3, sessions=20_000, dirty=0.05, start=FEBRUARY)
    truth = generate(spec, tmp_path / "logs", workers=1, progress=lambda _, __: None)
    told = etl(settings(tmp_path), Request((str(tmp_path / "logs"),), tmp_path / "out"))
    spoilt = truth.dirty
    missing = sum(spoilt[f"blank:{name}"] for name in ("SessionStart", "ServerIP", "TotalLoad"))
    blank = sum(number for kind, number in spoilt.items() if kind.startswith("blank:")) - missing
    rejects = told["rejects"]

    assert told["lines"] == truth.rows
    assert (rejects["swapped"], rejects["header"]) == (spoilt["swapped"], spoilt["header"])
    # text in place of a number may be a way to write nothing
    assert rejects["missing_field"] >= missing
    assert told["blank"] >= blank
    whole = truth.rows - truth.dirty.total()
    assert whole + blank <= told["sessions"] <= whole + blank + told["blank"]


def test_what_is_put_aside_can_be_found_again(folder: Path) -> None:
    made(folder)
    rows = table(folder / "out", "rejects").to_pylist()

    for row in rows:
        path = Path(row["file"])
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert text.splitlines()[row["line"] - 1] == row["value"]
        assert text[row["offset"] :].startswith(row["value"])
    assert len(rows) == 3 * len(JUNK)


def test_a_sample_of_servers_is_that_part_of_the_whole(folder: Path) -> None:
    made(folder)
    told = made(folder, name="sample", choice=Choice(frozenset({"10.0.0.1"})))

    for part in ("hours", "features"):
        whole = table(folder / "out", part)
        assert table(folder / "sample", part) == whole.filter(pc.field("server") == "10.0.0.1")
    assert told["servers"] == 1


def test_a_log_cut_in_time_ends_with_a_whole_hour(folder: Path) -> None:
    until = START + 100 * HOUR_MS + 1
    told = made(folder, choice=Choice(since=START + 30 * HOUR_MS, until=until))
    hours = table(folder / "out", "hours")["hour"]

    assert (told["end"], pc.max(hours).as_py()) == (until - 1, START + 99 * HOUR_MS)
    assert told["start"] == pc.min(hours).as_py() == START + 30 * HOUR_MS


def test_little_memory_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = made(folder)
    monkeypatch.setattr(local, "STRETCH", 50)
    monkeypatch.setattr(local, "SUMMED", 100)
    monkeypatch.setattr(local, "LOT_ROW", 10**8)
    again = made(folder, name="again", memory="100MB")

    assert again["fingerprint"] == told["fingerprint"]


@needs_java
def test_spark_gives_what_duckdb_gives_to_the_bit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # one month alone, for its queries are what takes time
    choice = Choice(frozenset({"10.0.0.0", "10.0.0.2"}), START + 1, FEBRUARY)
    ours = made(folder, choice=choice)
    monkeypatch.setattr(pieces, "PIECE", 50_000)
    theirs = made(folder, name="spark", engine=Runner.SPARK, choice=choice)

    own = {"engine", "seconds"}
    assert {k: v for k, v in theirs.items() if k not in own} == {k: v for k, v in ours.items() if k not in own}
    for part in ("hours", "features"):
        assert table(folder / "spark", part).cast(table(folder / "out", part).schema) == table(folder / "out", part)
    aside, same = (table(folder / name, "rejects").drop_columns("line") for name in ("spark", "out"))
    assert aside.to_pylist() == same.to_pylist()


def test_hours_without_any_session_are_told_with_what_to_do(tmp_path: Path) -> None:
    def line(hour: int) -> str:
        day, hour = divmod(hour, 24)
        return f"a,2024-03-{day + 1:02}T{hour:02}:10:00Z,,,,,,,,,,,,,1,10.0.0.{hour % 2},c"

    log = tmp_path / "request.csv"
    log.write_text("\n".join(line(hour) for hour in (*range(5), *range(9, 20))))
    words = ["load", "etl", "--in", str(log), "--out", str(tmp_path / "out")]
    first = CliRunner().invoke(app, words)
    span = "2024-03-01T05:00/2024-03-01T09:00"

    assert first.exit_code == 0, first.output
    assert "no server had a session from 2024-03-01 05:00:00 to 2024-03-01 09:00:00 UTC" in first.output
    assert f"--exclude {span}" in first.output
    again = CliRunner().invoke(app, [*words, "--exclude", span, "--json"])
    told = json.loads(again.stdout)
    assert told["silent"] == []
    hours = table(tmp_path / "out", "hours").filter(pc.field("server") == "10.0.0.0")
    assert [(hour // HOUR_MS) % 24 for hour in hours["hour"].to_pylist()] == [*range(5), *range(9, 19)]


def test_who_stops_it_leaves_what_was_there(folder: Path) -> None:
    before = made(folder)

    def stop(stage: str, _: int, __: int) -> None:
        if stage == "months of features":
            raise Cancelled

    with pytest.raises(Cancelled):
        etl(settings(folder), Request((str(folder / "logs/2024/01"),), folder / "out"), stop)

    assert manifest(folder / "out") == before
    assert len(table(folder / "out", "hours")) == before["hours"]
    assert not list((folder / "out").glob("_etl-*"))


def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "request.csv").write_bytes((BLANK + b"\n") * 300_000)
    words = ["load", "etl", "--in", str(tmp_path / "request.csv"), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "tidewatch", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not list(tmp_path.glob("out/_etl-*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=60)

    assert (process.returncode, out) == (130, b"")
    assert b"is as it was" in told
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["_etl.lock"]


def test_a_result_takes_the_place_of_the_one_before(folder: Path) -> None:
    made(folder)
    (folder / "out/_etl-left-by-a-kill").mkdir()
    (folder / "out/models").mkdir()
    told = etl(settings(folder), Request((str(folder / "logs/2024/01"),), folder / "out"))

    assert len(table(folder / "out", "hours")) == told["hours"]
    assert sorted(path.name for path in (folder / "out/hours").iterdir()) == ["2024-01.parquet"]
    assert (folder / "out/models").exists()
    assert not list((folder / "out").glob("_etl-*"))


def test_one_process_at_a_time_writes_to_a_folder(folder: Path) -> None:
    with lock(folder / "out/_etl.lock"), pytest.raises(UnavailableError, match="Another process"):
        made(folder)


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"choice": Choice(frozenset({"nobody"}))}, InputError, "no session of nobody"),
        ({"choice": Choice(until=START - HOUR_MS)}, InputError, "between --from and --to"),
        ({"choice": Choice(until=START + HOUR_MS - 1)}, InputError, "less than one whole hour"),
        ({"memory": "plenty"}, ConfigError, "--memory"),
    ],
)
def test_a_request_that_finds_nothing_says_why(folder: Path, more: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        made(folder, **more)


def test_loads_beyond_64_bits_are_refused_and_not_rounded(tmp_path: Path) -> None:
    line = b"a,2024-02-01T%02d:00:00Z,,,,,,,,,,,,,1e9,10.0.0.0,c\n"
    (tmp_path / "request.csv").write_bytes(line % 1 * 9_300 + line % 3)

    with pytest.raises(InputError, match=r"more than 9\.2e12"):
        etl(settings(tmp_path), Request((str(tmp_path / "request.csv"),), tmp_path / "out"))


def test_what_is_no_log_is_told(tmp_path: Path) -> None:
    (tmp_path / "junk.csv").write_text("no\nlog\n")
    (tmp_path / "torn.csv.gz").write_bytes(gzip.compress(b"a,b\n" * 1000)[:-20])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("nothing")

    for name, words in (
        ("junk.csv", "2 columns"),
        ("torn.csv.gz", "unpacked"),
        ("empty", r"no \.csv"),
        ("gone", "nothing"),
    ):
        with pytest.raises(InputError, match=words):
            etl(settings(tmp_path), Request((str(tmp_path / name),), tmp_path / "out"))
    with pytest.raises(InputError, match="tidewatch load etl"):
        manifest(tmp_path / "out")
