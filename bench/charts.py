"""What was measured, drawn (matplotlib): SVG or PNG, as the file's name ends."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from bench.curves import TITLES
from bench.runners import RUNNERS
from bench.steady import title

_OURS, _OTHERS, _MEMORY = "#1f6f8b", "#9aa5ab", "#c0703a"
_ACROSS = 3
"""Panels side by side."""


def rates(result: Mapping[str, Any], path: Path) -> None:
    """Readings a second of every runner, on a logarithmic scale."""
    runners = [runner for runner in RUNNERS if runner.name in result]
    rate = [result[runner.name]["readings_per_s"] for runner in runners]
    figure = Figure(figsize=(8, 0.45 * len(runners) + 1), layout="constrained")
    axes = figure.subplots()
    colours = [_OURS if runner.title.startswith("Tidewatch") else _OTHERS for runner in runners]
    bars = axes.barh([runner.title for runner in runners], rate, color=colours)
    axes.bar_label(bars, [f" {value:,}" for value in rate])
    axes.set(xscale="log", xlabel="readings a second", xlim=(min(rate) / 2, max(rate) * 4))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def memory(result: Mapping[str, Any], path: Path) -> None:
    """Resident memory over time."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    at, mb = np.array(result["memory_mb"]).T
    axes.plot(at / 60, mb, color=_OURS)
    axes.set(xlabel="minutes", ylabel="resident MB", title=title(result), ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def curves(result: Mapping[str, Any], path: Path) -> None:
    """A panel for each curve: readings a second and memory; for latency the waits, on logarithmic scales."""
    found = result["curves"]
    across = min(_ACROSS, len(found))
    down = -(-len(found) // across)
    figure = Figure(figsize=(4.2 * across, 3.2 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (name, rows) in zip(panels, found.items(), strict=False):
        axes.set(xlabel=TITLES[name])
        axes.spines[["top", "right"]].set_visible(False)
        _waits(axes, rows) if name == "latency" else _throughput(axes, rows)
    for axes in panels[len(found) :]:
        axes.set_visible(False)
    _save(figure, path)


def load(result: Mapping[str, Any], path: Path) -> None:
    """Seconds and memory against the size of a session log, with the line fitted; Spark where it was measured."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    own, spark = ([p for p in result["points"] if p["engine"] == name] for name in ("duckdb", "spark"))
    size = [point["bytes"] / 1e9 for point in own]
    right = axes.twinx()
    _from_zero(right, size, [point["peak_mb"] for point in own], ("peak MB", _MEMORY, "s--"))
    _from_zero(axes, size, [point["seconds"] for point in own], ("seconds", _OURS, "o"))
    if fit := result["fit"]:
        line = [fit["start_s"] + fit["s_per_gb"] * gb for gb in size]
        axes.plot(size, line, color=_OURS, linewidth=1, label=f"{fit['s_per_gb']:.1f} s a GB (R² {fit['r2']:.3f})")
    for point in spark:
        axes.plot(point["bytes"] / 1e9, point["seconds"], "D", color=_OTHERS, label="Spark local[2]")
        axes.set_ylim(0, 1.15 * max(point["seconds"], *(one["seconds"] for one in own)))
    axes.set(xlabel="GB of session log", xlim=(0, None))
    for panel in (axes, right):
        panel.spines["top"].set_visible(False)
    axes.legend(fontsize="small", frameon=False, loc="lower right")
    _save(figure, path)


def _throughput(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Readings a second on the left, peak memory on the right, where it was measured."""
    at = _places(axes, [row["at"] for row in rows])
    _from_zero(axes, at, [row["readings_per_s"] / 1000 for row in rows], ("thousand readings/s", _OURS, "o-"))
    if "peak_mb" in rows[0]:
        right = axes.twinx()
        right.spines["top"].set_visible(False)
        _from_zero(right, at, [row["peak_mb"] for row in rows], ("peak MB", _MEMORY, "s--"))


def _from_zero(axes: Axes, at: Sequence[float], values: Sequence[float], look: tuple[str, str, str]) -> None:
    """A line and its label, in one colour."""
    label, colour, line = look
    axes.plot(at, values, line, color=colour, markersize=4)
    axes.set_ylabel(label, color=colour)
    axes.set_ylim(0, max(values) * 1.15)


def _waits(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Seconds until the score and the alert; a cross where the load was too much."""
    at = _places(axes, [row["at"] for row in rows])
    axes.tick_params("x", rotation=45)
    for name, part, colour, line in (
        ("score_s", "p50", _OURS, "o-"), ("score_s", "p99", _OURS, "o:"),
        ("alert_s", "p50", _MEMORY, "s-"), ("alert_s", "p99", _MEMORY, "s:"),
    ):  # fmt: skip
        waits = [row[name].get(part, np.nan) for row in rows]
        axes.plot(at, waits, line, color=colour, markersize=4, label=f"{name.removesuffix('_s')} {part}")
    for place, row in zip(at, rows, strict=True):
        if row["saturated"] and row["score_s"]:
            axes.plot(place, row["score_s"]["p99"], "x", color="black", markersize=10, label="too much")
    axes.set(yscale="log", ylabel="seconds")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.legend(fontsize="small", frameon=False)


def _places(axes: Axes, at: Sequence[int | str]) -> Sequence[float]:
    """Where the points lie: numbers on a logarithmic axis, a tick for each; words side by side."""
    numbers = [place for place in at if isinstance(place, int)]
    if len(numbers) < len(at):
        axes.set_xticks(range(len(at)), [str(place) for place in at], rotation=30, ha="right", rotation_mode="anchor")
        return range(len(at))
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(numbers, [_short(number) for number in numbers])
    return numbers


def _short(number: int) -> str:
    """Thousands as k."""
    return f"{number // 1000}k" if number >= 1000 and number % 1000 == 0 else str(number)  # noqa: PLR2004


def _save(figure: Figure, path: Path) -> None:
    # the same picture from the same figures, to the byte
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
