"""Forecasts from hours on disk, and where they are written."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from scorers.errors import ConfigError, InputError
from scorers.forecast import issue, pack
from scorers.forecast.issue import REACH_MS, messages
from scorers.forecast.schema import HORIZON, HOUR_MS
from scorers.whole import replacing
from tidewatch.console import plain
from tidewatch.forecast import store
from tidewatch.forecast.settings import Load, model_file

NAMED = 5
"""Unknown servers that are named."""
ENDINGS = (".parquet", ".jsonl")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be forecast."""

    folder: Path
    """With ``hours/``, as `tidewatch load etl` made them."""
    servers: Sequence[str] = ()
    """None: all that had an hour within what features look back."""
    at: int | None = None
    """Epoch ms; hours after it are not looked at. None: the end of the last hour."""
    hours: int = HORIZON
    model: Path | None = None
    """None: the one in force."""


def forecast(load: Load, wish: Wish) -> pa.Table:
    """``FORECASTS`` of servers.

    Raises:
        ForecasterFileError: there is no forecaster, or not a sound one.
        InputError: there are no hours, or none of a server that was named.
        ConfigError: ``at`` lies beyond what is known.
    """
    forecaster = pack.load(wish.model or model_file(load))
    folder = wish.folder / "hours"
    everyone, end = store.extent(folder)
    issued = end if wish.at is None else wish.at // HOUR_MS * HOUR_MS
    if issued > end:
        raise ConfigError(f"--at is later than the hours known, which end at {end} (epoch ms); leave it out.")
    if strangers := sorted(set(wish.servers).difference(everyone)):
        raise InputError(f"{_listed(strangers)}: no such server in {folder}; use names that sessions have.")
    known = store.hours(folder, since=issued - REACH_MS, until=issued)
    servers = sorted(set(wish.servers)) or sorted(known["server"].unique().to_pylist())
    return issue.forecast(forecaster, known, servers, issued, wish.hours)


def check(path: Path) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        ConfigError: there is no place for the file, or no such kind of file.
    """
    if path.suffix not in ENDINGS:
        raise ConfigError(f"--out is {str(path)!r}; let its name end in {' or '.join(ENDINGS)}.")
    if not path.parent.is_dir():
        raise ConfigError(f"There is no folder {str(path.parent)!r} for --out; make it, or name another.")


def write(forecasts: pa.Table, path: Path) -> None:
    """To Parquet, or to JSON lines as they go out on ``server.forecasts``; the file appears whole.

    Raises:
        InputError: it cannot be written.
    """
    if path.suffix == ".parquet":
        store.write(forecasts, path)
        return
    try:
        with replacing(path) as file:
            file.writelines(f"{json.dumps(one)}\n".encode() for one in messages(forecasts))
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error}); name a file in a folder with room.") from error


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(plain(name) for name in names[:NAMED]) + more
