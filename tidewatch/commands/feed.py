"""Commands that send: simulated fleets and recordings."""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from producers.archive import Archive, is_log
from producers.batch import Batch
from producers.columns import Columns
from producers.publish import Pace, Published, Target, publish, punctuate
from producers.recordings import NAMED, Recording, data_root, named, recording
from producers.replay import Player, Replay
from producers.sensors import SensorFleet
from producers.sessions import ServerFleet
from producers.synthesis import Varied
from scorers.errors import ConfigError, InputError
from stream.decode import EARLIEST, LATEST
from tidewatch.commands.flags import AsJson
from tidewatch.console import emit, err, progress
from tidewatch.settings import InForce
from tidewatch.signals import until_signalled
from tidewatch.spans import moment
from tidewatch.topics import prepare_topics

produce = typer.Typer(help="Send simulated readings or sessions to Kafka.", no_args_is_help=True)

Devices = Annotated[int, typer.Option(min=1, help="How many.")]
Rate = Annotated[float | None, typer.Option(help="At most so many records a second; no limit when left out.")]
Speed = Annotated[str, typer.Option(help="Event time against real time: 1, 60, … or max.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same data.")]
Start = Annotated[str | None, typer.Option(help="First event time, ISO-8601 or epoch ms; now when left out.")]
Lasting = Annotated[
    float | None, typer.Option("--for", min=0.001, help="Seconds of event time; endless when left out.")
]
FaultRate = Annotated[float, typer.Option(min=0, help="Random faults per device and hour.")]
Truth = Annotated[Path | None, typer.Option(help="Append the truth about faults to this JSON-lines file.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(produce, name="produce")
    app.command()(replay)


@produce.command()
def sensors(
    context: typer.Context,
    devices: Devices = 100,
    rate: Rate = None,
    speed: Speed = "1",
    interval: Annotated[float, typer.Option(min=0.001, help="Seconds between a device's readings.")] = 1.0,
    seed: Seed = 0,
    start: Start = None,
    lasting: Lasting = None,
    fault_rate: FaultRate = 0.0,
    truth_file: Truth = None,
    as_json: AsJson = False,
) -> None:
    """A sensor fleet: correlated metrics, daily cycles, noise, drift, and faults with ground truth."""
    pace = Pace(rate=rate, speed=_speed(speed))
    fleet = SensorFleet(
        devices,
        seed=seed,
        interval_ms=round(interval * 1000),
        start=_start(start, pace, lasting),
        fault_rate=fault_rate,
    ).build()
    in_force: InForce = context.obj
    topics = in_force.settings.topics.names()
    _report(_send(in_force, fleet, topics.readings, (pace, lasting, truth_file)), as_json=as_json)


@produce.command()
def sessions(
    context: typer.Context,
    servers: Devices = 40,
    session_rate: Annotated[float, typer.Option(help="Mean sessions per server and second.")] = 1.0,
    rate: Rate = None,
    speed: Speed = "1",
    seed: Seed = 0,
    start: Start = None,
    lasting: Lasting = None,
    fault_rate: FaultRate = 0.0,
    truth_file: Truth = None,
    varied: Annotated[
        bool, typer.Option("--varied", help="The fleet of `load generate`: holidays, trends, bursts, gaps; no faults.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """A server fleet: one record a session, with daily and weekly cycles."""
    pace = Pace(rate=rate, speed=_speed(speed))
    in_force: InForce = context.obj
    begin = _start(start, pace, lasting)
    fleet: ServerFleet | Varied
    if varied:
        if fault_rate:
            raise ConfigError("--varied has bursts and gaps, but no faults; leave out --fault-rate.")
        where = in_force.settings.load
        fleet = Varied(
            servers, seed=seed, start=begin, rate=session_rate, timezone=where.timezone, country=where.country
        )
    else:
        fleet = ServerFleet(servers, seed=seed, start=begin, rate=session_rate, fault_rate=fault_rate)
    topics = in_force.settings.topics.names()
    _report(_send(in_force, fleet.build(), topics.sessions, (pace, lasting, truth_file)), as_json=as_json)


def _send(in_force: InForce, fleet: Any, topic: str, how: tuple[Pace, float | None, Path | None]) -> Published:
    pace, lasting, truth_file = how
    settings = in_force.settings
    broker, topics = settings.kafka.broker(), settings.topics.names()
    prepare_topics(broker, topics, partitions=settings.topics.partitions, replication=settings.topics.replication)
    target = Target(broker, topic, topics.truth, truth_file)
    # a live fleet is made tick by tick, a hurried one in runs
    batches = fleet.batches(8_192 if pace.speed is None else 1)
    if lasting is not None:
        batches = before(batches, fleet.now + round(lasting * 1000))
    with until_signalled() as stop:
        return publish(batches, target, pace=pace, stop=stop.is_set)


def before(batches: Iterable[Batch], end: int) -> Iterator[Batch]:
    """The records, and the faults, that begin before ``end`` (epoch ms)."""
    for batch in batches:
        rows = int(np.searchsorted(batch.ts, end))
        if rows < len(batch):
            faults = tuple(fault for fault in batch.faults if fault.start < end)
            yield Batch(batch.keys[:rows], batch.values[:rows], batch.ts[:rows], faults)
            return
        yield batch


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--speed {text!r} is neither a number nor max.") from None


def _start(text: str | None, pace: Pace, lasting: float | None) -> int:
    """Event time begins so that it ends now at the latest: readings from the future are rejected."""
    if text is not None:
        return moment(text, "--start")
    now = time.time_ns() // 1_000_000
    if pace.speed == 1:
        return now
    return now - round((lasting if lasting is not None else 86_400.0) * 1000)


def replay(
    context: typer.Context,
    what: Annotated[str, typer.Argument(help="A file, folder or pattern, or the name of a published recording.")],
    speed: Speed = "1",
    loop: Annotated[bool, typer.Option("--loop", help="Again and again, time going on.")] = False,
    since: Annotated[str | None, typer.Option("--from", help="First event time, inclusive.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Last event time, exclusive.")] = None,
    device: Annotated[str | None, typer.Option(help="Column with the device; several as `store,brand`.")] = None,
    ts: Annotated[str | None, typer.Option(help="Column with the time.")] = None,
    metrics: Annotated[str | None, typer.Option(help="Columns with metrics, separated by commas.")] = None,
    start: Annotated[str | None, typer.Option(help="Time of row 0, where the time column numbers rows.")] = None,
    step: Annotated[
        float | None, typer.Option(help="Seconds between rows, where the time column numbers rows.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of published recordings; also TIDEWATCH_DATA.")] = None,
    as_json: AsJson = False,
) -> None:
    """Replay a recording, in order of event time; at its end every partition is told that it has ended.

    A session log (17 columns without a header) goes to the topic of sessions, in the order of its files.
    """
    since_ms = EARLIEST if since is None else moment(since, "--from")
    until_ms = LATEST if until is None else moment(until, "--to")
    if Path(what).exists() and is_log(Path(what)):
        if loop or any((device, ts, metrics, start, step)):
            raise ConfigError(
                "A session log is replayed once, with the columns it has; leave out all but --from, --to."
            )
        published, tally = send_log(context.obj, Archive(Path(what), since_ms, until_ms), Pace(speed=_speed(speed)))
        _report(published, as_json=as_json, unreadable=tally)
        return
    columns = Columns(
        device=device,
        ts=ts,
        metrics=tuple(metrics.split(",")) if metrics else None,
        start=None if start is None else moment(start, "--start"),
        step=None if step is None else round(step * 1000),
    )
    spec = Replay(_recording(what, columns, data), since_ms, until_ms, loop)
    published, tally = send(context.obj, spec, Pace(speed=_speed(speed)))
    _report(published, as_json=as_json, unreadable=tally)


def _recording(what: str, columns: Columns, data: Path | None) -> Recording:
    """What a path leads to, else the published recording of that name."""
    if Path(what).exists() or any(character in what for character in "*?.["):
        return recording(Path(what), columns)
    if what.partition("/")[0] not in NAMED:
        raise InputError(f"There is no file or folder {what!r}, nor a recording of that name: {', '.join(NAMED)}.")
    return named(what, data_root(data, os.environ))


def send(in_force: InForce, spec: Replay, pace: Pace) -> tuple[Published, dict[str, int]]:
    """Replay to the readings topic and end it there; what was sent, and how many rows were unfit by reason."""
    player, name = spec.open(), spec.recording.name
    return _play(in_force, player, (name, in_force.settings.topics.names().readings), pace, loop=spec.loop)


def send_log(in_force: InForce, log: Archive, pace: Pace) -> tuple[Published, dict[str, int]]:
    """The same of a session log, to the topic of sessions."""
    return _play(in_force, log, (log.path.name, in_force.settings.topics.names().sessions), pace)


def _play(
    in_force: InForce, player: Player | Archive, where: tuple[str, str], pace: Pace, *, loop: bool = False
) -> tuple[Published, dict[str, int]]:
    settings, (name, topic) = in_force.settings, where
    broker, topics = settings.kafka.broker(), settings.topics.names()
    prepare_topics(broker, topics, partitions=settings.topics.partitions, replication=settings.topics.replication)
    target = Target(broker, topic)
    with until_signalled() as stop, progress(f"replaying {name}") as show:
        published = publish(player.batches(show), target, pace=pace, stop=stop.is_set)
        if not (loop or stop.is_set()):
            punctuate(target, player.last)
    return published, {str(reason): count for reason, count in player.tally.rows.items()}


def _report(published: Published, *, as_json: bool, **more: Any) -> None:
    if as_json:
        emit({**asdict(published), **more})
        return
    err.print(f"{published.readings:,} records in {published.seconds:.1f} s, {published.rate:,.0f} a second")
    for name, counts in more.items():
        for reason, count in counts.items():
            err.print(f"  {name}: {count:,} rows, {reason}")
    if published.failed:
        err.print(f"  [red]{published.failed:,} records were refused by Kafka as too large[/]")
