"""``python -m tests.chaos``: harm everything for some minutes, then count what is lost, doubled or wrong."""

import logging
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from scorers.errors import TidewatchError, UnavailableError
from stream.contracts import Topics
from tests.chaos import audit
from tests.chaos.drive import Driver, event_span_ms
from tests.chaos.faults import ALWAYS, AWAY, NEEDED, Faults, Schedule
from tests.chaos.load import Load, LoadSpec
from tests.chaos.recovery import Recovery
from tests.chaos.scene import PARTITIONS, SINKS, WORKERS, Ending, Scene, scene, settings
from tests.chaos.twin import INPUTS, PATIENCE_S, once, twin
from tidewatch.console import emit
from tidewatch.tail import drained

console = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Trial:
    """How long, how hard, with which dice."""

    minutes: float
    seed: int
    rate: float
    """Readings a second, floods aside."""
    gap_s: float
    """Between two faults, on average."""


@dataclass(slots=True)
class Harm:
    """What was done."""

    kinds: Counter[str]
    fenced: int
    """How often a zombie was told that its partition has another owner."""
    crashes: list[str]
    endings: list[Ending]
    recovery: dict[str, Any]


def chaos(  # noqa: PLR0913, PLR0917 - one parameter a flag
    minutes: Annotated[float, typer.Option(min=0.5, help="How long harm is done.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Decides load and faults.")] = 7,
    rate: Annotated[float, typer.Option(min=100, help="Readings a second; floods come on top.")] = 2_400.0,
    gap: Annotated[float, typer.Option(min=0.5, help="Seconds between two faults, on average.")] = 6.0,
    keep: Annotated[Path | None, typer.Option(help="Keep logs and data in this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Real Kafka, real Redis, workers and sinks, a known load, and faults; exit code 1 where anything is wrong."""
    trial = Trial(minutes, seed, rate, gap)
    with _folder(keep) as folder:
        result = run(trial, folder)
    if as_json:
        emit(result)
    if result["lost"] or result["doubled"] or result["wrong"]:
        raise typer.Exit(1)


def run(trial: Trial, folder: Path) -> dict[str, Any]:
    """One trial; what was done and what came of it."""
    spec = LoadSpec(trial.seed, 0)
    pace = trial.rate / spec.devices
    ago = 3_600_000 + event_span_ms(trial.minutes * 60, pace)
    load = Load(LoadSpec(trial.seed, (time.time_ns() // 1_000_000 - ago) // 10_000 * 10_000))
    with scene(folder, spec) as built:
        for name in (*ALWAYS, *SINKS):
            built.members[name].begin()
        with Recovery(built.broker, Topics().scores, PARTITIONS) as recovery:
            driver = Driver(built.broker, load, pace)
            with driver:
                harm = _harm(trial, built, driver, recovery)
            driver.finish()
            _settle(built, folder)
        with twin(built.broker, folder / "twin", folder / "fleet.arrow") as undisturbed:
            console.print("the undisturbed run is done; comparing")
            found = audit.Emitted.of(built.broker, whole=True)
            parts = [
                audit.log(load.truth, undisturbed.records, PARTITIONS),
                *audit.against_truth(found, load.truth),
                *audit.against_twin(found, audit.Emitted.of(undisturbed.broker, whole=False)),
                *audit.parquet(built.parquet, undisturbed.parquet),
                audit.in_redis(built.redis.url, undisturbed.redis_url),
            ]
    return _document(trial, harm, load, parts)


def _harm(trial: Trial, built: Scene, driver: Driver, recovery: Recovery) -> Harm:
    faults = Faults(built, driver)
    schedule = Schedule(faults.kinds(), random.Random(trial.seed), trial.gap_s)
    began = time.monotonic()
    while (now := time.monotonic() - began) < trial.minutes * 60 or schedule.under_way:
        for over in schedule.over(now):
            console.print(f"{now:6.1f}  over: {over.kind.name} ({over.target})")
            over.kind.end(over.target)
        others = any(fault.target in NEEDED for fault in schedule.under_way)
        # every other loss of a worker may be measured in peace
        spared = NEEDED if recovery.measuring and len(recovery.losses) % 2 else ()
        fault = schedule.due(now, spared) if now < trial.minutes * 60 else None
        if fault:
            console.print(f"{now:6.1f}  {fault.kind.name} ({fault.target}) for {fault.ends - now:.1f} s")
            if fault.target in NEEDED:
                recovery.disturb()
            if fault.kind.name in AWAY:
                recovery.lost(f"{fault.kind.name} ({fault.target})", disturbed=others)
            fault.kind.begin(fault.target)
        built.supervise()
        faults.watch()
        time.sleep(0.05)
    while faults.asked:
        faults.watch()
        time.sleep(0.05)
    kinds = Counter(fault.kind.name for fault in schedule.done)
    fenced = sum(built.members[name].log.read_text().count("has another owner") for name in WORKERS)
    return Harm(kinds, fenced, built.crashes, faults.endings, recovery.report())


def _settle(built: Scene, folder: Path) -> None:
    """Wait until workers and sinks are done with everything, then stop them."""
    console.print("the harm is done; draining")
    deadline = time.monotonic() + PATIENCE_S
    while not _drained(built):
        built.supervise()
        if time.monotonic() > deadline:
            logs = "\n".join(member.tail(40) for member in built.members.values())
            raise UnavailableError(f"The workers were not done in {PATIENCE_S:g} s:\n{logs}")
    for member in built.members.values():
        member.wanted = False
        member.stop()
    once(settings(folder, built.broker.bootstrap, built.redis.url, built.parquet), folder)


def _drained(built: Scene) -> bool:
    try:
        return drained(built.broker, "tidewatch", INPUTS, within_s=2.0)
    except UnavailableError:  # Kafka may not be quite up yet
        return False


def _document(trial: Trial, harm: Harm, load: Load, parts: list[audit.Part]) -> dict[str, Any]:
    for part in parts:
        console.print(f"{'ok  ' if part.clean else 'FAIL'} {part.name}: {part.checked:,} checked", end="")
        console.print("" if part.clean else f", lost {part.lost}, doubled {part.doubled}, wrong {part.wrong}")
        for example in part.examples:
            console.print(f"       {example}", markup=False)
    graceless = [asdict(ending) for ending in harm.endings if not ending.graceful]
    return {
        "faults": harm.kinds.total(),
        "kinds": len(harm.kinds),
        "readings": load.truth.sent,
        "sessions": load.truth.sessions,
        "windows": next(part.checked for part in parts if part.name == Topics().scores),
        "lost": sum(part.lost for part in parts),
        "doubled": sum(part.doubled for part in parts),
        "wrong": sum(part.wrong for part in parts),
        **harm.recovery,
        "fenced": harm.fenced,
        "stopped": len(harm.endings),
        "slowest_stop_s": round(max((ending.seconds for ending in harm.endings), default=0.0), 2),
        "graceless": graceless,
        "crashes": harm.crashes,
        "by_kind": dict(sorted(harm.kinds.items())),
        "parts": audit.told(parts),
        "trial": asdict(trial),
    }


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep:
        keep.mkdir(parents=True)
        yield keep
        return
    folder = Path(tempfile.mkdtemp(prefix="tidewatch-chaos-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Run; what goes wrong becomes one sentence, what was started ends."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.getLogger().setLevel(logging.ERROR)  # that Kafka is away is no news here
    try:
        typer.run(chaos)
    except TidewatchError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
