"""A track drawn as SVG for a page: small, with the page's own colours, and no spike lost however long it is."""

import re
from datetime import UTC

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from scorers.metrics import runs
from scorers.statistics import Flags, Floats, Ints
from tidewatch.drawing import colour, element
from tidewatch.tracks import Track, alerts

PIXELS = 1_200
"""A track is drawn so wide, at most two points a pixel and line."""
GAP = 5
"""Rows that are missing in a row from where on a line is broken."""
_LANES = (("label", "labelled"), ("flag", "odd windows"), ("alert", "alerts"))
_LEFT, _WIDTH, _LANE, _SIGNAL, _ODD = 1.65, 11.0, 0.5, 0.75, 1.25
"""Inches."""


def extremes(at: Floats, value: Floats, pixels: int) -> tuple[Floats, Floats]:
    """At most two points a pixel: the lowest and the highest there, in order of time; NaN where all of it is.

    Args:
        at: times in order, shape (n,).
        value: shape (n,); NaN is none.
        pixels: how many the whole is wide.
    """
    if len(at) <= 2 * pixels:
        return at, value
    pixel = columns(at, pixels)
    known = np.flatnonzero(np.isfinite(value))
    by_pixel = pd.Series(value[known], known).groupby(pixel[known])
    empty = np.flatnonzero(~np.isin(pixel, pixel[known]))
    gaps = empty[np.unique(pixel[empty], return_index=True)[1]]
    rows = np.unique(np.concatenate([by_pixel.idxmin(), by_pixel.idxmax(), gaps])).astype(np.int64)
    return at[rows], value[rows]


def columns(at: Floats, pixels: int) -> Ints:
    """The pixel of each time, shape (n,), from 0 to ``pixels - 1``."""
    span = max(float(at[-1] - at[0]), 1e-9)
    return np.asarray(np.minimum((at - at[0]) * (pixels / span), pixels - 1), np.int64)


def bars(at: Floats, flags: Flags, pixels: int) -> list[tuple[float, float]]:
    """Begin and width of what is drawn for flags (n,): a pixel wide at least, what touches in one pixel as one."""
    if not len(at) or not flags.any():
        return []
    wide = np.zeros(pixels, np.bool_)
    pixel = columns(at, pixels)
    for first, last in runs(flags):
        wide[pixel[first] : pixel[last - 1] + 1] = True
    scale = float(at[-1] - at[0]) / pixels or 1.0
    return [(at[0] + first * scale, (last - first) * scale) for first, last in runs(wide)]


def svg(track: Track, title: str) -> str:
    """The track as an SVG element for an HTML page; ``title`` says in words what it shows."""
    return element(lambda: _figure(track), title, track.device)


def _figure(track: Track) -> Figure:
    heights = [_LANE, *[_SIGNAL] * len(track.signals), _ODD]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.12 * len(heights) + 0.35))
    grid = {"height_ratios": heights, "hspace": 0.14, "left": _LEFT / _WIDTH, "right": 0.995, "top": 0.995}
    low = 0.32 / figure.get_figheight()
    panels = figure.subplots(len(heights), sharex=True, gridspec_kw={**grid, "bottom": low})
    at = _times(track)
    for axes in panels:
        _plain(axes)
        for begin, width in bars(at, track.label, PIXELS) if axes is not panels[0] else ():
            axes.axvspan(begin, begin + width, color=colour("label"), alpha=0.22, lw=0)
    _lanes(panels[0], at, track)
    for axes, (name, value) in zip(panels[1:-1], track.signals.items(), strict=True):
        axes.plot(*_line(at, value), color=colour("signal"), lw=0.8)
        axes.set_ylabel(_short(name), rotation=0, ha="right", va="center", color=colour("ink"))
        axes.locator_params(axis="y", nbins=3)
    _oddness(panels[-1], at, track)
    panels[-1].set_xlim(at[0], max(at[-1], at[0] + 1e-9))
    if track.numbered:
        panels[-1].set_xlabel("row", color=colour("muted"), labelpad=1)
    else:
        locator = AutoDateLocator(UTC)  # type: ignore[no-untyped-call]
        concise = ConciseDateFormatter(locator, UTC)  # type: ignore[no-untyped-call]
        panels[-1].xaxis.set(major_locator=locator, major_formatter=concise)
        panels[-1].xaxis.get_offset_text().set_color(colour("muted"))
    return figure


