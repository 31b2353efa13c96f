"""The report: what is drawn is what was, and the page needs nothing beside it."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from scorers.errors import ConfigError
from tests.recorded import cloud, servers
from tidewatch import page
from tidewatch.cli import app
from tidewatch.drawing import COLOURS, LINES
from tidewatch.plots import bars, columns, extremes, svg
from tidewatch.tracks import Track, alerts, events

VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """Elements that are open, ids, links within and the text by element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.ids += [known["id"] or ""] if "id" in known else []
        self.links += [value for name, value in attrs if name in {"href", "src", "xlink:href"} and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += [data.strip()] if data.strip() and self.open[-1] != "style" else []


def track(rows: int = 5_000, device: str = "pump-1", metric: str = "flow") -> Track:
    """A quiet signal with one spike, in an event that an alert finds, and a false alert before it."""
    value, label, alarmed = np.zeros(rows), np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
    value[3_000], label[2_990:3_010], alarmed[3_001:3_006], alarmed[1_000:1_002] = 9.0, True, True, True
    score = np.where(alarmed, 80.0, 10.0)
    return Track(
        device, np.arange(rows), True, 60_000, {metric: value}, 3, label, score, np.full(rows, 50.0), "score",
        alarmed, alarmed, [frozenset({metric}) if fired else frozenset() for fired in alarmed.tolist()],
    )  # fmt: skip


@given(
    st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))), min_size=2, max_size=300),
    st.integers(1, 20),
)
def test_of_each_pixel_the_lowest_and_the_highest_are_drawn(values: list[float], pixels: int) -> None:
    value = np.array(values)
    at = np.cumsum(np.random.default_rng(len(values)).uniform(0.1, 5, len(values)))
    drawn_at, drawn = extremes(at, value, pixels)
    before, after = columns(at, pixels), np.searchsorted(at, drawn_at)

    assert len(drawn) <= 2 * pixels
    assert (np.diff(drawn_at) > 0).all()
    assert np.array_equal(drawn, value[after], equal_nan=True)
    for pixel in np.unique(before):
        was, now = value[before == pixel], drawn[before[after] == pixel]
        if np.isfinite(was).any():
            assert (np.nanmin(now), np.nanmax(now)) == (np.nanmin(was), np.nanmax(was))
        else:
            assert np.isnan(now).all()
            assert len(now)


def test_one_flag_of_many_rows_is_a_pixel_wide() -> None:
    at, flags = np.arange(24_000.0), np.zeros(24_000, np.bool_)
    flags[[12_000, 12_003]] = True

    [(begin, width)] = bars(at, flags, 1_000)

    assert begin == pytest.approx(12_000, abs=24)
    assert width == pytest.approx(24, abs=0.1)
    assert bars(at, np.zeros(24_000, np.bool_), 1_000) == []
    assert bars(np.zeros(1), np.ones(1, np.bool_), 10) == [(0, 1)]


def test_events_and_alerts_are_told() -> None:
    known = track()

    assert events(known) == [(2_990, 3_010, 11)]
    assert alerts(known) == [(1_000, 1_002, False), (3_001, 3_006, True)]
    assert known.blamed(3_001, 3_006) == ["flow"]
    assert (known.alarms.false, known.alarms.delays) == (1, (11,))


def test_a_plot_has_the_pages_colours_and_nothing_that_is_not_used() -> None:
    drawn = svg(track(metric="a$b$<c>"), 'shows "<all>"')
    page = Page(drawn)

    assert drawn.startswith("<svg")
    assert 'aria-label="shows &quot;&lt;all&gt;&quot;"' in drawn
    assert "a$b$<c>" in "".join(page.words)
    assert not re.search(r"#0102|<script|<metadata", drawn)
    assert {name for name in COLOURS if f"var(--{name})" in drawn} == set(COLOURS) - set(LINES)
    assert not page.open
    assert len(drawn) < 100_000


def test_the_same_track_is_drawn_the_same() -> None:
    assert svg(track(), "") == svg(track(), "")


@pytest.mark.parametrize("rows", [1, 2])
def test_hardly_any_rows_are_drawn_too(rows: int) -> None:
    none = np.zeros(rows, np.bool_)
    values = np.full(rows, np.nan)
    short = Track("a", np.arange(rows), False, 1_000, {"x": values}, 1, none, values, values, "oddness", none, none, [])

    assert svg(short, "").count("<svg") == 1


def made(benchmark: str, folder: Path, *more: str) -> Page:
    path = folder / "report.html"
    words = ["evaluate", benchmark, "--data", str(folder), "--report", str(path), *more]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    text = path.read_text("utf-8")

    assert done.exit_code == 0
    assert str(path) in done.stderr
    assert not list(folder.glob("*.part"))
    # nothing is fetched, nothing runs
    assert "default-src 'none'" in text
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    return Page(text)


def test_a_page_tells_figures_settings_events_and_alerts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = made("asd", servers(tmp_path), "--json")
    words = " ".join(page.words)

    assert not page.open
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert not [link for link in page.links if not link.startswith(("#", "data:"))]
    assert "asd-omi-1" in page.words
    assert all(name in page.words for name in ("m00", "m01", "m02", "score", "labelled", "alerts"))
    assert {"event recall", "hit@3", "false alerts a week", "window.size_s", "3000.0"} <= set(page.words)
    assert "row 300 40 found after 1" in words
    assert re.search(r"row 301 \d+ in an event m01", words)


def test_a_page_of_series_has_the_limit_that_follows_and_nothing_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = made("mscloud", cloud(tmp_path), "--rivals", "--json")

    assert {"mscloud-app-a", "isolation_forest", "scikit-learn: StandardScaler, OneClassSVM"} <= set(page.words)
    assert "Beside what is published" not in page.words
    assert "2020-01-30 04:00:00" in page.words  # row 700 of one an hour


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        page.check(tmp_path, "--report")
    with pytest.raises(ConfigError, match="no folder"):
        page.check(tmp_path / "none" / "page.html", "--report")
    page.check(tmp_path / "page.html", "--report")
