"""A backtest as one HTML page that needs nothing beside it: figures, and accuracy against the hours ahead."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle
from pathlib import Path

from scorers.forecast.labels import CLASSES
from tidewatch import page
from tidewatch.console import utc
from tidewatch.forecast.backtest import Backtest

HEADS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "rps": "ranked probability score", "ece": "calibration error"}
"""Figures that are shown, and their titles."""
BEST: dict[str, Callable[[Iterable[float]], float]] = {"accuracy": max, "macro_f1": max, "rps": min, "ece": min}
MARKS = "os^Dv"
"""Of the lines, for who cannot tell their colours apart."""
TICKS = 12
"""Hours between two marks of the time ahead."""


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
            "recipes": _counted(found.recipes),
            "thresholds": [f"{value:,.4g}" for value in found.thresholds[-1]],
            "heads": list(HEADS.values()),
            "results": _results(found),
            "first": title(next(iter(found.figures))),
            "classes": CLASSES,
            "confusion": _confusion(next(iter(found.figures.values())).confusion.tolist()),
            "plot": plot(found),
        },
    )


def _results(found: Backtest) -> list[tuple[str, list[tuple[str, bool]]]]:
    """A row a model or baseline: its figures, and whether each is the best of all."""
    best = {name: of(getattr(told, name) for told in found.figures.values()) for name, of in BEST.items()}
    return [
        (title(of), [(f"{getattr(told, name):.4f}", getattr(told, name) == best[name]) for name in HEADS])
        for of, told in found.figures.items()
    ]


def _confusion(counts: Sequence[Sequence[int]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """A row a true class: of its hours how many were forecast to be each, and which share."""
    return [
        (name, [(f"{count:,}", f"{count / max(sum(row), 1):.0%}") for count in row])
        for name, row in zip(CLASSES, counts, strict=True)
    ]


def _counted(names: Sequence[str]) -> str:
    """Each with how often it is there."""
    counts = Counter(names)
    if len(counts) == 1:
        return f"{title(names[0])} at every origin"
    return ", ".join(f"{title(name)} at {count}" for name, count in counts.most_common()) + f" of {len(names)} origins"


def title(name: str) -> str:
    """A model or baseline for a person."""
    return name.replace("_", " ")


def plot(found: Backtest) -> str:
    """Accuracy and macro-F1 against hours ahead, as an SVG element in the page's colours."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, which only those who want a page are to pay

    from tidewatch.drawing import LINES, colour, element  # noqa: PLC0415 - as above

    def draw() -> Figure:
        figure = Figure(figsize=(10, 3.9), layout="constrained")
        for axes, measure in zip(figure.subplots(1, 2), ("accuracy", "macro_f1"), strict=True):
            for line, mark, (name, blocks) in zip(cycle(LINES), cycle(MARKS), found.blocks.items(), strict=False):
                middle = [(begin + last) / 2 for begin, last, _ in blocks]
                values = [getattr(told, measure) for _, _, told in blocks]
                axes.plot(middle, values, marker=mark, ms=4, lw=1.4, color=colour(line), label=title(name))
            axes.set_title(HEADS[measure], loc="left", color=colour("ink"))
            axes.set_xlabel("hours ahead", color=colour("ink"))
            axes.set_ylim(0, 1.02)
            axes.set_xlim(0, int(found.lead.max()))
            axes.set_xticks(range(0, int(found.lead.max()) + 1, TICKS))
            axes.tick_params(colors=colour("ink"))
            axes.patch.set_visible(False)
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color(colour("ink"))
            axes.grid(axis="y", color=colour("grid"))
        lines, names = axes.get_legend_handles_labels()
        figure.legend(lines, names, frameon=False, labelcolor=colour("ink"), loc="outside upper left", ncols=len(names))
        return figure

    names = ", ".join(map(title, found.forecasts))
    return element(draw, f"Accuracy and macro-F1 of {names} by hours ahead", "backtest")