def _plain(axes: Axes) -> None:
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set(color=colour("grid"), lw=0.8)
    axes.tick_params(colors=colour("muted"), labelcolor=colour("muted"), length=2.5, pad=2)
    axes.patch.set_visible(False)
    axes.margins(x=0)
    axes.yaxis.set_label_coords(-0.55 / (_WIDTH - _LEFT), 0.5)


def _lanes(axes: Axes, at: Floats, track: Track) -> None:
    for lane, ((name, _), flags) in enumerate(zip(_LANES, (track.label, track.flagged, track.alarmed), strict=True)):
        axes.broken_barh(bars(at, flags, PIXELS), (lane + 0.15, 0.7), color=colour(name), lw=0)
    axes.set(ylim=(len(_LANES), 0), yticks=[lane + 0.5 for lane in range(len(_LANES))])
    axes.set_yticklabels([name for _, name in _LANES], color=colour("ink"))
    axes.tick_params(left=False, bottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _oddness(axes: Axes, at: Floats, track: Track) -> None:
    oddness = track.oddness
    if track.scale != "score":
        oddness = _logarithmic(axes, oddness, track.limit)
    else:
        axes.set(ylim=(0, 104), yticks=[0, 50, 100])
    axes.plot(*_line(at, oddness), color=colour("odd"), lw=0.8)
    axes.plot(*_line(at, track.limit), color=colour("limit"), lw=1.1, dashes=(4, 2))
    for first, _, labelled in alerts(track):
        how = {"color": colour("alert")} if labelled else {"mfc": "none", "mec": colour("false"), "mew": 1.1}
        # without a verdict there is no alert, so that each has its height
        axes.plot(at[first], oddness[first], marker="v", ms=5.5, ls="none", clip_on=False, **how)
    axes.set_ylabel(_short(track.scale), rotation=0, ha="right", va="center", color=colour("ink"))


def _logarithmic(axes: Axes, oddness: Floats, limit: Floats) -> Floats:
    """Whole decades, the lowest thousandth of the values on the floor; what is to be drawn."""
    known = np.concatenate([oddness[oddness > 0], limit[np.isfinite(limit) & (limit > 0)], [1.0]])
    lowest = max(float(np.quantile(known, 0.001)), 1e-4)
    low, high = np.floor(np.log10(lowest)), np.ceil(np.log10(known.max()) + 1e-9)
    axes.set(yscale="log", ylim=(10**low, 10 ** max(high, low + 1)))
    axes.yaxis.set(major_locator=LogLocator(numticks=4), minor_locator=NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return np.asarray(np.maximum(oddness, 10**low))


def _line(at: Floats, value: Floats) -> tuple[Floats, Floats]:
    """As few points as show all there is to see, with holes where rows are missing."""
    usual = float(np.median(np.diff(at))) if len(at) > 1 else 1.0
    holes = np.flatnonzero(np.diff(at) > GAP * usual) + 1
    broken = np.insert(at, holes, at[holes] - usual), np.insert(value, holes, np.nan)
    return extremes(*broken, PIXELS)


def _times(track: Track) -> Floats:
    """Row numbers, or days since 1970 as matplotlib takes them; never falling."""
    return np.maximum.accumulate(track.at / (1 if track.numbered else 86_400_000))


def _short(name: str, width: int = 15) -> str:
    """A label in lines that fit beside an axis."""
    words = re.split(r"(?<=[_ ,./-])", name)
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > width and lines[-1]:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.strip() for line in lines)
