"""Commands that look: alerts as they come, the oddest devices, lag, settings, and what is wrong."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import redis
import typer
from rich.console import Group as Lines
from rich.live import Live
from rich.table import Table

from scorers.errors import ConfigError, UnavailableError
from stream.contracts import Alert
from tidewatch import doctor as checks
from tidewatch.commands.flags import AsJson
from tidewatch.console import COLOURS, alert_line, emit, err, folded, out
from tidewatch.groups import Settings
from tidewatch.lag import LOAD, WORKER, Group, Part, exceeding, measure
from tidewatch.settings import InForce
from tidewatch.signals import until_signalled
from tidewatch.tail import follow, gather

_WATCH_S = 2.0

_STARTS = {WORKER: "worker", LOAD: "load worker"}
"""What runs in a group; in any other a sink."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (alerts, top, lag, config, doctor):
        app.command()(command)


def alerts(
    context: typer.Context,
    beginning: Annotated[bool, typer.Option("--from-beginning", help="Show those of the past first.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Show those of the past and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Follow alerts live."""
    in_force: InForce = context.obj
    settings = in_force.settings
    broker, topics = settings.kafka.broker(), [settings.topics.names().alerts]
    with until_signalled() as stop:
        arriving = gather(broker, topics) if once else follow(broker, topics, beginning=beginning, stop=stop.is_set)
        for message in arriving:
            alert = msgspec.json.decode(message.value() or b"", type=Alert)
            if as_json:
                emit(msgspec.to_builtins(alert))
            else:
                out.print(alert_line(alert), soft_wrap=True)


def top(
    context: typer.Context,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many devices.")] = 20,
    once: Annotated[bool, typer.Option("--once", help="Print once and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the oddest devices, live."""
    in_force: InForce = context.obj
    settings = in_force.settings
    if as_json:
        emit(_oddest(settings, count))
        return
    if once or not out.is_terminal:
        out.print(_ranking(_oddest(settings, count)))
        return
    with until_signalled() as stop, Live(console=out, auto_refresh=False, screen=True) as live:
        while not stop.is_set():
            live.update(_ranking(_oddest(settings, count)), refresh=True)
            stop.wait(1.0)


def _oddest(settings: Settings, count: int) -> list[dict[str, str]]:
    """The latest state of the oddest devices, from Redis.

    Raises:
        UnavailableError: Redis does not answer.
        ConfigError: ``redis.url`` is no address.
    """
    prefix = settings.redis_sink.prefix
    try:
        client: Any = redis.Redis.from_url(
            settings.redis.url.get_secret_value(), socket_timeout=5, decode_responses=True
        )
        names = client.zrevrange(f"{prefix}:oddest", 0, count - 1)
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(f"{prefix}:device:{name}")
        states = pipe.execute()
    except ValueError as error:
        raise ConfigError(f"redis.url is no address of Redis ({error}); set it as redis://host:6379/0.") from error
    except redis.RedisError as error:
        raise UnavailableError(f"Redis does not answer ({error}); start it, or set TIDEWATCH_REDIS.") from error
    return [{"device_id": name, **state} for name, state in zip(names, states, strict=True) if state]


def _ranking(devices: list[dict[str, str]]) -> Table:
    columns = ("device", "score", "severity", "state", "model", "window end", "because")
    table = Table(*columns, title="The oddest devices")
    for device in devices:
        end = datetime.fromtimestamp(int(device["window_end"]) / 1000, UTC).strftime("%H:%M:%S")
        odd = device.get("anomaly") == "1"
        why = [c["feature"] for c in msgspec.json.decode(device.get("contributors", "[]"))]
        table.add_row(
            device["device_id"],
            f"{float(device['score']):.1f}" if device.get("score") else "",
            f"{float(device['severity']):.2f}" if device.get("severity") else "",
            device["state"],
            _whose(device),
            end,
            ", ".join(why),
            style="red" if odd else None,
        )
    return table


def _whose(device: dict[str, str]) -> str:
    """Whose model judged, and with which confidence."""
    confidence = device.get("confidence")
    return device.get("model", "") + (f" {float(confidence):.0%}" if confidence else "")


def lag(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="Again every two seconds, until told to stop.")] = False,
    fail_above: Annotated[
        int | None, typer.Option(min=0, help="Exit with 1 where a group has more records than this unread.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how far the worker and the sinks are behind, by partition."""
    in_force: InForce = context.obj
    if watch and fail_above is not None:
        raise ConfigError("--watch goes on and --fail-above ends; give one of them.")
    if watch:
        _watch(in_force.settings, as_json=as_json)
        return
    groups = measure(in_force.settings)
    if as_json:
        emit(_as_object(groups, _now()))
    else:
        out.print(_lags(groups, _now()))
    late = [] if fail_above is None else exceeding(groups, fail_above)
    for group in late:
        err.print(f"{group.name} has {group.unread:,} records unread, more than {fail_above:,}.")
    raise typer.Exit(int(bool(late)))


def _now() -> int:
    return time.time_ns() // 1_000_000


def _watch(settings: Settings, *, as_json: bool) -> None:
    if as_json or not out.is_terminal:
        with until_signalled() as stop:
            while not stop.is_set():
                groups = measure(settings)
                emit(_as_object(groups, _now())) if as_json else out.print(_lags(groups, _now()))
                stop.wait(_WATCH_S)
        return
    with until_signalled() as stop, Live(console=out, auto_refresh=False, screen=True) as live:
        while not stop.is_set():
            live.update(_lags(measure(settings), _now()), refresh=True)
            stop.wait(_WATCH_S)


def _as_object(groups: Sequence[Group], now: int) -> dict[str, Any]:
    return {
        "at": now,
        "groups": [
            {
                "group": group.name,
                "role": group.role,
                "state": group.state,
                "members": group.members,
                **_sums(group, now),
                "partitions": [asdict(part) | {"age_s": _age_s(part, now)} for part in group.parts],
            }
            for group in groups
        ],
    }


def _sums(group: Group, now: int) -> dict[str, Any]:
    return {"unread": group.unread, "held": group.held, "oldest": group.oldest, "age_s": _age_s(group, now)}


def _age_s(part: Part | Group, now: int) -> float | None:
    """How long ago, by this machine's clock, the first unread record was stamped."""
    return None if part.oldest is None else (now - part.oldest) / 1000


def _lags(groups: Sequence[Group], now: int) -> Lines:
    """A line for each group, and a table of its partitions."""
    shown: list[Table | str] = []
    for group in groups:
        start = f"`tidewatch {_STARTS.get(group.role, f'sink {group.role}')}`"
        unread, held, age = _cells(group, now)
        if group.absent:
            shown.append(f"[bold]{group.name}[/]: it has never committed anything; {start} makes it")
            continue
        told = [f"{group.state}, {group.members} running", f"{unread} unread"]
        told += [f"the first stamped {age} ago"] * bool(age) + [f"{held} held by open windows"] * bool(held)
        shown += [f"[bold]{group.name}[/] ({group.role}): {', '.join(told)}", _table(group, now)]
    return Lines(*shown)


def _table(group: Group, now: int) -> Table:
    table = folded("topic", "partition", "end", "committed", "unread", "held", "age")
    for part in group.parts:
        committed = "" if part.committed is None else f"{part.committed:,}"
        table.add_row(part.topic, str(part.partition), f"{part.end:,}", committed, *_cells(part, now))
    return table


def _cells(part: Part | Group, now: int) -> tuple[str, str, str]:
    age = _age_s(part, now)
    return (
        f"{part.unread:,}",
        "" if part.held is None else f"{part.held:,}",
        "" if age is None else f"{age:,.1f} s",
    )


def config(context: typer.Context, as_json: AsJson = False) -> None:
    """Print the settings in force, where each came from, and what it means; secrets are masked."""
    in_force: InForce = context.obj
    rows = in_force.masked()
    if as_json:
        emit([asdict(row) for row in rows])
        return
    table = folded("setting", "value", "from", "meaning")
    for row in rows:
        table.add_row(row.field, row.value, row.origin, row.description)
    out.print(table)


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Check brokers, Redis, versions, topics, files; say what to fix. Exit code 1 where something fails."""
    in_force: InForce = context.obj
    findings = checks.diagnose(in_force.settings)
    if as_json:
        emit([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            colour = COLOURS[finding.state]
            out.print(f"[{colour}]{finding.state:<4}[/] {finding.name}: {finding.detail}", soft_wrap=True)
            if finding.fix:
                out.print(f"       {finding.fix}", soft_wrap=True)
    raise typer.Exit(checks.exit_code(findings))
