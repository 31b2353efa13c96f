"""Drawings for pages: an SVG element in the page's own colours (``page.css``), small, the same for the same data."""

import re
from collections.abc import Callable, Mapping
from html import escape
from io import StringIO

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

LINES = ("line0", "line1", "line2", "line3", "line4")
COLOURS = ("ink", "muted", "grid", "signal", "odd", "limit", "label", "flag", "alert", "false", *LINES)
"""Names of the page's colours."""
_STYLE: dict[RcKeyType, object] = {
    "axes.unicode_minus": False,
    "font.size": 8.5,
    "path.simplify": False,
    "svg.fonttype": "none",
    "text.parse_math": False,
}


def colour(name: str) -> str:
    """A stand-in for one of the page's colours, that no drawing would use by itself."""
    return f"#0102{COLOURS.index(name) + 16:02x}"


def element(draw: Callable[[], Figure], title: str, salt: str) -> str:
    """What ``draw`` gives as an element for an HTML page.

    Args:
        draw: called with the page's style in force; its colours are of :func:`colour`.
        title: says in words what is shown.
        salt: of the ids within, other than those of other drawings on the page.
    """
    with rc_context({"svg.hashsalt": salt, **_STYLE}):
        text = StringIO()
        draw().savefig(text, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator")))
    return _trimmed(text.getvalue(), title)


_CLASSES: Mapping[str, str] = {colour(name): f"var(--{name})" for name in COLOURS}


def _tenth(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")


def _trimmed(drawn: str, title: str) -> str:
    """The element alone: colours by name, coordinates to a tenth, the page's font, only the ids that are used."""
    body = drawn[drawn.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"#0102[0-9a-f]{2}", lambda found: _CLASSES[found[0]], body)
    body = re.sub(r" d=\"[^\"]*\"", lambda path: re.sub(r"-?\d+\.\d+", _tenth, path[0]), body)
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", body)
    used = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", body))
    body = re.sub(r" id=\"([^\"]+)\"", lambda found: found[0] if found[1] in used else "", body)
    head = re.sub(r" (?:width|height)=\"[\d.]+pt\"", "", body[: body.index(">")])
    return f'{head} role="img" aria-label="{escape(title)}">{body[body.index(">") + 1 :]}'
