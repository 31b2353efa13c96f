"""A backtest as one HTML page that needs nothing beside it: figures, and accuracy against the hours ahead."""

from itertools import cycle
from pathlib import Path

from tidewatch import page
from tidewatch.console import utc
from tidewatch.forecast.backtest import Backtest

HEADS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "rps": "ranked probability score", "ece": "calibration error"}
"""Figures that are shown, and their titles."""


def write(path: Path, name: str, found: Backtest) -> None:
    """Draw and write the page; it appears whole. ``name`` says of what the hours are.

    Raises:
        UnavailableError: the disk does not take it.
    """
    page.write(
        path,
        "forecast/backtest.html",
        {
            "name": name,
            "origins": [utc(origin)[:16] for origin in found.origins],
            "servers": found.servers,
            "rows": len(found.truth),
            "recipes": found.recipes,
            "thresholds": " and ".join(f"{value:.4g}" for value in found.thresholds[-1]),
            "heads": list(HEADS.values()),
            "results": [
                (title(of), [f"{getattr(told, figure):.4f}" for figure in HEADS]) for of, told in found.figures.items()
            ],
            "plot": plot(found),
        },
    )


def title(name: str) -> str:
    """A model or baseline for a person."""
    return name.replace("_", " ")


def plot(found: Backtest) -> str:
    """Accuracy and macro-F1 against hours ahead, as an SVG element in the page's colours."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, which only those who want a page are to pay

    from tidewatch.drawing import LINES, colour, element  # noqa: PLC0415 - as above

    def draw() -> Figure:
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        for axes, measure in zip(figure.subplots(1, 2), ("accuracy", "macro_f1"), strict=True):
            for line, (name, blocks) in zip(cycle(LINES), found.blocks.items(), strict=False):
                middle = [(begin + last) / 2 for begin, last, _ in blocks]
                values = [getattr(told, measure) for _, _, told in blocks]
                axes.plot(middle, values, marker="o", ms=3, lw=1.4, color=colour(line), label=title(name))
            axes.set_title(HEADS[measure], loc="left", color=colour("ink"))
            axes.set_xlabel("hours ahead", color=colour("ink"))
            axes.set_ylim(0, 1.02)
            axes.tick_params(colors=colour("ink"))
            axes.patch.set_visible(False)
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color(colour("ink"))
            axes.grid(axis="y", color=colour("grid"))
        axes.legend(frameon=False, labelcolor=colour("ink"), loc="lower right")
        return figure

    names = ", ".join(map(title, found.forecasts))
    return element(draw, f"Accuracy and macro-F1 of {names} by hours ahead", "backtest")
