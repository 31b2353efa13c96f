"""`tidewatch load train`, `forecast` and `backtest`: what they say, keep and refuse, and with which code they end."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from scorers.errors import ConfigError, ForecasterFileError, InputError, TidewatchError
from scorers.forecast import fit, pack
from scorers.forecast.calendar import FeatureSpec, calendar
from scorers.forecast.issue import FORECASTS
from scorers.forecast.metrics import better
from scorers.forecast.naive import RIVALS
from scorers.forecast.schema import CALENDAR, HOUR_MS
from tests.loads import DAY_MS, START, folder, hours
from tests.teaching import FILE, SMALL, made, place, registry, run, trained  # noqa: F401 - fixtures
from tidewatch.cli import EXIT_CODES, main
from tidewatch.forecast.backtest import Backtest
from tidewatch.forecast.page import write

Capture = pytest.CaptureFixture[str]
LOAD = Path("var/load")
END = START + 28 * DAY_MS


@pytest.fixture
def unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No registry, which takes longer than all else."""
    monkeypatch.setenv("TIDEWATCH_MODELS__REGISTRY", "")


def test_a_training_is_recorded_and_put_in_force() -> None:
    told = trained()
    version = registry().champion()

    assert told["promoted"]
    assert all(told["test"]["accuracy"] > told["baselines"][name]["accuracy"] for name in RIVALS)
    assert version is not None
    metrics, params = registry().metrics(version)
    for side in ("train", "test"):
        assert {f"{side}_{name}" for name in ("accuracy", "precision", "recall", "f1", "f1_high")} <= set(metrics)
    assert metrics["test_rows"] == sum(told["labels"]["test"]) == told["rows"]["test"]
    assert params["model"] == told["model"]
    assert params["thresholds"] == "100, 400"
    assert pack.load(FILE).version == told["version"]


def test_features_and_labels_of_the_test_are_those_after_the_split() -> None:
    split = START + 20 * DAY_MS
    told = trained("--model", "boosting", "--split", str(split))
    facts = pack.load(FILE).facts

    assert facts["until"] <= told["split"] == split
    assert facts["rows"] == told["rows"]["training"]


def test_a_model_no_better_than_the_one_in_force_is_refused_unless_forced() -> None:
    first = trained("--model", "boosting")
    code, shown = run("load", "train", "--model", "boosting")

    assert code == 1
    assert "no better than the one in force" in " ".join(shown.split())
    assert pack.load(FILE).version == first["version"]
    assert [version.aliases for version in registry().versions()] == [("challenger",), ("champion",)]
    forced = trained("--model", "boosting", "--force")
    assert forced["promoted"]
    assert pack.load(FILE).version == forced["version"]


def test_a_refit_learns_from_all_hours_and_keeps_the_figures_of_the_model_tested() -> None:
    plain = trained("--model", "boosting")
    told = trained("--model", "boosting", "--refit", "--force")
    kept, rows = pack.load(FILE), pq.read_table("var/load/features")
    version = registry().champion()
    teaching = fit.Teaching((100.0, 400.0), FeatureSpec("UTC", START), kept.version)
    whole = fit.fit(rows, SMALL, teaching)

    assert (kept.predict(rows) == whole.predict(rows)).all()
    assert [told[name] for name in ("test", "rows", "importance")] == [
        plain[name] for name in ("test", "rows", "importance")
    ]
    assert told["refit"]["rows"] == len(rows) == sum(told["rows"].values())
    assert kept.facts["until"] == told["refit"]["until"] == END > told["split"]
    assert version is not None
    metrics, params = registry().metrics(version)
    assert metrics["test_rps"] == plain["test"]["rps"]
    assert (params["refit"], params["until"]) == ("True", str(END))
    assert plain["refit"] is None


@pytest.mark.usefixtures("unrecorded")
def test_a_refit_keeps_the_quantiles_of_the_training_part() -> None:
    words = ("--model", "boosting", "--quantiles", "0.5,0.9", "--split", str(START + 20 * DAY_MS))
    plain, told = trained(*words), trained(*words, "--refit", "--force")

    assert told["thresholds"] == plain["thresholds"] == list(pack.load(FILE).thresholds)


@pytest.mark.usefixtures("unrecorded")
def test_a_forecaster_in_force_that_has_learned_from_the_test_is_not_judged_by_it() -> None:
    first = trained("--model", "boosting", "--refit")
    code, shown = run("load", "train", "--model", "boosting")
    told = trained("--model", "boosting")

    assert code == 1
    assert "learned from hours up to 2024-01-29 00:00:00 UTC" in " ".join(shown.split())
    assert "load etl" in shown
    assert told["contest"] is None
    assert "fewer than 48 hours of the test are later" in told["reasons"][0]
    assert pack.load(FILE).version == first["version"]


