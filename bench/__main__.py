"""The command line of the measurements: ``python -m bench stream``."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench import alarms as alarmed
from bench import behaviours as named
from bench import charts, guard
from bench import cold as started
from bench import curves as scaling
from bench import devices as many
from bench import formats as wire
from bench import load as loads
from bench import poison as poisoned
from bench import same as everywhere
from bench import score as scoring
from bench import serve as served
from bench import steady as steadily
from bench import swaps as swapped
from bench import training as trained
from bench.competition import NAMES, compete, runners
from bench.job import Job
from bench.poison import Case
from bench.setup import bare, console, ground
from scorers.errors import TidewatchError
from tidewatch.console import emit

QUICK_READINGS, READINGS = 1_000_000, 2_000_000
QUICK_RUNS, RUNS = 1, 3
QUICK_POISON, POISON = 500_000, 5_000_000
FLOOD, WARMING = 100, 10
DEVICES = (500, 10_000, 100_000, 1_000_000)

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def benches() -> None:
    """Measure Tidewatch beside others."""


@app.command()
def stream(  # noqa: PLR0913 - one parameter a flag
    *,
    quick: Annotated[bool, typer.Option("--quick", help="One short run of each.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
    repeat: Annotated[int | None, typer.Option(min=1, help="How many runs of each.")] = None,
    readings: Annotated[int | None, typer.Option(min=1, help="How many, made up to whole windows.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="How many devices send them.")] = 500,
    metrics: Annotated[int, typer.Option(min=1, max=256, help="How many values a reading has.")] = 8,
    sessions: Annotated[
        bool, typer.Option("--sessions", help="Sessions of servers in place of readings, nine loads each.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Leave out all runners but ours and these; of {', '.join(NAMES)}.")
    ] = None,
    record: Annotated[bool, typer.Option("--record", help="Let bench-check compare with this from now on.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the rates into this file (SVG or PNG).")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder with Kafka's data and every log.")] = False,
) -> None:
    """End-to-end readings per second beside other systems, on the same topic in the same run."""
    count = readings or (QUICK_READINGS if quick else READINGS)
    job = Job.of_sessions(count, devices) if sessions else Job.of(count, devices, metrics)
    if sessions and record:
        raise typer.BadParameter("bench-check does the job of readings again; record that.", param_hint="--record")
    result = compete(job, runners(only), repeat or (QUICK_RUNS if quick else RUNS), keep=keep)
    if record:
        guard.record(result)
    if plot:
        charts.rates(result, plot)
    if as_json:
        emit(result)
    if result["failed"]:
        raise typer.Exit(1)


@app.command()
def check(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Do the recorded job again, and fail where a ratio is more than 15 % worse than it was."""
    then = guard.recorded()
    result = compete(then.job, runners(list(then.ratios)), then.repeat, keep=False)
    worse = guard.worse(then.ratios, result["ratios"])
    if as_json:
        emit({**result, "recorded": then.ratios, "worse": worse})
    for name, (before, now) in worse.items():
        console.print(f"[bold red]worse:[/] ours ÷ {name} was {before:.3g} and is {now:.3g}", soft_wrap=True)
    if worse or result["failed"]:
        raise typer.Exit(1)


