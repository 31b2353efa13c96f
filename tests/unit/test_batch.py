"""Batch scoring gives row for row what the stream gives, however files and devices are cut."""

import csv
import gzip
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.errors import ConfigError, InputError, ModelError
from sinks.compare import Comparison, compare
from sinks.read import dataset
from stream.partition import Partition
from stream.records import Records
from tests import batches
from tests.batches import BROKEN, FAULT, MINUTE, START, live, readings, rows, train, write
from tidewatch.batch import shards
from tidewatch.batch.inputs import find
from tidewatch.batch.run import Request, prepare, score
from tidewatch.batch.spec import Choice, Format, Kind, Plan, Result, Span
from tidewatch.groups import Settings
from tidewatch.jobs import Cancelled, Jobs, Status
from tidewatch.places import Place

PROJECT = Path(__file__).parents[2]
Call = tuple[Settings, Path, Path]
"""Settings with a trained fleet, a recording of three files, and a folder for results."""


@pytest.fixture
def recorded(tmp_path: Path) -> Call:
    current = batches.settings(tmp_path)
    train(current)
    return current, write(tmp_path / "in", readings(), files=3), tmp_path / "out"


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the live stream gave of the same recording."""
    folder = tmp_path_factory.mktemp("live")
    current = batches.settings(folder)
    train(current)
    return live(write(folder / "in", readings()), current, folder / "out")


def done(current: Settings, request: Request, name: str | None = None, workers: int = 1) -> Status:
    status = score(current, request, prepare(current, request, name).id, workers=workers)
    assert status.state == "done", status
    return status


def same(left: Path, right: Path) -> Comparison:
    result = compare(left, right, tolerance=1e-9)
    assert result.same, result
    assert result.tables[0].left_rows > 0
    return result


def test_a_recording_scored_in_batch_is_row_for_row_what_the_stream_gave(recorded: Call, streamed: Path) -> None:
    current, path, out = recorded
    status = done(current, Request(str(path), str(out)))
    result = same(out, streamed)

    assert status.counts["windows"] == result.tables[0].left_rows
    assert status.counts["readings"] == len(readings())
    assert status.counts["scored"] == status.counts["windows"]
    assert status.counts["anomalies"] > 0


def test_alerts_of_a_batch_say_which_device_broke_and_when(recorded: Call) -> None:
    current, path, out = recorded
    done(current, Request(str(path), str(out)))
    alerts = list(rows(out, "alerts"))

    assert {alert["device_id"] for alert in alerts if alert["state"] == "firing"} == {BROKEN}
    assert (
        min(str(alert["since"]) for alert in alerts) >= str(np.datetime64(START + FAULT * MINUTE - 10_000, "ms"))[:10]
    )


def test_two_processes_give_what_one_gives(recorded: Call, streamed: Path) -> None:
    current, path, out = recorded
    done(current, Request(f"file://{path}", f"file://{out}"), workers=2)

    same(out, streamed)


@settings(max_examples=8)
@given(files=st.integers(1, 5), count=st.integers(1, 7), order=st.sampled_from(["time", "device", "none"]))
def test_any_cut_of_files_and_devices_in_any_order_gives_the_same_rows(
    files: int, count: int, order: str, streamed: Path
) -> None:
    table = readings()
    if order == "device":
        table = table.sort_by([("device_id", "ascending"), ("ts", "ascending")])
    elif order == "none":
        table = table.take(np.random.default_rng(count).permutation(len(table)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        current = batches.settings(folder, **{"batch.shards": count})
        train(current)
        done(current, Request(str(write(folder / "in", table, files)), str(folder / "out")))

        same(folder / "out", streamed)


def test_sorting_in_little_memory_gives_the_same_rows(
    recorded: Call, streamed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current, path, out = recorded
    shutil.rmtree(path)
    write(path, readings().take(np.random.default_rng(1).permutation(len(readings()))), files=2)
    monkeypatch.setattr("tidewatch.batch.run.MB", 4096)
    monkeypatch.setattr("tidewatch.batch.spool.ROWS", 300)
    status = done(current, Request(str(path), str(out)))

    assert status.counts["readings"] == len(readings())
    same(out, streamed)


def test_statistics_are_scored_without_windowing_again(recorded: Call, streamed: Path) -> None:
    current, _, out = recorded
    status = done(current, Request(str(streamed), str(out)))

    assert status.counts["readings"] == 0
    same(out, streamed)


def test_statistics_alone_count_the_readings_of_the_fullest_metric(recorded: Call, streamed: Path) -> None:
    current, path, out = recorded
    shutil.copytree(streamed / "statistics", path.parent / "only" / "statistics")
    done(current, Request(str(path.parent / "only"), str(out)))

    same(out, streamed)


def text(path: Path, table: pa.Table) -> None:
    pacsv.write_csv(table, path)


def narrow(path: Path, table: pa.Table) -> None:
    frame = table.to_pandas().melt(["ts", "device_id"], var_name="Sensor", value_name="Value").dropna()
    frame.sort_values("ts", kind="stable").rename(columns={"ts": "TS", "device_id": "Device"}).to_csv(path, index=False)


def lines(path: Path, table: pa.Table) -> None:
    with gzip.open(path, "wt") as file:
        for row in table.to_pylist():
            ts, device = row.pop("ts"), row.pop("device_id")
            values = {name: value for name, value in row.items() if value is not None}
            file.write(json.dumps({"device_id": device, "ts": ts, "values": values}) + "\n")


@pytest.mark.parametrize(
    ("name", "form"), [("readings.csv", text), ("narrow.csv", narrow), ("readings.jsonl.gz", lines)]
)
def test_every_format_gives_the_same_rows(
    name: str, form: Callable[[Path, pa.Table], None], recorded: Call, streamed: Path
) -> None:
    current, path, out = recorded
    shutil.rmtree(path)
    path.mkdir()
    form(path / name, readings())
    done(current, Request(str(path / name), str(out)))

    same(out, streamed)


def test_csv_has_a_row_for_each_window_device_and_sensor(recorded: Call, streamed: Path) -> None:
    current, path, out = recorded
    done(current, Request(str(path), str(out), formats=(Format.CSV,)))
    found = []
    for file in sorted((out / "csv").rglob("*.csv")):
        with file.open(newline="") as opened:
            assert opened.readline() == "TS,Device,Sensor,Val,Prediction\n"
            opened.seek(0)
            found += list(csv.DictReader(opened))
    expected = dataset(streamed, "statistics").to_table()
    odd = dataset(streamed, "predictions").to_table(filter=pc.field("anomaly"))

    assert len(found) == len(expected)
    assert {(row["Device"], row["TS"]) for row in found if row["Prediction"] == "1"} == {
        (device, end.strftime("%Y-%m-%dT%H:%M:%SZ"))
        for device, end in zip(odd["device_id"].to_pylist(), odd["window_end"].to_pylist(), strict=True)
    }
    assert sum(float(row["Val"]) for row in found) == pytest.approx(pc.sum(expected["mean"]).as_py(), rel=1e-12)
    assert not (out / "predictions").exists()


def test_windows_of_a_span_are_those_of_the_whole(recorded: Call, streamed: Path) -> None:
    current, path, out = recorded
    since, until = START + 7 * MINUTE + 3_000, START + 11 * MINUTE
    done(current, Request(str(path), str(out), span=Span(since, until)))
    ends = pc.field("window_end").cast(pa.int64())
    wanted = dataset(streamed, "predictions").to_table(filter=(ends >= since) & (ends < until))
    keys = [("device_id", "ascending"), ("window_start", "ascending")]
    columns = ["device_id", "window_start", "count", "decision", "score", "severity", "anomaly"]
    found = dataset(out, "predictions").to_table()

    assert found.select(columns).sort_by(keys).to_pylist() == wanted.select(columns).sort_by(keys).to_pylist()
    assert len(found) > 0


def test_only_the_chosen_devices_are_scored_and_one_that_is_not_there_is_told(recorded: Call) -> None:
    current, path, out = recorded
    status = done(current, Request(str(path), str(out), devices=("pump-*,fan-0001", "ghost-1")))

    assert set(dataset(out, "predictions").to_table()["device_id"].to_pylist()) == {
        "pump-0001",
        "pump-0002",
        "fan-0001",
    }
    assert status.failures == 1
    assert [row["name"] for row in status.results if row["status"] == "failed"] == ["ghost-1"]


def test_devices_may_be_listed_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "names").write_text("a\n# not this\n\nb-*\n")

    assert Choice.of([f"@{tmp_path / 'names'}", "c"]).patterns == ("a", "b-*", "c")
    with pytest.raises(ConfigError, match="cannot be read"):
        Choice.of(["@nowhere"])


def test_a_damaged_file_is_told_and_the_others_are_scored(recorded: Call, streamed: Path) -> None:
    current, path, out = recorded
    (path / "part-9.parquet").write_bytes(b"PAR1 torn")
    status = done(current, Request(str(path), str(out)))

    assert status.failures == 1
    assert [Path(row["name"]).name for row in status.results if row["status"] == "failed"] == ["part-9.parquet"]
    same(out, streamed)


def test_files_that_could_not_be_read_are_tried_again_by_a_later_run(recorded: Call, streamed: Path) -> None:
    current, path, out = recorded
    whole = {file: file.read_bytes() for file in path.iterdir()}
    for file in whole:
        file.write_bytes(b"torn")
    request = Request(str(path), str(out))
    with pytest.raises(InputError, match="No file of"):
        score(current, request, prepare(current, request, "again").id, workers=1)
    for file, content in whole.items():
        file.write_bytes(content)
    done(current, request, "again")

    same(out, streamed)


def test_a_device_that_cannot_be_scored_is_told_and_the_others_are(
    recorded: Call, streamed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current, path, out = recorded
    feed = Partition.feed

    def stumble(self: Partition, records: Records) -> object:
        if b"fan-0001" in records.keys:
            raise ZeroDivisionError("a fan")
        return feed(self, records)

    monkeypatch.setattr(Partition, "feed", stumble)
    status = done(current, Request(str(path), str(out)))
    failed = [(row["what"], row["name"], row["reason"]) for row in status.results if row["status"] == "failed"]
    found = dataset(out, "predictions").to_table()
    others = dataset(streamed, "predictions").to_table(filter=pc.field("device_id") != "fan-0001")

    assert failed == [("device", "fan-0001", "ZeroDivisionError: a fan")]
    assert len(found) == len(others)


def test_rejects_are_kept_with_reason_and_original(recorded: Call) -> None:
    current, path, out = recorded
    shutil.rmtree(path)
    path.mkdir()
    stamps = [START, START, "yesterday", START + 1000, 7_200_000_000_000]
    bad = [f"{stamp},{device},{value}" for stamp, device, value in zip(stamps, "aaa a", "12345", strict=True)]
    (path / "bad.csv").write_text("ts,device,x\n" + "\n".join([*bad, "1,2,3,4", f"{START + 2000},a,"]) + "\n")
    status = done(current, Request(str(path), str(out)))
    found = {(str(row["reason"]).partition(":")[0], bytes(row["value"])) for row in rows(out, "rejects")}  # type: ignore[call-overload]
    reasons = {reason for reason, _ in found}

    assert reasons == {"duplicate", "bad_timestamp", "malformed", "no_values", "future"}
    assert ("malformed", b"1,2,3,4") in found
    assert ("bad_timestamp", b'{"ts":"yesterday","device":"a","x":"3"}') in found
    assert status.counts["rejects"] == len(found)


def test_a_job_that_is_done_is_not_done_again(recorded: Call) -> None:
    current, path, out = recorded
    request = Request(str(path), str(out))
    first = done(current, request, "once")
    again = score(current, request, prepare(current, request, "once").id)

    assert again.runs == first.runs == 1


def test_a_job_is_not_taken_up_for_something_else(recorded: Call) -> None:
    current, path, out = recorded
    prepare(current, Request(str(path), str(out)), "mine")

    with pytest.raises(ConfigError, match=r"'mine' was begun with devices \[\], not \['a'\]"):
        prepare(current, Request(str(path), str(out), devices=("a",)), "mine")


def test_a_job_that_is_stopped_leaves_nothing_and_goes_on_where_it_was(
    recorded: Call, streamed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current, path, out = recorded
    request = Request(str(path), str(out))
    name = prepare(current, request).id
    calls = 0

    def stop() -> bool:
        return calls >= 1

    def count(words: str, at: int, _: int) -> None:
        nonlocal calls
        calls = at if words == "scoring shards" else 0

    with pytest.raises(Cancelled):
        score(current, request, name, workers=1, stop=stop, progress=count)

    assert Jobs(current.jobs.folder).get(name).state == "cancelled"
    assert not out.exists()
    scored: list[int] = []
    whole = shards.score

    def noted(plan: Plan, task: tuple[int, shards.Runs, bool]) -> Result:
        scored.append(task[0])
        return whole(plan, task)

    monkeypatch.setattr("tidewatch.batch.run.shards.score", noted)
    status = done(current, request, name)

    assert len(scored) == 1
    assert status.runs == 2
    same(out, streamed)


def test_a_batch_that_is_cancelled_while_it_writes_takes_its_files_back(recorded: Call) -> None:
    current, path, out = recorded
    request = Request(str(path), str(out))
    name = prepare(current, request).id
    seen: list[str] = []

    with pytest.raises(Cancelled):
        score(
            current, request, name, workers=1,
            stop=lambda: seen[-1:] == ["writing files"], progress=lambda words, *_: seen.append(words),
        )  # fmt: skip

    assert not list(out.rglob("*.*"))


def test_a_batch_killed_at_work_finishes_the_rest_only(tmp_path: Path, streamed: Path) -> None:
    current = batches.settings(tmp_path)
    train(current)
    path = write(tmp_path / "in", readings(), files=6)
    flags = [f"--set={name}={value}" for name, value in _given(tmp_path).items()]
    words = [sys.executable, "-m", "tidewatch", *flags, "score", f"--in={path}", f"--out={tmp_path / 'out'}"]
    words += ["--job-id=killed", "--workers=2"]
    receipts = tmp_path / "jobs" / "killed" / "work" / "read"
    with subprocess.Popen(words, cwd=PROJECT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while not list(receipts.glob("*.json")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)

    status = Jobs(current.jobs.folder).get("killed")
    assert status.state == "lost"
    assert not (tmp_path / "out").exists()
    before = {file.name: file.stat().st_mtime_ns for file in receipts.glob("*.json")}
    assert before
    again = subprocess.run(words, cwd=PROJECT, check=False, capture_output=True, text=True)

    assert again.returncode == 0, again.stderr
    assert (
        f"{len(before)} of 6 were done before" in (tmp_path / "jobs" / "killed" / "log").read_text() or len(before) == 6
    )
    same(tmp_path / "out", streamed)


def _given(folder: Path) -> dict[str, object]:
    return {
        "jobs.folder": folder / "jobs",
        "worker.fleet": folder / "fleet.arrow",
        "batch.shards": 3,
        "following.warmup": 20,
    }


def test_what_the_output_holds_is_said_last(recorded: Call) -> None:
    current, path, out = recorded
    status = done(current, Request(str(path), str(out)), "job-1")
    manifest = json.loads((out / "_jobs" / "job-1.json").read_text())
    names = {str(file.relative_to(out)) for file in out.rglob("*.parquet")}

    assert {file["path"] for file in manifest["files"]} == names
    assert manifest["counts"]["windows"] == status.counts["windows"]
    assert not list(out.rglob("*.tmp"))


def test_an_output_within_the_input_or_the_folder_of_the_sink_is_refused(recorded: Call) -> None:
    current, path, out = recorded
    with pytest.raises(ConfigError, match="lies within --in"):
        prepare(current, Request(str(path), str(path / "out")))
    out.mkdir()
    (out / "_tidewatch.json").write_text("{}")
    request = Request(str(path), str(out))

    with pytest.raises(ConfigError, match="folder of the Parquet sink"):
        score(current, request, prepare(current, request).id)


def test_what_holds_nothing_to_score_is_refused_in_words(recorded: Call) -> None:
    current, path, out = recorded
    (path.parent / "empty").mkdir()
    (path.parent / "empty" / "notes.md").write_text("hello")
    for source, error, words in (
        (path.parent / "nowhere", InputError, "There is nothing at"),
        (path.parent / "empty", InputError, "No file of"),
    ):
        request = Request(str(source), str(out))
        with pytest.raises(error, match=words):
            score(current, request, prepare(current, request).id)
    request = Request(str(path), str(out), devices=("nobody-*",))
    with pytest.raises(InputError, match="of these devices and times"):
        score(current, request, prepare(current, request).id, workers=1)
    request = Request(str(path), str(out), fleet=path / "part-0.parquet")
    with pytest.raises(ModelError):
        score(current, request, prepare(current, request).id)


def test_what_a_folder_holds_is_found_out(recorded: Call, streamed: Path) -> None:
    _, path, _ = recorded
    single = next((streamed / "statistics").rglob("*.parquet"))

    assert find(Place.of(str(path)))[0] is Kind.READINGS
    assert find(Place.of(str(streamed)))[0] is Kind.STATISTICS
    assert find(Place.of(str(streamed / "statistics")))[0] is Kind.STATISTICS
    assert find(Place.of(str(single)))[0] is Kind.STATISTICS
    assert len(find(Place.of(f"{path}/part-[01]*"))[1]) == 2