@pytest.mark.usefixtures("unrecorded")
def test_forecasters_are_compared_on_hours_that_neither_learned_from(tmp_path: Path) -> None:
    trained("--model", "boosting", "--refit")
    champion = pack.load(FILE)
    more = folder(tmp_path / "more", hours(days=33))
    rows = pq.read_table(more / "features")
    later = rows.filter(pc.greater_equal(rows["hour"], END))
    split = START + 24 * DAY_MS
    words = ("--model", "boosting", "--features", str(more), "--split", str(split))
    told = trained(*words)
    shown = " ".join(run("load", "train", *words)[1].split())

    assert told["contest"]["since"] == END
    assert told["contest"]["rows"] == len(later) < told["rows"]["test"]
    assert told["contest"]["champion"]["rps"] == fit.judged(champion, later).rps
    before = rows.filter(pc.less(rows["hour"], split))
    challenger = fit.fit(before, SMALL, fit.Teaching((100.0, 400.0), FeatureSpec("UTC", START), "v2"))
    assert told["contest"]["challenger"]["rps"] == fit.judged(challenger, later).rps
    assert "both are compared on" in shown


@pytest.mark.usefixtures("unrecorded")
def test_hours_left_out_leave_enough_or_none_are_compared() -> None:
    """A day of unseen hours is too few where others were left out, and enough where it is all of the test."""
    trained("--model", "boosting", "--split", str(END - DAY_MS), "--force")

    assert trained("--model", "boosting", "--split", str(END - DAY_MS))["contest"]["since"] == END - DAY_MS
    assert trained("--model", "boosting", "--split", str(END - 3 * DAY_MS))["contest"] is None


def test_other_thresholds_are_refused_unless_forced() -> None:
    run("load", "train", "--model", "boosting")
    told = json.loads(run("--set", "load.scale=0.9", "load", "train", "--model", "boosting", "--json")[1])

    assert any("other thresholds, 100 and 400" in reason for reason in told["reasons"])


def test_quantiles_are_of_the_training_part_alone() -> None:
    split = START + 20 * DAY_MS
    told = trained("--model", "boosting", "--quantiles", "0.5,0.9", "--split", str(split))
    rows = pq.read_table("var/load/features")
    before = rows.filter(pc.less(rows["hour"], split))

    assert told["thresholds"][0] == pytest.approx(pc.quantile(before["load"], 0.5)[0].as_py())


def test_without_a_registry_the_file_alone_is_kept() -> None:
    code, shown = run("--set", "models.registry=", "load", "train", "--model", "forest", "--force")

    assert code == 0
    assert "registry" not in shown
    assert FILE.exists()


def test_forecasts_are_told_and_written_alike() -> None:
    run("load", "train", "--model", "boosting")
    told = json.loads(run("load", "forecast", "--json")[1])
    run("load", "forecast", "--out", "a.parquet")
    run("load", "forecast", "--out", "a.jsonl")
    rows = pq.read_table("a.parquet")

    assert [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()] == told
    assert rows.schema == FORECASTS
    assert len(rows) == 6 * 48
    first = told[0]
    assert set(first) == {"server", "issued", "basis", "model_version", "hours"}
    assert [hour["hour"] for hour in first["hours"]] == [END + n * HOUR_MS for n in range(48)]
    assert sum(first["hours"][0]["probabilities"]) == pytest.approx(1)
    assert "10.0.0.3" in run("load", "forecast", "--hours", "6")[1]


def test_a_forecast_of_the_past_sees_nothing_of_what_came_after(tmp_path: Path) -> None:
    run("load", "train", "--model", "boosting")
    at = START + 20 * DAY_MS
    known = pq.read_table(LOAD / "hours")
    cut = folder(tmp_path / "cut", known.filter(pc.less(known["hour"], at)))
    words = ("load", "forecast", "--json", "--servers", "10.0.0.2,10.0.0.4")

    assert run(*words, "--at", str(at + 5))[1] == run(*words, "--in", str(cut), "--at", str(at))[1]


def test_a_new_server_is_forecast_and_marked(tmp_path: Path) -> None:
    run("load", "train", "--model", "boosting")
    known = pq.read_table(LOAD / "hours")
    new = known.slice(len(known) - 1).set_column(0, "server", pa.array(["new"]))
    more = folder(tmp_path / "more", pa.concat_tables([known, new]))
    told = {one["server"]: one for one in json.loads(run("load", "forecast", "--json", "--in", str(more))[1])}

    assert len(told) == 7
    assert (told["new"]["basis"], told["10.0.0.0"]["basis"]) == ("fleet", "own")
    assert len(told["new"]["hours"]) == 48


def test_the_calendar_of_forecast_hours_is_their_own() -> None:
    """Day of the month is the day of the month, not the hour; trend goes on."""
    spec = FeatureSpec("UTC", START)
    ahead = calendar([END + n * HOUR_MS for n in range(48)], spec).sort_by("hour")

    assert ahead["day"].to_pylist() == [29] * 24 + [30] * 24
    assert ahead["hour_of_day"].to_pylist() == list(range(24)) * 2
    assert ahead["trend"][0].as_py() == 28
    assert set(CALENDAR) <= set(ahead.schema.names)


