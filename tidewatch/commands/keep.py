"""Commands about what is kept aside: rejects, looked at and sent back."""

import base64
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.text import Text

from scorers.errors import ConfigError, InputError
from stream.contracts import Reason
from tidewatch.console import emit, err, folded, out, picture, plain, utc
from tidewatch.rejects import Id, Ledger, Reject, Selection, newest, reasons
from tidewatch.resend import NAMED, Resent, check, resend
from tidewatch.settings import InForce
from tidewatch.shelf import Shelf, inputs
from tidewatch.signals import until_signalled
from tidewatch.spans import moment

SHOWN = 4_096
"""Bytes of a value that are shown."""
_ROW = "{:<19}  {:<15}  {:>9}  {:<8}  {:<28}  {}"
_YEAR_2200_MS = 7_258_118_400_000

rejects = typer.Typer(help="Look at what was rejected, and send it back.", no_args_is_help=True)

Reasons = Annotated[list[str] | None, typer.Option("--reason", help="Only of this reason; may be repeated.")]
Topic = Annotated[str | None, typer.Option(help="Only from this input topic.")]
Since = Annotated[str | None, typer.Option(help="First Kafka timestamp of the original, ISO-8601 or epoch ms.")]
Until = Annotated[str | None, typer.Option(help="Kafka timestamp of the original to end before.")]
AsLines = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(rejects, name="rejects")


@rejects.command("list")
def listing(
    context: typer.Context,
    reason: Reasons = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    pending: Annotated[bool, typer.Option("--pending", help="Leave out those that were replayed.")] = False,
    count: Annotated[
        int, typer.Option("-n", "--count", min=0, max=100_000, help="How many, newest first; 0 is all, as they lie.")
    ] = 20,
    counts: Annotated[bool, typer.Option("--counts", help="Only count them, by topic and reason.")] = False,
    as_json: AsLines = False,
) -> None:
    """List rejects, newest first by the Kafka timestamp of the original."""
    shelf = _shelf(context.obj, _selection(context.obj, reason, topic, (since, until)))
    ledger = shelf.survey()
    if counts:
        _print_counts(ledger, as_json=as_json)
        return
    wanted = ledger.pending if pending else ledger.selected
    found = (reject for reject in shelf.rejects() if wanted(reject))
    _print(newest(count, found) if count else found, ledger, as_json=as_json)
    total = (ledger.waiting if pending else ledger.rejects).total()
    if 0 < count < total:
        err.print(f"These are the newest {count:,} of the {total:,} that match; -n 0 shows all.")
    elif not total:
        err.print("No reject matches.")
    _tell_foreign(ledger)


