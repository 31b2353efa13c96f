"""An evaluation as one HTML page that needs nothing beside it: figures, settings, and a plot of each recording."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tidewatch import page, series
from tidewatch.console import utc
from tidewatch.protocols import SERIES, Benchmark, Result, median_delay
from tidewatch.published import PUBLISHED, Published
from tidewatch.settings import InForce
from tidewatch.tracks import Track, alerts, events

NONE = "\N{EN DASH}"
"""For a figure that there is none of."""
GROUPS = ("window", "alerting", "following", "training")
"""Settings that change a verdict."""
FIGURES: Mapping[str, tuple[str, str, int]] = {
    "f1": ("F1", "of the rows flagged, beside the rows labelled", 3),
    "far": ("FAR %", "healthy rows that are flagged", 1),
    "mar": ("MAR %", "labelled rows that are not flagged", 1),
    "ap": (
        "average precision",
        "of rows in order of severity; 1 is perfect, chance gives the share of labelled rows",
        3,
    ),
    "score": ("NAB score", "standard profile; 0 for silence, 100 for perfection", 1),
    "low_fp": ("low FP", "the same where false alarms cost twice as much", 1),
    "low_fn": ("low FN", "the same where missed windows cost twice as much", 1),
    "event_recall": ("event recall", "share of the labelled events during which an alert fires", 3),
    "false_alerts_per_day": (
        "false alerts a day",
        "alerts without a labelled row while they fire, a device and day",
        2,
    ),
    "false_alerts_per_week": ("false alerts a week", "the same a device and week", 1),
    "median_delay_rows": ("delay, rows", "median from an event's first row to its first alert, of the events found", 1),
    "hit3": (
        "hit@3",
        "explained events whose oddest window names one of their metrics among its three contributors",
        3,
    ),
}
"""Titles, meanings and digits; all else in a result is a count."""


@dataclass(frozen=True, slots=True)
class Line:
    """An alert or an event of a recording, in words."""

    begin: str
    length: str
    verdict: str
    names: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """One recording of the page."""

    anchor: str
    device: str
    rows: int
    summary: tuple[str, ...]
    """Events, found, false alerts, median delay."""
    plot: str
    shown: str
    events: list[Line]
    alerts: list[Line]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the page tells of."""

    benchmark: Benchmark
    in_force: InForce
    results: Mapping[str, Result]
    """By detector, that of the plots first."""
    more: Mapping[str, float]


def write(path: Path, told: Evaluation, drawn: Iterable[Track], show: Callable[[int], None]) -> None:
    """Draw and write the page; it appears whole. ``show`` is told how many recordings are drawn."""
    from tidewatch.plots import svg  # noqa: PLC0415 - half a second, which only those who want a page are to pay

    sections = []
    for number, track in enumerate(drawn, 1):
        sections.append(_section(track, number, svg))
        show(number)
    sections.sort(key=lambda one: _natural(one.device))
    groups = GROUPS[1:] if told.benchmark in SERIES else GROUPS
    published = PUBLISHED.get(told.benchmark)
    page.write(
        path,
        "report.html",
        {
            "benchmark": told.benchmark.value,
            "detector": next(iter(told.results)),
            "heads": _heads(told.results),
            "results": _figures(told.results),
            "counts": _counts(told.results),
            "more": {name: f"{value:.3f}" for name, value in told.more.items()},
            "published": published,
            "ours": _beside(published, told.results),
            "settings": [row for row in told.in_force.masked() if row.field.split(".")[0] in groups],
            "windows": f"Windows are {series.ROWS} rows long, one a row." if told.benchmark in SERIES else "",
            "sections": sections,
        },
    )


def _heads(results: Mapping[str, Result]) -> list[tuple[str, str]]:
    return [FIGURES[name][:2] for name in asdict(next(iter(results.values()))) if name in FIGURES]


def _figures(results: Mapping[str, Result]) -> dict[str, list[str]]:
    return {
        detector: [_number(value, FIGURES[name][2]) for name, value in asdict(result).items() if name in FIGURES]
        for detector, result in results.items()
    }


def _beside(published: Published | None, results: Mapping[str, Result]) -> dict[str, list[str]]:
    """Our rows of the published table."""
    if published is None:
        return {}
    return {
        detector: [cell.format_map(asdict(result)) for cell in published.ours] for detector, result in results.items()
    }


def _counts(results: Mapping[str, Result]) -> str:
    first = asdict(next(iter(results.values())))
    return ", ".join(f"{value:,} {name}" for name, value in first.items() if name not in FIGURES)


def _number(value: float, digits: int) -> str:
    return NONE if np.isnan(value) else f"{value:.{digits}f}"


def _section(track: Track, number: int, draw: Callable[[Track, str], str]) -> Section:
    found = track.alarms
    delay = median_delay([found])
    summary = (str(found.events), str(len(found.delays)), str(found.false), NONE if np.isnan(delay) else f"{delay:g}")
    shown = f"{len(track.signals)} of {track.metrics} metrics" if track.metrics > 1 else "its only metric"
    title = (
        f"{track.device}, {len(track.at):,} rows: {', '.join(track.signals)} and {track.scale} with the limit; "
        f"{found.events} labelled events, {len(found.delays)} found, {found.false} false alerts."
    )
    return Section(
        anchor=f"recording-{number}",
        device=track.device,
        rows=len(track.at),
        summary=summary,
        plot=draw(track, title),
        shown=shown,
        events=[_event(track, *event) for event in events(track)],
        alerts=[_alert(track, *alert) for alert in alerts(track)],
    )


def _event(track: Track, first: int, last: int, delay: int | None) -> Line:
    return Line(_moment(track, first), f"{last - first:,}", "missed" if delay is None else f"found after {delay:,}")


def _alert(track: Track, first: int, last: int, labelled: bool) -> Line:
    names = ", ".join(track.blamed(first, last))
    return Line(_moment(track, first), f"{last - first:,}", "in an event" if labelled else "false", names)


def _moment(track: Track, row: int) -> str:
    return f"row {row:,}" if track.numbered else utc(int(track.at[row]))


def _natural(text: str) -> list[tuple[int, str]]:
    """Numbers within by their size: omi-3 before omi-11."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