@pytest.mark.parametrize(
    ("words", "kind", "why"),
    [
        (("forecast",), ForecasterFileError, "tidewatch load train"),
        (("forecast", "--out", "a.csv"), ConfigError, r"end in \.parquet or \.jsonl"),
        (("forecast", "--out", "none/a.parquet"), ConfigError, "no folder 'none'"),
        (("train", "--features", "none"), InputError, "tidewatch load etl"),
        (("train", "--split", "2030-01-01"), ConfigError, "No hour lies after --split"),
        (("train", "--split", "soon"), ConfigError, "--split 'soon'"),
        (("train", "--quantiles", "0.9,0.1"), ConfigError, r"load\.quantiles .*larger than the first"),
        (("train", "--quantiles", "0.9"), ConfigError, r"load\.quantiles"),
        (("backtest", "--origins", "9"), ConfigError, "fewer --origins"),
        (("backtest", "--every", "often"), ConfigError, "--every is 'often'"),
        (("backtest", "--trace", "nowhere", "--data", "."), InputError, "no trace 'nowhere'"),
        (("backtest", "--report", "none/a.html"), ConfigError, "no folder 'none'"),
    ],
)
def test_what_is_wrong_is_named_with_a_code_of_its_own(
    words: tuple[str, ...], kind: type[TidewatchError], why: str
) -> None:
    with pytest.raises(kind, match=why):
        run("load", *words)

    assert next(code for of, code in EXIT_CODES.items() if issubclass(kind, of)) in {2, 3}


@pytest.mark.parametrize(
    "words", ["forecast --json", "forecast --servers nobody", "train --features none", "promote 9"]
)
def test_an_error_is_no_success_to_a_script(words: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Nothing on stdout that could be taken for an answer, a sentence on stderr, and an exit code that says so."""
    monkeypatch.setattr("sys.argv", ["tidewatch", "load", *words.split()])

    with pytest.raises(SystemExit) as end:
        main()
    told = capsys.readouterr()
    assert end.value.code in {2, 3}
    assert (told.out, len(told.err.split()) > 5) == ("", True)


def test_unknown_servers_are_refused_by_name() -> None:
    run("load", "train", "--model", "boosting")

    with pytest.raises(InputError, match=r"10\.9\.9\.9, web: no such server"):
        run("load", "forecast", "--servers", "web,10.0.0.1,10.9.9.9")
    with pytest.raises(ConfigError, match="later than the hours known"):
        run("load", "forecast", "--at", "2030-01-01")


def test_a_backtest_tells_models_and_baselines_by_hours_ahead() -> None:
    code, shown = run("load", "backtest", "--origins", "2", "--every", "3d", "--json", "--report", "a.html")
    told = json.loads(shown)

    ours = told["figures"]["chosen"]
    assert (code == 0) == all(better(ours, told["figures"][name]) for name in RIVALS)
    assert list(told["figures"]) == ["chosen", "seasonal_naive", "last_week", "frequencies"]
    assert [origin - END for origin in told["origins"]] == [-5 * DAY_MS, -2 * DAY_MS]
    assert [block["to"] for block in told["horizon"]["chosen"]] == list(range(6, 49, 6))
    page = Path("a.html").read_text("utf-8")
    assert "<svg" in page
    assert "hours ahead" in page
    assert "last week" in page


def test_the_page_of_a_backtest_shows_the_best_and_what_was_taken_for_what(tmp_path: Path) -> None:
    truth = np.array([0, 1, 2, 2] * 48)
    sure = np.eye(3)
    wrong = np.tile([[0.0, 1.0, 0.0]], (len(truth), 1))
    found = Backtest(
        origins=[END, END + DAY_MS, END + 2 * DAY_MS],
        recipes=["forest", "ordinal_small", "forest"],
        thresholds=[(100.0, 4000.0)] * 3,
        servers=4,
        lead=np.repeat(np.arange(1, 49), 4),
        truth=truth,
        forecasts={"chosen": sure[np.minimum(truth, 1)], "last_week": wrong},
    )
    write(tmp_path / "a.html", "<b>", found)
    page = (tmp_path / "a.html").read_text("utf-8")
    cells = re.findall(r"<td>(.*?)</td>", page)

    assert "Backtest of &lt;b&gt;" in page
    assert "low up to a load of 100, medium up to 4,000, and high above" in page
    assert "forest at 2, ordinal small at 1 of 3 origins" in " ".join(page.split())
    assert cells[:2] == ["<strong>0.5000</strong>", "<strong>0.5000</strong>"]
    assert cells[4] == "0.2500"
    assert cells[-2:] == ['96 <span class="quiet">100%</span>', '0 <span class="quiet">0%</span>']
