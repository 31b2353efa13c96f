"""Commands that tell workers something: which devices are well as they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape

from scorers.errors import ConfigError
from stream.contracts import Acceptance
from stream.levels import LONGEST_NOTE
from tidewatch import accept as operator
from tidewatch.accept import Answer, Known, Outcome, unanswered
from tidewatch.console import emit, err, out, plain, shifts, utc
from tidewatch.settings import InForce
from tidewatch.spans import moment

_COLOURS = {Outcome.ACCEPTED: "green", Outcome.REVOKED: "green", Outcome.REFUSED: "red", Outcome.PENDING: "yellow"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(accept)


def accept(
    context: typer.Context,
    devices: Annotated[list[str] | None, typer.Argument(metavar="[DEVICE]", help="Which devices.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Only this metric; may be repeated. All that have moved when left out.")
    ] = None,
    note: Annotated[str | None, typer.Option(help="Why, for whoever reads the alert.")] = None,
    since: Annotated[
        str | None, typer.Option(help="The level of all windows since this time, as Parquet has them; needs no alert.")
    ] = None,
    statistics: Annotated[Path | None, typer.Option(help="Folder with `statistics/`; the Parquet sink's.")] = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take back what was accepted before.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="Show what is accepted, of all devices or these.")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a worker to take it up.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """Accept that the levels of devices have shifted: from now on they are typical, and the alert is resolved."""
    in_force: InForce = context.obj
    settings = in_force.settings
    names = list(dict.fromkeys(devices or ()))
    if listing:
        _list([one for one in operator.known(settings, names or None) if one.state.accepted], as_json=as_json)
        return
    if not names:
        raise ConfigError("Name the devices to accept, or give --list to see what is accepted.")
    if revoke and (since or note):
        raise ConfigError("--revoke takes back and needs no --since and no --note.")
    if len(note or "") > LONGEST_NOTE:
        raise ConfigError(f"--note has {len(note or ''):,} characters; at most {LONGEST_NOTE:,} are kept.")
    means: dict[str, dict[str, float]] = {}
    if since:
        means = operator.levels(statistics or settings.parquet.folder, names, moment(since, "--since"))
    missing = [name for name in names if since and not means[name]]
    words = {name: Acceptance(metric or [], means.get(name, {}), note, revoke) for name in names if name not in missing}
    answers = [
        Answer(name, None, Outcome.REFUSED, detail=f"Parquet has no window of it since {since}") for name in missing
    ]
    answers += operator.accept(settings, words, wait)
    _report(sorted(answers, key=lambda answer: names.index(answer.device_id)), as_json=as_json)
    if error := unanswered(settings, answers):
        raise error
    raise typer.Exit(int(any(answer.outcome is Outcome.REFUSED for answer in answers)))


def _report(answers: Sequence[Answer], *, as_json: bool) -> None:
    if as_json:
        emit([
            {
                "device_id": answer.device_id,
                "source": answer.source,
                "outcome": answer.outcome.value,
                "accepted": msgspec.to_builtins(answer.accepted),
                "detail": answer.detail,
            }
            for answer in answers
        ])  # fmt: skip
        return
    for answer in answers:
        told = answer.detail or (shifts(answer.accepted) if answer.accepted else "")
        line = f"[{_COLOURS[answer.outcome]}]{answer.outcome:<8}[/] {_safe(answer.device_id):<20} {_safe(told)}"
        out.print(line.rstrip(), soft_wrap=True)


def _list(found: Sequence[Known], *, as_json: bool) -> None:
    if as_json:
        shown: list[Any] = [
            {"device_id": one.device_id, "source": one.source, "accepted": msgspec.to_builtins(one.state.accepted)}
            for one in found
        ]
        emit(shown)
        return
    for one in found:
        if one.state.accepted:
            line = f"{utc(one.state.accepted.at)}  {_safe(one.device_id):<20} {_safe(shifts(one.state.accepted))}"
            out.print(line, soft_wrap=True)
    if not found:
        err.print("Nothing is accepted.")


def _safe(text: str) -> str:
    """Text from outside between colours."""
    return escape(plain(text))
