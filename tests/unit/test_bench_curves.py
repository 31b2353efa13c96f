"""The bench of curves: its points, when a load is too much, what is told."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from bench import charts, curves
from bench.__main__ import app
from bench.arena import PARTITIONS
from bench.core import records, runs
from bench.curves import TITLES, Ask, document, facts, points, saturation, show
from bench.job import Job
from bench.measure import Run
from bench.runners import ours
from bench.steady import medians
from producers.batch import Batch
from stream.app import sources
from stream.contracts import Score, Topics
from stream.message import Message, singly
from stream.partition import Partition, StreamSpec
from stream.window import WindowSpec

TOPICS = Topics()
KEPT_UP = {"ended": False, "missing": 0, "score_p50_s": [0.9, 1.1, 0.8], "sender_late_s": 0.02}
MACHINE = {"cores": 2, "load": (0.5, 0.5, 0.5), "python": "3.11", "kafka": "Apache Kafka 4"}


def load(rate: int, saturated: str | None = None) -> dict[str, Any]:
    waits = {"p50": 0.9, "p99": 1.5, "max": 1.6}
    return {
        "at": rate, "score_s": waits, "alert_s": {} if saturated else waits, "peak_mb": 700.0,
        "cpu_s_per_million": 20.0, "sender_late_s": 0.1, "saturated": saturated,
    }  # fmt: skip


def result() -> dict[str, Any]:
    run = Run(1_000_000, 100_000, 5.0, 2.0, 4.0, 2.0, 9.0, 600.0)
    slow = Run(500_000, 100_000, 5.0, 2.0, 4.0, None, 9.0, 600.0)
    found = {
        "latency": [load(2_000), load(40_000, "the sender was late by 3.0 s")],
        "batches": [{"at": 10, "readings": 1_000, "readings_per_s": 50_000, "us_per_reading": 20.0}],
        "windows": [facts("10 s / 10 s", run), facts("1 s / 1 s", slow)],
        "metrics": [facts(1, run), facts(8, slow)],
    }
    return document(Ask(list(found)), found, MACHINE)


def closed(job: Job, window: WindowSpec) -> list[Score]:
    """The windows that the stream's core makes of a job."""
    core = Partition(sources(TOPICS)[0], 0, StreamSpec(window=window), TOPICS)
    messages: list[Message] = []
    for batch in [*job.batches(), job.last()]:
        messages += singly(core.feed(records(batch, TOPICS.readings, core.next_offset)))
    return [msgspec.json.decode(message.value, type=Score) for message in messages if message.topic == TOPICS.scores]


@pytest.mark.parametrize(("size", "hop"), [*curves.WINDOWS, (30, 7), (120, 60)])
@pytest.mark.parametrize("windows", [1, 9])
def test_the_windows_a_job_makes_are_counted_beforehand(size: int, hop: int, windows: int) -> None:
    job, window = Job(windows, 3, 1), WindowSpec(size * 1000, hop * 1000)
    scores = closed(job, window)

    assert len(scores) == job.count(window)
    assert len({(score.device_id, score.window_start) for score in scores}) == len(scores)


def test_windows_of_the_default_are_those_of_the_job() -> None:
    job = Job(7, 5, 2)

    assert job.count(WindowSpec()) == job.results


def test_a_curve_changes_one_thing() -> None:
    found = {curve: points(curve, 1_000_000) for curve in TITLES}

    assert [point.job.metrics for point in found["metrics"]] == [point.at for point in found["metrics"]]
    assert [point.partitions for point in found["partitions"]] == [point.at for point in found["partitions"]]
    assert [point.runner for point in found["workers"]] == [ours.EXACTLY_ONCE, ours.TWO_WORKERS]
    assert len({point.window for point in found["windows"]}) == len(curves.WINDOWS)
    assert found["batches"] == found["latency"] == []
    for curve in ("metrics", "windows", "workers"):
        assert {point.partitions for point in found[curve]} == {PARTITIONS}
    for curve in ("windows", "partitions", "workers"):
        assert {point.job.metrics for point in found[curve]} == {curves.METRICS}


