"""A digest as people read it: a page, and lines for a terminal."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tidewatch import page
from tidewatch.console import plain, utc
from tidewatch.digest import NEAR, OFTEN, Alarm, Asked, Device, Digest

LINES = 1_000
"""Of a table; a page with more is slow to open. What is left out is counted."""
WIDE, HIGH, TOP = 1180.0, 56.0, 18.0
"""Of a row of bars, in its own units."""
NONE = "\N{EN DASH}"
COLOURS = {"windows": "--signal", "anomalies": "--odd", "alerts": "--alert"}
NAMES = {"windows": "windows", "anomalies": "odd windows", "alerts": "alerts"}
UNITS = (("week", 604_800_000), ("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1000))


def write(path: Path, told: Digest, folder: Path, asked: Asked, top: int) -> None:
    """Write the page; it appears whole.

    Raises:
        UnavailableError: the disk does not take it.
    """
    odd = [one for one in told.devices if one.anomalies]
    missing = f"{asked.quiet} or more windows in a row, by how often it usually has one"
    meanings = {
        "false_means": f"{OFTEN} alerts or more, and a median score of odd windows below {NEAR:g}: most lie less than "
        "half as far again out as the limit. Accept a shift, train again, or ask for fewer false alarms.",
        "silent_means": f"Without a window in the end, {missing}, or in the whole period, while there were some in as "
        "long a time before it.",
        "gaps_means": f"Times between its windows in which a device lacks {missing}.",
    }
    page.write(
        path,
        "digest.html",
        {
            "span": f"{utc(told.since)} to {utc(told.until)}",
            "since": utc(told.since),
            "until": utc(told.until),
            "last": _moment(told.last) if told.last is not None else "",
            "folder": str(folder),
            "figures": list(figures(told)),
            "width": length(told.width),
            "course": [_bars(told, name) for name in NAMES],
            "oddest": _some(odd, _device, top),
            "alerts": _some(told.alerts[::-1], _alarm),
            "false_looking": _some(told.false_looking, _false),
            "silent": _some(told.silent, lambda one: (one["device_id"], _moment(one["last"]))),
            "gaps": _some(told.gaps, _gap),
            "versions": _some(told.versions, _version),
        }
        | meanings,
    )


def figures(told: Digest) -> Iterator[tuple[str, str, str]]:
    """What there is, how much of it, and what that means."""
    count = told.totals
    yield "devices", f"{count['devices']:,}", f"{count['alerting_devices']:,} with alerts"
    yield "windows", f"{count['windows']:,}", f"{count['scored']:,} judged by a model"
    yield "odd windows", f"{count['anomalies']:,}", f"{_share(count['anomalies'], count['scored'])} % of those judged"
    yield "alerts", f"{count['alerts']:,}", f"{count['firing']:,} still firing"
    yield "devices whose alerts look false", f"{count['false_looking']:,}", ""
    yield "silent devices", f"{count['silent']:,}", ""
    yield "gaps", f"{count['gaps']:,}", ""
    yield "model versions", f"{len(told.versions):,}", ""


def length(ms: int) -> str:
    """A length of time for a person.

    >>> length(5_400_000), length(60_000)
    ('1.5 hours', '1 minute')
    """
    name, unit = next((one for one in UNITS if ms >= one[1]), UNITS[-1])
    return f"{ms / unit:.3g} {name}{'s' if ms != unit else ''}"


def _some(found: Sequence[Any], line: Callable[[Any], tuple[str, ...]], most: int | None = None) -> dict[str, Any]:
    """The first rows of a table, and how many more there are."""
    rows = [tuple(map(plain, line(one))) for one in found[: most or LINES]]
    return {"rows": rows, "more": len(found) - len(rows)}


def _device(one: Device) -> tuple[str, ...]:
    return (
        one.device_id,
        f"{one.windows:,}",
        f"{one.anomalies:,}",
        _share(one.anomalies, one.scored),
        f"{one.alerts:,}",
        _number(one.score, 1),
        _number(one.severity, 2),
        _moment(one.at),
        ", ".join(one.because),
    )


def _alarm(one: Alarm) -> tuple[str, ...]:
    return (
        one.device_id,
        _moment(one.since),
        _moment(one.fired),
        "still fires" if one.until is None else length(one.until - one.since),
        f"{one.anomalies:,}",
        _number(one.score, 1),
        _number(one.severity, 2),
        ", ".join(one.because),
    )


def _false(one: Device) -> tuple[str, ...]:
    return one.device_id, f"{one.alerts:,}", f"{one.anomalies:,}", _number(one.near, 1), ", ".join(one.because)


def _gap(one: dict[str, Any]) -> tuple[str, ...]:
    return one["device_id"], _moment(one["since"]), _moment(one["until"]), f"{one['windows']:,}"


def _version(one: dict[str, Any]) -> tuple[str, ...]:
    counts = (f"{one[name]:,}" for name in ("devices", "windows", "anomalies"))
    moments = _moment(one["first"]), _moment(one["last"])
    return one["version"] or NONE, *counts, _share(one["anomalies"], one["windows"]), *moments


def _bars(told: Digest, name: str) -> dict[str, Any]:
    """One row of bars."""
    most = max((bar[name] for bar in told.course), default=0)
    step = WIDE / max(len(told.course), 1)
    bars = [
        {
            "x": f"{place * step:.2f}",
            "y": f"{TOP + HIGH * (1 - bar[name] / most):.2f}",
            "width": f"{max(step - 1, 0.5):.2f}",
            "height": f"{HIGH * bar[name] / most:.2f}",
            "begin": utc(bar["begin"]),
            "value": f"{bar[name]:,}",
        }
        for place, bar in enumerate(told.course)
        if bar[name]
    ]
    return {"name": NAMES[name], "most": f"{most:,}", "colour": COLOURS[name], "bars": bars}


def _moment(epoch_ms: int | None) -> str:
    return NONE if epoch_ms is None else utc(epoch_ms)


def _number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}" if whole else NONE
