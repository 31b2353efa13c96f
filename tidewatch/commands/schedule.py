"""Commands that run others at their times: schedule run, list, now, history, logs."""

import logging
import shlex
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from scorers.errors import ConfigError, InputError, UnavailableError
from tidewatch.commands.flags import AsJson
from tidewatch.console import emit, err, folded, out
from tidewatch.entries import Entry
from tidewatch.history import History, Outcome, Run, Why
from tidewatch.locks import running
from tidewatch.runner import Runner, Stop, clock, older
from tidewatch.scheduler import Daemon
from tidewatch.settings import InForce
from tidewatch.signals import until_signalled
from tidewatch.timetable import following

schedule = typer.Typer(no_args_is_help=True, help="Run commands at their times: train, score, compact, report.")
Name = Annotated[str | None, typer.Argument(help="Only this entry.")]
WrongUsage: Any = typer.BadParameter.__base__
"""Click's, which Typer brings along under a name of its own."""
_GOOD = {Outcome.OK: "green", Outcome.RUNNING: "cyan", Outcome.SKIPPED: "yellow", Outcome.STOPPED: "yellow"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(schedule, name="schedule")


@schedule.command()
def run(context: typer.Context) -> None:
    """Run what tables [schedule.NAME] of the settings file say, until told to stop.

    Ctrl-C or SIGTERM: runs under way may go on for `scheduler.stop_s`, then they are ended; the second time at once.
    """
    in_force: InForce = context.obj
    entries = _entries(context)
    if not any(entry.enabled for entry in entries.values()):
        raise ConfigError(
            "Nothing is scheduled; write a table [schedule.NAME] with command and cron into the settings file."
        )
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)  # what it has to say is told in the history
    stop = Stop(in_force.settings.scheduler.stop_s)
    with until_signalled() as signalled:
        Daemon(Runner(in_force, stop), _tell).run(signalled)


@schedule.command("list")
def entries(context: typer.Context, as_json: AsJson = False) -> None:
    """What is scheduled, when it runs next, and how the last run ended."""
    in_force: InForce = context.obj
    folder = in_force.settings.scheduler.folder
    past, alive = _runner(context).history, running(folder)
    rows = [Line.of(name, entry, past, clock()) for name, entry in sorted(_entries(context).items())]
    if as_json:
        emit({"running": alive, "entries": [row.plain() for row in rows]})
        return
    table = folded("entry", "command", "when", "next, UTC", "last, UTC", "result")
    for row in rows:
        table.add_row(*row.cells())
    out.print(table)
    if not alive:
        err.print("[yellow]no scheduler runs here:[/] start one by `tidewatch schedule run`", soft_wrap=True)


@schedule.command()
def now(
    context: typer.Context, name: Annotated[str, typer.Argument(help="The entry.")], as_json: AsJson = False
) -> None:
    """Run an entry here and now, with its output; the exit code is the command's. No scheduler is needed."""
    in_force: InForce = context.obj
    entry = _entry(context, name)
    with until_signalled() as signalled:
        runner = Runner(in_force, Stop(0, signalled), None if as_json else _through)
        made = runner.make(name, entry, Why.NOW, clock())
    if made is None:
        raise UnavailableError(f"{name} is under way in another process; wait for it, see `tidewatch schedule list`.")
    if as_json:
        emit(made.plain())
    elif made.outcome is not Outcome.OK:
        err.print(f"run {made.id} of {name}: {made.outcome}, {made.reason}", soft_wrap=True)
    raise typer.Exit(_code(made))


@schedule.command()
def history(
    context: typer.Context,
    name: Name = None,
    limit: Annotated[int, typer.Option(min=1, help="So many rows, the newest.")] = 20,
    as_json: AsJson = False,
) -> None:
    """What ran, when and why, and how it ended; newest first."""
    runner = _runner(context)
    rows = runner.history.runs(name, limit)
    if name is not None and not rows:
        _entry(context, name)
    if as_json:
        emit([run.plain() | {"log": _kept(runner.log(run.entry, run.id))} for run in rows])
        return
    table = folded("run", "entry", "for, UTC", "why", "began, UTC", "took", "result", "reason")
    for each in rows:
        times = f" ({each.times} times)" if each.times > 1 else ""
        took = "" if each.began is None else _span(each, clock())
        table.add_row(
            str(each.id),
            each.entry,
            _utc(each.scheduled),
            each.why,
            _utc(each.began),
            took,
            _coloured(each),
            escape(each.reason) + times,
        )
    out.print(table)