@rejects.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ID", help="Topic/partition/offset of the original.")],
    raw: Annotated[bool, typer.Option("--raw", help="Write the original bytes to stdout, and nothing else.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show all that is known of one reject, and its bytes."""
    selection = Selection(ids=frozenset({Id.parse(name)}))
    shelf = _shelf(context.obj, selection)
    ledger = shelf.survey()
    check(selection, ledger)
    with closing(shelf.rejects()) as found:
        reject = next((reject for reject in found if ledger.selected(reject)), None)
    if reject is None:
        raise InputError(f"Kafka has let go of {name!r} meanwhile; `rejects list` tells what is left.")
    if raw:
        sys.stdout.buffer.write(reject.value)
        sys.stdout.buffer.flush()
    elif as_json:
        emit(_entry(reject, ledger) | _either("value", reject.value))
    else:
        _describe(reject, ledger)


@rejects.command()
def replay(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Only these.")] = None,
    reason: Reasons = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; nobody is asked but at a terminal.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be sent.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send original bytes back to where they came from, each reject once, however often this is run."""
    in_force: InForce = context.obj
    selection = _selection(in_force, reason, topic, (since, until), names or ())
    if dry_run or (sys.stdin.isatty() and not yes):
        ledger = _shelf(in_force, selection).survey()
        check(selection, ledger)
        if dry_run:
            _print_counts(ledger, as_json=as_json)
            return
        if not typer.confirm(f"Send back {_sendable(ledger):,} rejects?", err=True):
            raise typer.Exit(1)
    settings = in_force.settings
    with until_signalled() as stop:
        resent = resend(settings.kafka.broker(), settings.topics.names(), selection, settings.worker.app, stop=stop)
        _report(resent, as_json=as_json)
        raise typer.Exit(130 if stop.is_set() else int(resent.kept > 0))


def _selection(
    in_force: InForce,
    names: Sequence[str] | None,
    topic: str | None,
    bounds: tuple[str | None, str | None],
    ids: Sequence[str] = (),
) -> Selection:
    known = inputs(in_force.settings.topics.names())
    if topic is not None and topic not in known:
        raise ConfigError(f"--topic {topic!r} is no input topic; choose from {', '.join(known)}.")
    if ids and (names or topic or any(bounds)):
        raise ConfigError("Ids and filters (--reason, --topic, --since, --until) exclude each other; give one of them.")
    since, until = (
        None if text is None else moment(text, flag) for text, flag in zip(bounds, ("--since", "--until"), strict=True)
    )
    topics = frozenset() if topic is None else frozenset({topic})
    return Selection(reasons(names or ()), topics, since, until, frozenset(map(Id.parse, ids)))


def _shelf(in_force: InForce, selection: Selection) -> Shelf:
    return Shelf.look(in_force.settings.kafka.broker(), in_force.settings.topics.names(), selection)


def _sendable(ledger: Ledger) -> int:
    """How many a replay would send: what is empty stays."""
    return sum(count for kind, count in ledger.waiting.items() if kind.reason is not Reason.EMPTY)


# --- how they look --------------------------------------------------------------------------------


def _print(found: Iterable[Reject], ledger: Ledger, *, as_json: bool) -> None:
    if as_json:
        for reject in found:
            emit(_entry(reject, ledger))
        return
    for number, reject in enumerate(found):
        if number == 0:
            out.print(_ROW.format("time", "reason", "bytes", "", "id", "key, detail"), style="bold", soft_wrap=True)
        state = "replayed" if ledger.signed(reject) else ""
        about = f"{_clip(reject.key)}  {_clip(reject.detail.encode(), 200)}"
        row = _ROW.format(_time(reject.timestamp), reject.reason, f"{reject.size:,}", state, str(reject.id), about)
        out.print(Text(plain(row)), soft_wrap=True)


def _print_counts(ledger: Ledger, *, as_json: bool) -> None:
    rows = [(kind, count, ledger.replayed[kind]) for kind, count in sorted(ledger.rejects.items())]
    if as_json:
        for kind, count, done in rows:
            emit(kind._asdict() | {"rejects": count, "replayed": done, "pending": count - done})
        return
    table = folded("topic", "reason", "rejects", "replayed", "pending")
    for kind, count, done in rows:
        table.add_row(*kind, f"{count:,}", f"{done:,}", f"{count - done:,}")
    total, done = ledger.rejects.total(), ledger.replayed.total()
    table.add_row("all", "", f"{total:,}", f"{done:,}", f"{total - done:,}", style="bold")
    out.print(table)
    _tell_foreign(ledger)


def _tell_foreign(ledger: Ledger) -> None:
    if ledger.foreign:
        err.print(f"{ledger.foreign:,} more records of the topic are no rejects of this version.")


def _entry(reject: Reject, ledger: Ledger) -> dict[str, Any]:
    return {
        "id": str(reject.id),
        "reason": reject.reason,
        "detail": reject.detail,
        **reject.id._asdict(),
        "timestamp": reject.timestamp,
        "rejected_at": reject.at,
        **_either("key", reject.key),
        "bytes": reject.size,
        "replayed": ledger.signed(reject),
    }


def _either(name: str, value: bytes | None) -> dict[str, str | None]:
    """Text where it is UTF-8, else base64; both null where there is nothing."""
    text = coded = None
    try:
        text = None if value is None else value.decode()
    except UnicodeDecodeError:
        coded = base64.b64encode(value or b"").decode()
    return {name: text, f"{name}_base64": coded}


def _describe(reject: Reject, ledger: Ledger) -> None:
    facts = {
        "id": str(reject.id),
        "reason": reject.reason,
        "detail": reject.detail,
        "time": f"{_time(reject.timestamp)} UTC ({reject.timestamp})",
        "rejected": f"{_time(reject.at)} UTC",
        "replayed": "yes" if ledger.signed(reject) else "no",
        "key": "none" if reject.key is None else _clip(reject.key, SHOWN),
        "bytes": f"{reject.size:,}",
    }
    for name, fact in facts.items():
        out.print(Text.assemble((f"{name:<10}", "bold"), plain(fact)), soft_wrap=True)
    out.print()
    shown = _cut(reject.value)
    for line in picture(shown):
        out.print(Text(line), soft_wrap=True)
    if len(shown) < reject.size:
        err.print(f"These are the first {len(shown):,} of {reject.size:,} bytes; --raw writes all of them to stdout.")


def _cut(value: bytes) -> bytes:
    """The beginning, with no character of UTF-8 broken."""
    end = SHOWN
    while SHOWN - 3 < end < len(value) and value[end] & 0xC0 == 0x80:  # noqa: PLR2004 - a byte within a character
        end -= 1
    return value[:end]


def _report(resent: Resent, *, as_json: bool) -> None:
    left = resent.pending - resent.done
    if as_json:
        refused = {why: list(map(str, named)) for why, named in resent.refused.items()}
        emit({**asdict(resent), "refused": refused, "left": left})
        return
    err.print(f"{resent.sent:,} rejects sent back.")
    for count, what in (
        (resent.already, "had been sent back before"),
        (resent.empty, "are empty: there is nothing to send"),
        (left, "are left: this was stopped"),
        (resent.kept, "could not be sent and stay as they are"),
    ):
        if count:
            err.print(f"{count:,} {what}.")
    for why, named in resent.refused.items():
        err.print(Text(plain(f"  {why}: {', '.join(map(str, named))}")), soft_wrap=True)
    if resent.kept > NAMED:
        err.print(f"At most {NAMED} are named for each reason; `rejects list --pending` has all.")


def _clip(value: bytes | None, most: int = 40) -> str:
    text = (value or b"")[: 4 * most].decode(errors="replace")
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _time(epoch_ms: int) -> str:
    """A moment, where a calendar has it: a header may claim any."""
    return utc(epoch_ms) if 0 <= epoch_ms < _YEAR_2200_MS else str(epoch_ms)