@pytest.mark.parametrize(("curve", "at"), [("metrics", 8), ("windows", "10 s / 10 s"), ("partitions", 8)])
def test_every_curve_holds_the_usual_point(curve: str, at: int | str) -> None:
    (point,) = [point for point in points(curve, 1_000_000) if point.at == at]

    assert point.job == Job.of(1_000_000, curves.DEVICES, curves.METRICS)
    assert (point.partitions, point.window, point.runner) == (PARTITIONS, WindowSpec(), ours.EXACTLY_ONCE)


def test_points_that_cost_more_have_fewer_readings() -> None:
    for curve in ("metrics", "windows"):
        readings = [point.job.readings for point in points(curve, 1_000_000)]

        assert readings == sorted(readings, reverse=True)
        assert readings[-1] < readings[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"score_p50_s": [0.9, 4.0, 2.8]}, None),
        ({"score_p50_s": [0.9, 1.9, 3.0]}, "grew from 0.9 to 3.0 s"),
        ({"missing": 1_200, "ended": True}, "the worker ended"),
        ({"missing": 1_200}, "1,200 windows had not come"),
        ({"missing": 1_200, "score_p50_s": []}, "1,200 windows had not come"),
        ({"sender_late_s": 1.5}, "the sender was late by 1.5 s"),
    ],
)
def test_a_load_is_too_much_when_the_wait_grows_or_windows_stay_away(change: Any, reason: str | None) -> None:
    told = saturation(KEPT_UP | change)

    assert told == reason if reason is None else reason in (told or "")


def test_rates_rise_up_to_the_first_that_is_too_much() -> None:
    tried = []

    def attempt(rate: int) -> dict[str, Any]:
        tried.append(rate)
        return load(rate, "too much" if rate >= 5_000 else None)

    rows = list(curves.climb([40_000, 2_000, 5_000, 4_000], attempt))

    assert tried == [row["at"] for row in rows] == [2_000, 4_000, 5_000]


def test_medians_are_told_by_the_window() -> None:
    assert medians([1.0, 2.0, 9.0, 4.0, 5.0, 6.0, 7.0], 3) == [2.0, 5.0, 7.0]
    assert medians([], 3) == []


def test_runs_hold_every_record_once() -> None:
    whole = Batch([b"a", b"b", b"c"], [b"1", b"2", b"3"], Job(1, 3, 1).block(0).ts[0])
    fed = runs(whole, 2)

    assert [len(run) for run in fed] == [2, 1]
    assert [value for run in fed for value in run.values] == [b"1", b"2", b"3"]
    assert [offset for run in fed for offset in run.offsets.tolist()] == [0, 1, 2]


def test_the_document_tells_curves_in_their_order_and_shares_of_the_fastest() -> None:
    told = result()

    assert list(told["curves"]) == ["metrics", "windows", "batches", "latency"]
    assert [row["ratio"] for row in told["curves"]["metrics"]] == [1.0, 0.5]
    assert told["curves"]["metrics"][0]["readings_per_s"] == 200_000
    assert msgspec.json.decode(msgspec.json.encode(told))["machine"]["cores"] == 2


def test_there_is_a_table_for_each_curve(capsys: pytest.CaptureFixture[str]) -> None:
    show(result())
    out = capsys.readouterr().out

    for title in (TITLES["metrics"], TITLES["windows"], TITLES["batches"], TITLES["latency"]):
        assert title in out
    assert "200,000" in out
    assert "the sender was late by 3.0 s" in out


@pytest.mark.parametrize(("name", "begins"), [("chart.png", b"\x89PNG"), ("chart.svg", b"<?xml")])
def test_every_curve_has_its_panel(tmp_path: Path, name: str, begins: bytes) -> None:
    charts.curves(result(), tmp_path / name)

    assert (tmp_path / name).read_bytes().startswith(begins)


def test_an_unknown_curve_is_refused_by_name() -> None:
    told = CliRunner().invoke(app, ["curves", "--only", "nothing"], env={"COLUMNS": "200"})

    assert told.exit_code == 2
    assert "'nothing' is no curve; there are metrics, windows" in told.output