@schedule.command()
def logs(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The entry.")],
    number: Annotated[int | None, typer.Option("--run", help="The run's number; the last one when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """What a run printed."""
    runner = _runner(context)
    found = runner.history.last(name) if number is None else runner.history.run(number)
    if found is None or found.entry != name:
        _entry(context, name)
        raise InputError(
            f"{name} has no run{'' if number is None else f' {number}'}; see `tidewatch schedule history`."
        )
    path = runner.log(name, found.id)
    parts = [part.read_bytes() for part in (older(path), path) if part.exists()]
    if not parts:
        raise InputError(f"Run {found.id} of {name} has no log; see `tidewatch schedule history {name}`.")
    if as_json:
        emit(found.plain() | {"log": str(path), "text": b"".join(parts).decode("utf-8", "replace")})
        return
    for part in parts:
        _through(part)


@dataclass(frozen=True, slots=True)
class Line:
    """One entry as it is listed."""

    name: str
    entry: Entry
    next: datetime | None
    last: Run | None

    @classmethod
    def of(cls, name: str, entry: Entry, past: History, at: datetime) -> "Line":
        """The entry at a moment."""
        return cls(name, entry, following(entry, at) if entry.enabled else None, past.last(name))

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        coming = None if self.next is None else self.next.isoformat()
        last = None if self.last is None else self.last.plain()
        return {"name": self.name, **self.entry.model_dump(mode="json"), "next": coming, "last": last}

    def cells(self) -> list[str]:
        """For a table."""
        coming = _utc(self.next) if self.entry.enabled else "disabled"
        ended = ["", ""] if self.last is None else [_utc(self.last.began), _coloured(self.last)]
        return [
            self.name,
            escape(shlex.join([self.entry.command, *self.entry.args])),
            self.entry.timing,
            coming,
            *ended,
        ]


def _entries(context: typer.Context) -> dict[str, Entry]:
    """What is scheduled, each command line read as the command itself would read it.

    Raises:
        ConfigError: one is none of ours, or its arguments are wrong.
    """
    in_force: InForce = context.obj
    found = in_force.settings.schedule.entries
    for name, entry in found.items():
        _check(context.find_root(), name, entry.words(datetime.fromtimestamp(0, UTC), clock()))
    return found


def _check(root: Any, name: str, words: list[str]) -> None:
    command, line = root.command, shlex.join(words)
    try:
        while isinstance(command, TyperGroup):
            word, words = (words[0], words[1:]) if words else ("", [])
            found = command.get_command(root, word)
            if found is None:
                known = ", ".join(sorted(command.list_commands(root)))
                raise ConfigError(f"schedule.{name}: `tidewatch {line}` is no command; choose from {known}.")
            command = found
        command.make_context(command.name, words, parent=root)
    except WrongUsage as error:
        why = error.format_message().rstrip(".")
        raise ConfigError(f"schedule.{name}.args: `tidewatch {line}`: {why}; see its --help.") from error
    except typer.Exit as error:
        raise ConfigError(f"schedule.{name}.args: `tidewatch {line}` only prints help; leave that flag out.") from error


def _entry(context: typer.Context, name: str) -> Entry:
    entries = _entries(context)
    if name not in entries:
        known = ", ".join(sorted(entries)) or "nothing is scheduled yet"
        raise ConfigError(f"There is no table [schedule.{name}] in the settings file; there are: {known}.")
    return entries[name]


def _runner(context: typer.Context) -> Runner:
    """To look at the past, in which nothing is under way any more that is not; a scheduler sees to that itself."""
    runner = Runner(context.obj, Stop(0))
    if not running(runner.spec.folder):
        runner.sweep()
    return runner


def _tell(name: str, what: str, more: str) -> None:
    err.print(f"{_utc(clock())}  {what:<9}  {name}: {more}", soft_wrap=True, markup=False)


def _through(chunk: bytes) -> None:
    sys.stdout.buffer.write(chunk)
    sys.stdout.flush()


def _code(made: Run) -> int:
    if made.outcome is Outcome.STOPPED:
        return 130
    return 1 if made.code is None or made.code < 0 else made.code


def _kept(path: Path) -> str | None:
    return str(path) if path.exists() else None


def _coloured(made: Run) -> str:
    return f"[{_GOOD.get(made.outcome, 'red')}]{made.outcome}[/]"


def _utc(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def _span(made: Run, at: datetime) -> str:
    seconds = ((made.ended or at) - (made.began or at)).total_seconds()
    return f"{seconds:.1f} s"