@app.command()
def poison(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
    messages: Annotated[int | None, typer.Option(min=1, help="How many, made up to whole windows.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="How many devices there are.")] = 500,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder with Kafka's data and every log.")] = False,
) -> None:
    """Records per second without poison, with as much as there are readings, and with a hundred times that."""
    count = messages or (QUICK_POISON if quick else POISON)
    whole, few = Job.of(count, devices, 8), Job.of(count // FLOOD, devices, 8)
    load = os.getloadavg()
    with ground(whole, keep=keep) as built:
        # Kafka too compiles what it does often: both kinds of records are to find it done
        poisoned.play(Case("warming up", Job.of(count // WARMING, devices, 8), 1), built)
        cases = Case("clean", whole, 0), Case("poisoned", whole, 1), Case("flooded", few, FLOOD)
        outcomes = [poisoned.play(case, built) for case in cases]
        result = poisoned.document(outcomes, built, load)
    poisoned.show(result)
    if as_json:
        emit(result)


@app.command()
def score(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
    devices: Annotated[int, typer.Option(min=1, help="How many devices have a model.")] = 1_000,
    windows: Annotated[int, typer.Option(min=scoring.CHUNK, help="How many windows are scored.")] = 200_000,
) -> None:
    """Microseconds to score a window, beside scikit-learn; no Kafka."""
    result = scoring.run(devices, windows)
    scoring.show(result)
    if as_json:
        emit(result)


@app.command()
def training(  # noqa: PLR0913 - one parameter a flag
    *,
    devices: Annotated[int, typer.Option(min=1, help="How many devices there are.")] = 10_000,
    windows: Annotated[int, typer.Option(min=60, help="How many each has.")] = 500,
    metrics: Annotated[int, typer.Option(min=1, help="How many each measures; five features a metric.")] = 5,
    killed: Annotated[bool, typer.Option("--killed", help="Once more, killed half-way and gone on with.")] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="On half of the windows, then on all, compared and registered; then score.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder with the fleet and every log.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Seconds and memory to train a model for each device, by `tidewatch train` itself; no Kafka."""
    result = trained.run(trained.Case(devices, windows, metrics), killed=killed, whole=whole, keep=keep)
    trained.show(result)
    if as_json:
        emit(result)


@app.command()
def same(
    *,
    devices: Annotated[int, typer.Option(min=1, help="How many devices there are.")] = 10,
    days: Annotated[int, typer.Option(min=3, help="How many are recorded.")] = 30,
    spark: Annotated[bool, typer.Option(help="On Spark too.")] = True,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder with results and every log.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """A recording scored live and in batch, on every engine; exit code 1 where a row differs."""
    result = everywhere.run(everywhere.Case(devices, days, spark=spark), keep=keep)
    everywhere.show(result)
    if as_json:
        emit(result)
    if not all(found["same"] for found in result["beside_live"].values()):
        raise typer.Exit(1)


@app.command()
def alarms(
    *,
    devices: Annotated[int, typer.Option(min=1, help="How many devices there are.")] = 1_000,
    weeks: Annotated[int, typer.Option(min=2, help="How many, with one that is only trained on.")] = 4,
    alerts_per_week: Annotated[float, typer.Option(min=0.01, help="False alerts asked for, a device.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Decides devices and faults.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Alerts of a simulated fleet in health beside those asked for, and the faults they find; no Kafka."""
    result = alarmed.run(alarmed.Case(devices, weeks, alerts_per_week, seed))
    alarmed.show(result)
    if as_json:
        emit(result)


@app.command()
def behaviours(
    *,
    devices: Annotated[int, typer.Option(min=1, help="How many devices there are, at each pace.")] = 200,
    seed: Annotated[int, typer.Option(help="Decides devices and faults.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Which behaviour alerts name, beside the faults of a simulated fleet; no Kafka."""
    result = named.run(devices, seed)
    named.show(result)
    if as_json:
        emit(result)


@app.command()
def cold(
    *,
    new: Annotated[int, typer.Option(min=1, help="How many new devices of each of five types.")] = 40,
    seed: Annotated[int, typer.Option(help="Decides devices and faults.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """What models of few windows and models of types promise of new devices, and what comes of it; no Kafka."""
    result = started.run(started.Case(new, seed))
    started.show(result)
    if as_json:
        emit(result)


@app.command()
def formats(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
    readings: Annotated[int, typer.Option(min=1, help="How many, made up to whole windows.")] = wire.READINGS,
) -> None:
    """Microseconds to take in a reading, as JSON and in Arrow batches; no Kafka."""
    result = wire.run(readings, os.getloadavg())
    wire.show(result)
    if as_json:
        emit(result)


@app.command()
def steady(
    *,
    rate: Annotated[int, typer.Option(min=100, help="Readings a second, one from each device.")] = 20_000,
    minutes: Annotated[float, typer.Option(min=0.5, help="For how long.")] = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw memory over time into this file (SVG or PNG).")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder with Kafka's data and every log.")] = False,
) -> None:
    """Seconds from the reading that closes a window to its score and its alert, and memory, at a steady rate."""
    with ground(Job(1, rate, 8), keep=keep) as built:
        result = steadily.run(built, minutes)
    steadily.show(result)
    if plot:
        charts.memory(result, plot)
    if as_json:
        emit(result)


@app.command()
def devices(
    *,
    numbers: Annotated[
        list[int] | None, typer.Option("--number", min=1, help="How many devices; may be repeated.")
    ] = None,
    readings: Annotated[int, typer.Option(min=1, help="At least so many, for each number of devices.")] = 4_000_000,
    metrics: Annotated[int, typer.Option(min=1, max=256, help="How many values a reading has.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder with Kafka's data and every log.")] = False,
) -> None:
    """Readings a second and memory against the number of devices, a window open for each, without models."""
    with bare(Job(1, 1, metrics), keep=keep) as built:
        result = many.run(built, numbers or DEVICES, readings)
    many.show(result)
    if as_json:
        emit(result)


@app.command()
def curves(  # noqa: PLR0913 - one parameter a flag
    *,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Only this curve; may be repeated; of {', '.join(scaling.TITLES)}.")
    ] = None,
    readings: Annotated[
        int, typer.Option(min=1, help="About so many for each point; fewer where each costs more.")
    ] = scaling.READINGS,
    rates: Annotated[
        list[int] | None, typer.Option("--rate", min=100, help="A steady load of the latency curve; may be repeated.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.5, help="For how long each steady load lasts.")] = 1.0,
    no_models: Annotated[bool, typer.Option("--no-models", help="Make windows without scoring them.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the curves into this file (SVG or PNG).")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder with Kafka's data and every log.")] = False,
) -> None:
    """How our worker scales: against metrics, windows, partitions, workers and batches, and latency against load."""
    ask = scaling.Ask(_wanted(only), readings, rates or scaling.RATES, minutes, scored=not no_models)
    result = scaling.run(ask, os.getloadavg(), keep=keep)
    scaling.show(result)
    if plot:
        charts.curves(result, plot)
    if as_json:
        emit(result)


app.command("load")(loads.load)


def _wanted(only: Sequence[str] | None) -> list[str]:
    """The curves wanted, in their order.

    Raises:
        typer.BadParameter: there is none of that name.
    """
    for name in only or ():
        if name not in scaling.TITLES:
            raise typer.BadParameter(
                f"{name!r} is no curve; there are {', '.join(scaling.TITLES)}.", param_hint="--only"
            )
    return [name for name in scaling.TITLES if not only or name in only]


@app.command()
def serve(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Three seconds each in place of fifteen.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
    only: Annotated[str | None, typer.Option(help="Measure `tidewatch` or `mlserver` alone.")] = None,
) -> None:
    """Requests per second over HTTP beside MLServer: 15 one-class SVMs, the same requests."""
    result = served.run(3.0 if quick else 15.0, only)
    served.show(result)
    if as_json:
        emit(result)


@app.command()
def swaps(  # noqa: PLR0913 - one parameter a flag
    *,
    seconds: Annotated[float, typer.Option(min=1, help="For how long, before the service is told to leave.")] = 60.0,
    times: Annotated[int, typer.Option("--swaps", min=1, help="How many times the champion is swapped.")] = 10,
    connections: Annotated[int, typer.Option(min=1, help="Connections of HTTP.")] = 32,
    grpc: Annotated[int, typer.Option(min=0, help="Connections of gRPC.")] = 4,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder with the fleets and every log.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """The service under load while its champion is swapped and while it leaves; exit code 1 where a request failed."""
    result = swapped.run(swapped.Case(seconds, times, connections, grpc), keep=keep)
    swapped.show(result)
    if as_json:
        emit(result)
    if swapped.failed(result):
        raise typer.Exit(1)


def main() -> None:
    """Run a command; what goes wrong becomes one sentence, what was started ends."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(standalone_mode=True)
    except TidewatchError as error:
        console.print(f"[bold red]error:[/] {error}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
