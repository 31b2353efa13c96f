"""The report of a period says what the windows say, and its page needs nothing beside it."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from scorers.errors import ConfigError, InputError
from sinks.table import PREDICTIONS
from stream.alert import Alerting, AlertSpec, Verdict
from tests.unit.test_report import Page
from tidewatch.cli import app
from tidewatch.digest import Alarm, Asked, Digest, digest

START = 1_700_000_000_000 // 86_400_000 * 86_400_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def window(device: str, minute: int, score: float | None = 10.0, version: str = "v1") -> dict[str, Any]:
    """A window of a minute; it is odd above a score of 50, and unknown without one."""
    odd = None if score is None else score > 50
    named = [{"feature": "flow.mean", "share": 0.9, "actual": 1.0, "typical": 0.0}] if odd else []
    return {
        "device_id": device, "source": "sensors", "window_start": START + minute * MINUTE,
        "window_end": START + (minute + 1) * MINUTE, "count": 60, "state": "learning" if score is None else "scored",
        "score": score, "severity": score and score / 20, "anomaly": odd, "contributors": named,
        "model_version": None if score is None else version,
    }  # fmt: skip


def kept(folder: Path, windows: Iterable[dict[str, Any]]) -> Path:
    """As the Parquet sink would keep them."""
    days: dict[str, list[dict[str, Any]]] = {}
    for one in windows:
        day = datetime.fromtimestamp(one["window_start"] / 1000, UTC).date().isoformat()
        days.setdefault(day, []).append(one)
    for day, rows in days.items():
        place = folder / "predictions" / f"date={day}"
        place.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(rows, schema=PREDICTIONS)
        pq.write_table(table, place / f"device.scores-0000-{0:020d}-{len(rows):020d}.parquet")
    return folder


def fleet() -> list[dict[str, Any]]:
    """Two hours, after a day in which ``gone`` was there too.

    ::

        calm     all fine, by v1 in the first hour and by v2 in the second
        ill      odd from minute 30 to 40 and from minute 110 on
        barely   odd by a little, two minutes of ten
        holes    nothing from minute 20 to 50, nothing after minute 100
        fresh    no model
    """
    windows = [window("gone", minute - 60) for minute in range(30)]
    for minute in range(120):
        version = "v1" if minute < 60 else "v2"
        windows.append(window("calm", minute, 10.0, version))
        windows.append(window("ill", minute, 95.0 if 30 <= minute < 40 or minute >= 110 else 10.0, version))
        windows.append(window("barely", minute, 55.0 if minute % 10 < 2 else 10.0, version))
        if not 20 <= minute < 50 and minute < 100:
            windows.append(window("holes", minute, 10.0, version))
        windows.append(window("fresh", minute, None))
    return windows


ASKED = Asked(START + 1, START + 2 * HOUR + 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kept(tmp_path_factory.mktemp("sink"), fleet())


@pytest.fixture(scope="module")
def told(folder: Path) -> Digest:
    return digest(folder, ASKED)


def test_what_there_was_is_counted(told: Digest) -> None:
    assert told.totals == {
        "devices": 5,
        "windows": 4 * 120 + 70,
        "scored": 3 * 120 + 70,
        "anomalies": 20 + 24,
        "alerts": 2 + 12,
        "firing": 1,
        "alerting_devices": 2,
        "false_looking": 1,
        "silent": 2,
        "gaps": 1,
    }


def test_the_oddest_devices_come_first_and_say_why(told: Digest) -> None:
    first, second = told.devices[:2]

    assert (first.device_id, first.anomalies, first.alerts, first.score) == ("ill", 20, 2, 95.0)
    assert (second.device_id, second.near, second.because) == ("barely", 55.0, ("flow.mean",))
    assert [one.device_id for one in told.false_looking] == ["barely"]
    assert told.devices[-1].score is None


def test_alerts_are_told_from_their_first_odd_window_to_their_end(told: Digest) -> None:
    ended, firing = [one for one in told.alerts if one.device_id == "ill"]

    assert (ended.since, ended.fired) == (START + 30 * MINUTE, START + 32 * MINUTE)
    assert (ended.until, ended.anomalies) == (START + 43 * MINUTE, 10)
    assert (firing.since, firing.until, firing.severity) == (START + 110 * MINUTE, None, 95.0 / 20)
    assert firing.because == ("flow.mean",)


def test_silence_and_gaps_are_told(told: Digest) -> None:
    assert [(one["device_id"], one["last"]) for one in told.silent] == [
        ("gone", START - 30 * MINUTE),
        ("holes", START + 100 * MINUTE),
    ]
    assert told.gaps == [
        {
            "source": "sensors", "device_id": "holes", "since": START + 20 * MINUTE, "until": START + 50 * MINUTE,
            "windows": 30,
        }
    ]  # fmt: skip


def test_versions_and_the_course_add_up(told: Digest) -> None:
    assert [(one["version"], one["devices"], one["windows"]) for one in told.versions] == [
        ("v1", 4, 210),
        ("v2", 4, 220),
    ]
    for name in ("windows", "anomalies", "alerts"):
        assert sum(bar[name] for bar in told.course) == told.totals[name]


def test_a_period_ends_before_its_end(folder: Path) -> None:
    first = digest(folder, Asked(START, START + HOUR))
    second = digest(folder, Asked(START + HOUR, START + 2 * HOUR + 1))
    whole = digest(folder, Asked(START, START + 2 * HOUR + 1))

    assert first.totals["windows"] + second.totals["windows"] == whole.totals["windows"]
    assert digest(folder, Asked()).until == START + 2 * HOUR + 1


def test_a_period_without_windows_has_silent_devices_alone(folder: Path) -> None:
    nothing = digest(folder, Asked(START + DAY, START + 2 * DAY))

    assert nothing.totals["windows"] == 0
    assert nothing.last is None
    assert [one["device_id"] for one in nothing.silent] == ["holes", "barely", "calm", "fresh", "ill"]


def expected(flags: list[list[bool]], spec: AlertSpec) -> list[tuple[str, int, int | None]]:
    found: list[tuple[str, int, int | None]] = []
    for number, own in enumerate(flags):
        alerting, open_since = Alerting(spec, ""), None
        for minute, odd in enumerate(own):
            start = START + minute * MINUTE
            if change := alerting.see(0, Verdict("", start, start + MINUTE, odd, 90.0, 1.0, []), None):
                if change.state == "firing":
                    open_since = change.since
                else:
                    found.append((f"d{number}", change.since, change.at))
                    open_since = None
        if open_since is not None:
            found.append((f"d{number}", open_since, None))
    return sorted(found, key=str)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=12), min_size=1, max_size=4), st.sampled_from([1, 2]))
@settings(max_examples=10, deadline=None)
def test_alerts_are_those_that_the_stream_would_have_raised(
    tmp_path_factory: pytest.TempPathFactory, flags: list[list[bool]], k: int
) -> None:
    spec, place = AlertSpec(k=k, n=3), tmp_path_factory.mktemp("any")
    rows = [window(f"d{n}", at, 90.0 if odd else 10.0) for n, own in enumerate(flags) for at, odd in enumerate(own)]

    found: list[Alarm] = digest(kept(place, rows), Asked(START, START + HOUR, alert=spec)).alerts

    assert sorted([(one.device_id, one.since, one.until) for one in found], key=str) == expected(flags, spec)
    for one in found:
        minutes = range((one.since - START) // MINUTE, ((one.until or START + HOUR) - START) // MINUTE)
        own = flags[int(one.device_id[1:])]
        assert one.anomalies == sum(own[minute] for minute in minutes if minute < len(own))


def test_the_page_says_it_all_and_needs_nothing_beside_it(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    period = ["--from", str(START + 1), "--to", str(START + 2 * HOUR + 1)]
    result = CliRunner().invoke(app, ["report", str(folder), "--out", str(out), *period, "--json"])
    page, answer = Page(out.read_text()), json.loads(result.stdout)

    assert result.exit_code == 0
    assert answer["totals"]["alerts"] == 14
    assert answer["page"] == str(out)
    assert not page.open
    assert not [link for link in page.links if not link.startswith(("#", "data:"))]
    assert "<script" not in out.read_text()
    assert {"gone", "holes", "ill", "barely", "v1", "v2", "still fires", "flow.mean"} <= set(page.words)
    assert "Gaps (1)" in page.words


def test_names_from_outside_are_text_on_the_page(tmp_path: Path) -> None:
    kept(tmp_path, [window("<script>alert(1)</script>", minute, 90.0) for minute in range(5)])
    result = CliRunner().invoke(app, ["report", str(tmp_path), "--out", str(tmp_path / "page.html")])

    assert result.exit_code == 0
    assert "1  alerts, 1 still firing" in result.stdout
    assert "<script>" not in (tmp_path / "page.html").read_text()
    assert "<script>alert(1)</script>" in Page((tmp_path / "page.html").read_text()).words


def test_what_is_not_told_of_on_the_page_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewatch.brief.LINES", 3)
    kept(tmp_path, fleet())
    CliRunner().invoke(app, ["report", str(tmp_path), "--out", str(tmp_path / "page.html"), "--top", "1"])
    words = Page((tmp_path / "page.html").read_text()).words

    assert "Alerts (14)" in words
    assert any("And 11 more" in text for text in words)


@pytest.mark.parametrize(
    ("words", "kind", "why"),
    [
        (["--from", "2026-01-02", "--to", "2026-01-01"], ConfigError, "not later"),
        (["--from", "monday"], ConfigError, "--from 'monday'"),
        (["--out", "nowhere/page.html"], ConfigError, "no folder"),
        ([], InputError, "no predictions"),
    ],
)
def test_what_cannot_be_told_is_refused(
    words: list[str], kind: type[Exception], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = CliRunner().invoke(app, ["report", *words]).exception

    assert isinstance(error, kind)
    assert why in str(error)
