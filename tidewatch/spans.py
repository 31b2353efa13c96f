"""Times, lengths of time and intervals as people write them."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from scorers.errors import ConfigError, InputError
from scorers.period import Period, Spans
from stream.parse import epoch_ms

_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
FAULTS = ("device_id", "start", "end")
"""Columns of a file of known faults."""


def moment(text: str, flag: str) -> int:
    """Epoch ms of a flag; a stamp without an offset is UTC.

    Raises:
        ConfigError: it is no time.
    """
    with suppress(ValueError):
        stamp = epoch_ms(int(text) if text.isdigit() else _in_utc(text))
        if isinstance(stamp, int):
            return stamp
    raise ConfigError(f"{flag} {text!r} is neither ISO-8601 nor epoch milliseconds.")


def _in_utc(text: str) -> str:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def duration(text: str, flag: str) -> int:
    """A length of time such as ``36h``, in ms.

    Raises:
        ConfigError: it is none.

    >>> duration("1.5h", "--last")
    5400000
    """
    found = _LENGTH.fullmatch(text.strip())
    if not found or not float(found[1]):
        raise ConfigError(f"{flag} is {text!r}; make it a number and one of s, m, h, d, w, such as 36h.")
    return round(float(found[1]) * _UNITS_MS[found[2]])


def period(since: str | None, until: str | None, exclude: Iterable[str]) -> Period:
    """Which windows are meant.

    Raises:
        ConfigError: something is no time, or no interval.
    """
    excluded = tuple(interval(text, "--exclude") for text in exclude)
    begin, end = (moment(text, flag) if text else None for text, flag in ((since, "--since"), (until, "--until")))
    return Period(begin, end, excluded)


def interval(text: str, flag: str) -> tuple[int, int]:
    """Two times with a slash between, epoch ms.

    Raises:
        ConfigError: it is no interval.
    """
    first, between, last = text.partition("/")
    if not between:
        raise ConfigError(f"{flag} is {text!r}; make it two times with a slash between, FROM/TO.")
    begin, end = moment(first, flag), moment(last, flag)
    if end <= begin:
        raise ConfigError(f"{flag} is {text!r}; its second time must be later than its first.")
    return begin, end


def faults(path: Path) -> dict[str, Spans]:
    """Known faults by device, epoch ms.

    Args:
        path: a CSV with the columns ``device_id``, ``start`` and ``end``.

    Raises:
        InputError: the file cannot be read; names the line.
    """
    found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if not set(FAULTS) <= set(rows.fieldnames or ()):
                raise InputError(f"{path} lacks columns; its first line must name {', '.join(FAULTS)}.")
            for row in rows:
                begin, end = (moment(row[name] or "", f"{path}:{rows.line_num} {name}") for name in FAULTS[1:])
                if end <= begin:
                    raise InputError(f"{path}:{rows.line_num}: end is not later than start; change one of them.")
                found[row["device_id"]].append((begin, end))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}); name a CSV with {', '.join(FAULTS)}.") from error
    except ConfigError as error:
        raise InputError(str(error)) from error
    return {device: tuple(spans) for device, spans in found.items()}
