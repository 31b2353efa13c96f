"""How commands speak: results to stdout, everything else to stderr, colour on terminals alone."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from stream.contracts import Accepted, Alert

PIPED = 1000
"""Characters of a line that no terminal shows: tables in a file or a pipe are as wide as they need."""

out = Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED)
err = Console(stderr=True, highlight=False)

_AGAIN_S = 10.0
_WIDTH = 16
"""Bytes in a line of hexadecimal."""

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "firing": "red", "resolved": "green"}


def folded(*heads: str, **options: Any) -> Table:
    """A table whose cells are folded where a terminal is narrow, and not cut."""
    return Table(*(Column(head, overflow="fold") for head in heads), **options)


class Level(StrEnum):
    """The least serious messages to be logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Seldom(logging.Filter):
    """Lets Kafka's client repeat itself only so often; while a broker is away it would ten times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, object], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it may be said."""
        if record.levelno < logging.WARNING or not record.name.startswith("aiokafka"):
            return True
        what = (record.name, record.msg)
        if record.created - self._said.get(what, 0.0) < _AGAIN_S:
            return False
        self._said[what] = record.created
        return True


def log_from(level: Level) -> None:
    """Log to stderr what is at least so serious."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger().setLevel(level.name)
    for handler in logging.getLogger().handlers:
        if not any(isinstance(held, Seldom) for held in handler.filters):
            handler.addFilter(Seldom())


def emit(result: Mapping[str, Any] | list[Any]) -> None:
    """One JSON document on a line of its own; NaN becomes null."""
    sys.stdout.write(json.dumps(_plain(result), allow_nan=False) + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 - NaN alone differs from itself


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, where stderr is a terminal; call it with how many are done and how many there are."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def plain(text: str) -> str:
    """Text from outside as a terminal may see it: what is not printable is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def picture(value: bytes) -> Iterator[str]:
    """Bytes from outside in lines for a terminal: printable text as it is, anything else in hexadecimal."""
    try:
        lines = value.decode().split("\n")
    except UnicodeDecodeError:
        lines = ["\x00"]
    if all(line.replace("\t", "").isprintable() for line in lines):
        yield from lines
        return
    for at in range(0, len(value), _WIDTH):
        row = value[at : at + _WIDTH]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)  # noqa: PLR2004 - what ASCII can print
        yield f"{at:08x}  {row.hex(' '):<{3 * _WIDTH - 1}}  {text}"


def utc(epoch_ms: int) -> str:
    """A moment for a person, to the second."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def alert_line(alert: Alert) -> str:
    """One alert for a person: when, what, who, how odd, what kind of behaviour, and why."""
    colour = COLOURS[alert.state]
    causes = alert.contributors[:2] if alert.state == "firing" else []
    why = ", ".join(f"{c.feature} {_number(c.actual)} (typically {c.typical:.4g})" for c in causes)
    if alert.accepted:
        why = f"accepted: {shifts(alert.accepted)}"
    kind = "" if alert.behaviour is None else f"{alert.behaviour} {alert.metric or ''}".strip()
    head = (
        f"{utc(alert.at)}  [{colour}]{alert.state:<8}[/] {escape(plain(alert.device_id)):<20} score {alert.score:5.1f}"
    )
    return "  ".join((head, *(escape(plain(part)) for part in (kind, why) if part)))


def shifts(accepted: Accepted) -> str:
    """What is accepted of a device, for a person."""
    told = (f"{name} {level.now:.4g} (before {level.before:.4g})" for name, level in accepted.levels.items())
    return plain(", ".join(told) + (f"; {accepted.note}" if accepted.note else ""))


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.4g}"
