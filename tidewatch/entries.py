"""What a person can set about the schedule: an entry for each command that is to run, and how all of them run.

Entries are tables of the settings file, ``[schedule.NAME]``; that file alone says what runs when.
"""

import difflib
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from scorers.errors import ConfigError

COMMANDS = ("train", "score", "models", "compact", "evaluate", "report", "compare", "lag", "doctor")
"""What may be scheduled: commands that end by themselves and ask for nobody."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
YEAR_S = 31_536_000
_HOLDER = re.compile(r"\{([^{}]*)\}")
_PERIOD = re.compile(r"(start|end)(:[^{}]+)?")
_CRON_FIELDS = 5


class Missed(StrEnum):
    """What becomes of runs whose time passed while nothing was there to make them, and of one that was cut."""

    ONCE = "once"
    SKIP = "skip"


def _known(command: str) -> str:
    if command not in COMMANDS:
        raise ValueError(f"cannot be scheduled; choose from {', '.join(COMMANDS)}")
    return command


def _words(given: object) -> object:
    return shlex.split(given) if isinstance(given, str) else given


def _filled(args: tuple[str, ...]) -> tuple[str, ...]:
    for word in args:
        for found in _HOLDER.finditer(word):
            if not _PERIOD.fullmatch(found[1]):
                raise ValueError(f"{found[0]} means nothing; write {{start}}, {{end}} or {{end:%Y-%m-%d}}")
    return args


def _cron(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        seconds = "0 " if len(text.split()) == _CRON_FIELDS else "none "  # six fields would be read as seconds first
        next(CronSim(seconds + text, datetime(2000, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        why = str(error) or "no day is like that"
        raise ValueError(
            f"is no cron expression ({why[:1].lower()}{why[1:]}); give minute, hour, day of month, month "
            "and day of week, such as '30 2 * * *' for half past two each night"
        ) from error
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("is no timezone; give a name of the IANA database, such as Europe/Berlin or UTC") from error
    return name


class Entry(BaseModel):
    """One command of ours and when it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: Annotated[str, AfterValidator(_known)] = Field(description=f"One of {', '.join(COMMANDS)}.")
    args: Annotated[tuple[str, ...], BeforeValidator(_words), AfterValidator(_filled)] = Field(
        default=(),
        description="Its arguments, a list of words. `{start}` and `{end}` are the period a run is for, in ISO 8601: "
        "from the end of the last one that went well to the time of this; `{end:%Y-%m-%d}` is the date alone.",
    )
    cron: Annotated[str | None, AfterValidator(_cron)] = Field(
        default=None,
        description="When: minute, hour, day of month, month, day of week, as Debian's cron reads them.",
    )
    every_s: float | None = Field(
        default=None, ge=1, le=YEAR_S, description="Or how often, counted from 1970: 3600 is each full hour, UTC."
    )
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="The timezone of `cron`, by its IANA name."
    )
    missed: Missed = Field(
        default=Missed.ONCE,
        description="Runs missed while the scheduler was down, and a run that was cut: `once` makes up for all of "
        "them by one run, `skip` waits for the next time.",
    )
    grace_s: float = Field(
        default=86_400,
        ge=0,
        le=YEAR_S,
        description="How late a run may be made up for; after that it is told as missed.",
    )
    timeout_s: float = Field(default=43_200, ge=1, le=YEAR_S, description="A run that takes longer is ended.")
    enabled: bool = Field(default=True, description="Whether it runs at its times; by hand it always may.")

    @model_validator(mode="after")
    def _timed(self) -> Self:
        if (self.cron is None) == (self.every_s is None):
            raise ValueError(f"needs one of cron and every_s, not {'none' if self.cron is None else 'both'} of them")
        if self.every_s is not None and self.timezone != "UTC":
            raise ValueError("timezone is for cron alone: every_s counts from 1970 in UTC; leave timezone out")
        return self

    @property
    def timing(self) -> str:
        """When it runs, for a person."""
        return f"every {self.every_s:g} s" if self.cron is None else f"{self.cron} {self.timezone}"

    def words(self, start: datetime, end: datetime) -> list[str]:
        """The command line of a run for ``[start, end)``."""
        period = {"start": start, "end": end}

        def fill(found: re.Match[str]) -> str:
            name, _, form = found[1].partition(":")
            return period[name].strftime(form) if form else period[name].strftime("%Y-%m-%dT%H:%M:%SZ")

        return [self.command, *(_HOLDER.sub(fill, word) for word in self.args)]


def _named(entries: dict[str, Entry]) -> None:
    for name in entries:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for an entry; use up to 63 letters, digits, - and _")


class Schedule(BaseModel):
    """The entries by name."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Entry] = Field(init=False)

    @model_validator(mode="after")
    def _well_named(self) -> Self:
        _named(self.entries)
        return self

    @property
    def entries(self) -> dict[str, Entry]:
        """Every entry by its name, as the file has them."""
        return dict(self.__pydantic_extra__ or {})


class Scheduler(BaseModel):
    """How what is scheduled runs; what runs, and when, are tables `[schedule.NAME]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        default=Path("var/schedule"), description="Where history, locks and logs of runs are kept; on a local disk."
    )
    concurrency: int = Field(default=2, ge=1, le=64, description="Runs at the same time; more wait for their turn.")
    stop_s: float = Field(
        default=15.0,
        ge=0,
        le=YEAR_S,
        description="How long runs under way may go on when the scheduler is told to stop.",
    )
    keep_runs: int = Field(default=100, ge=1, description="Runs of each entry kept in the history, with their logs.")
    log_bytes: int = Field(
        default=4_194_304, ge=1024, description="A run's log longer than this keeps its end, up to twice as much."
    )


def described() -> Iterator[tuple[str, str, str]]:
    """(name, default, description) of every field of an entry, in order."""
    for name, info in Entry.model_fields.items():
        default = "" if info.is_required() else info.get_default()
        yield name, str(list(default) if isinstance(default, tuple) else default), info.description or ""


def fields(schedule: Schedule) -> Iterator[tuple[str, object, str]]:
    """(``NAME.field``, value, description) of every field of every entry, in order."""
    for name, entry in schedule.entries.items():
        for option, info in Entry.model_fields.items():
            yield f"{name}.{option}", getattr(entry, option), info.description or ""


def place(name: str, source: str) -> tuple[str, str, str]:
    """Group, entry and field of ``schedule.NAME.field``.

    Raises:
        ConfigError: it is none.
    """
    group, entry, option = [*name.split(".", 2), ""][:3]
    if option in Entry.model_fields:
        return group, entry, option
    if not option:
        raise ConfigError(f"{name} in {source} must be a table: [{name}], with command and cron or every_s in it.")
    near = difflib.get_close_matches(option, Entry.model_fields, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(Entry.model_fields)}."
    raise ConfigError(f"{name!r} in {source} is not a setting; {hint}")
