"""Ours and others on one topic, turn by turn: who takes part, and what comes of it."""

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import typer

from bench import report
from bench.arena import Arena
from bench.check import Check, check
from bench.job import Job
from bench.measure import Run, measure
from bench.runners import RUNNERS
from bench.runners.base import Runner
from bench.runners.librdkafka import RUNNER as LIBRDKAFKA
from bench.setup import arena, console
from scorers.errors import TidewatchError

NAMES = [runner.name for runner in RUNNERS[1:]]


def runners(only: Sequence[str] | None) -> list[Runner]:
    """Ours and the others wanted.

    Raises:
        typer.BadParameter: there is none of that name.
    """
    for name in only or ():
        if name not in NAMES:
            raise typer.BadParameter(f"{name!r} is no runner; there are {', '.join(NAMES)}.", param_hint="--only")
    ours, *others = RUNNERS
    return [ours, *(other for other in others if not only or other.name in only)]


def compete(job: Job, runners: Sequence[Runner], times: int, *, keep: bool) -> dict[str, Any]:
    """Let them compete, and tell; what :func:`bench.report.document` gives, and who ``failed``."""
    load = os.getloadavg()
    with arena(job, keep=keep) as built:
        runs, checked, failed = _turns(runners, built, times)
        result = report.document(runs, built, checked, load) | {"failed": failed}
    report.show(result, runs)
    return result


def _turns(
    runners: Sequence[Runner], built: Arena, times: int
) -> tuple[dict[Runner, list[Run]], dict[Runner, Check], dict[str, str]]:
    """Let every runner have its turn, ``times`` over; the windows of each that makes some are checked.

    One that fails is told of and has no further turn, and what others have done stays; unless it is ours.
    """
    for runner in runners:
        runner.command(built)  # whatever must be installed or compiled is so before the first turn
    measure(LIBRDKAFKA, built)  # unrecorded: the broker's code and the page cache are warm for everyone
    runs, checked, failed = defaultdict[Runner, list[Run]](list), dict[Runner, Check](), dict[str, str]()
    ours, *_ = runners
    for turn in range(times):
        # there and back again: neither the broker's age nor a change of load favours one of them
        for runner in runners[:: -1 if turn % 2 else 1]:
            if runner.name in failed:
                continue
            try:
                run = measure(runner, built)
                console.print(f"{runner.name}: {run.rate:,.0f} readings/s in {run.seconds:.1f} s")
                runs[runner].append(run)
                if runner.ends is None:
                    checked[runner] = check(built, runner)
            except TidewatchError as error:
                if runner is ours:
                    raise
                console.print(f"[bold red]{runner.name} failed:[/] {error}", soft_wrap=True)
                failed[runner.name] = str(error)
    finished = {runner: own for runner, own in runs.items() if runner.name not in failed}
    return finished, {runner: checked[runner] for runner in finished if runner in checked}, failed
