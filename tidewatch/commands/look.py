"""Commands that look: alerts as they come, the oddest devices, settings, and what is wrong."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import redis
import typer
from rich.live import Live
from rich.table import Table

from scorers.errors import ConfigError, UnavailableError
from stream.contracts import Alert
from tidewatch import doctor as checks
from tidewatch.commands.feed import AsJson
from tidewatch.console import COLOURS, alert_line, emit, out
from tidewatch.settings import InForce, Settings
from tidewatch.tail import follow, gather
from tidewatch.wiring import until_signalled


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (alerts, top, config, doctor):
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
    table = Table("device", "score", "severity", "state", "window end", "because", title="The oddest devices")
    for device in devices:
        end = datetime.fromtimestamp(int(device["window_end"]) / 1000, UTC).strftime("%H:%M:%S")
        odd = device.get("anomaly") == "1"
        why = [c["feature"] for c in msgspec.json.decode(device.get("contributors", "[]"))]
        table.add_row(
            device["device_id"],
            f"{float(device['score']):.1f}" if device.get("score") else "",
            f"{float(device['severity']):.2f}" if device.get("severity") else "",
            device["state"],
            end,
            ", ".join(why),
            style="red" if odd else None,
        )
    return table


def config(context: typer.Context, as_json: AsJson = False) -> None:
    """Print the settings in force, where each came from, and what it means; secrets are masked."""
    in_force: InForce = context.obj
    rows = in_force.masked()
    if as_json:
        emit([asdict(row) for row in rows])
        return
    table = Table("setting", "value", "from", "meaning")
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
