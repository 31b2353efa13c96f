"""A backtest as one HTML page that needs nothing beside it: figures, and accuracy against the hours ahead."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from pathlib import Path

from scorers.forecast.labels import CLASSES
from tidewatch import page
from tidewatch.console import utc
from tidewatch.forecast.backtest import Backtest

HEADS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "rps": "ranked probability score", "ece": "calibration error"}
"""Figures that are shown, and their titles."""
BEST: dict[str, Callable[[Iterable[float]], float]] = {"accuracy": max, "macro_f1": max, "rps": min, "ece": min}
LINES = 5
"""Colours of the page for lines, ``--line0`` and on."""
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
    from matplotlib import rc_context  # noqa: PLC0415 - half a second, which only those who want a page are to pay
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "backtest", "font.size": 9}):
        figure = Figure(figsize=(10, 3.9), layout="constrained")
        for axes, measure in zip(figure.subplots(1, 2), ("accuracy", "macro_f1"), strict=True):
            for number, (name, blocks) in enumerate(found.blocks.items()):
                middle = [(begin + last) / 2 for begin, last, _ in blocks]
                values = [getattr(told, measure) for _, _, told in blocks]
                axes.plot(
                    middle, values, marker=MARKS[number % LINES], ms=4, lw=1.4, color=_colour(number), label=title(name)
                )
            axes.set_title(HEADS[measure], loc="left", color=_INK)
            axes.set_xlabel("hours ahead", color=_INK)
            axes.set_ylim(0, 1.02)
            axes.set_xlim(0, int(found.lead.max()))
            axes.set_xticks(range(0, int(found.lead.max()) + 1, TICKS))
            axes.tick_params(colors=_INK)
            axes.patch.set_visible(False)
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color(_INK)
            axes.grid(axis="y", color=_INK, alpha=0.15)
        lines, names = axes.get_legend_handles_labels()
        figure.legend(lines, names, frameon=False, labelcolor=_INK, loc="outside upper left", ncols=len(names))
        drawn = StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator")))
    return _element(drawn.getvalue(), f"Accuracy and macro-F1 of {_listed(list(found.forecasts))} by hours ahead")


_INK = "#010203"
"""Stands for the page's ink; no drawing would use it by itself."""


def _colour(number: int) -> str:
    return f"#0102{16 + number % LINES:02x}"


def _element(drawn: str, label: str) -> str:
    body = drawn[drawn.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL).replace(_INK, "var(--ink)")
    for number in range(LINES):
        body = body.replace(_colour(number), f"var(--line{number})")
    head, rest = body.split(">", 1)
    head = re.sub(r" (?:width|height)=\"[\d.]+pt\"", "", head)
    return f'{head} role="img" aria-label="{label}">{rest}'


def _listed(names: Sequence[str]) -> str:
    return ", ".join(title(name) for name in names)
