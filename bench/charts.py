"""What was measured, drawn (matplotlib): SVG or PNG, as the file's name ends."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bench.runners import RUNNERS
from bench.steady import title

_OURS, _OTHERS = "#1f6f8b", "#9aa5ab"


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


def _save(figure: Figure, path: Path) -> None:
    # the same picture from the same figures, to the byte
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
