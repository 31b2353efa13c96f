"""What was measured, for people (a table) and for programs (one JSON object)."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench.arena import Arena
from bench.check import Check
from bench.measure import Run
from bench.runners.base import Runner
from bench.runners.ours import AT_LEAST_ONCE, EXACTLY_ONCE
from bench.setup import machine

_WIDTH = 124
"""Columns the table needs, where a pipe has none."""
Runs = Mapping[Runner, list[Run]]
"""Every repetition of every runner."""


def middle(runs: list[Run]) -> Run:
    """The run of median speed; the slower one of two."""
    return sorted(runs, key=lambda run: run.rate)[(len(runs) - 1) // 2]


def document(runs: Runs, arena: Arena, checks: Mapping[Runner, Check], load: tuple[float, ...]) -> dict[str, Any]:
    """The JSON object; ratios are ours divided by theirs."""
    (ours, *_), found = runs, {runner: middle(own) for runner, own in runs.items()}
    return {
        **{runner.name: _facts(found[runner], own) for runner, own in runs.items()},
        "ratios": {
            runner.name: round(found[ours].rate / run.rate, 4) for runner, run in found.items() if runner is not ours
        },
        **_exactly_once(runs),
        "job": asdict(arena.job) | {"readings": arena.job.readings, "results": arena.job.results},
        "checks": {runner.name: asdict(check) for runner, check in checks.items()},
        "machine": machine(arena.kafka, load),
    }


def _exactly_once(runs: Runs) -> dict[str, float]:
    """What it costs, where at-least-once has run too."""
    if AT_LEAST_ONCE not in runs:
        return {}
    costs = {"exactly_once_cost": _costs(runs), "exactly_once_cpu_cost": _cpu_costs(runs)}
    return {name: round(median(shares), 4) for name, shares in costs.items()}


def _costs(runs: Runs) -> list[float]:
    """The share of at-least-once's rate that exactly-once does not reach, turn by turn."""
    return [1 - exactly.rate / at_least.rate for exactly, at_least in _turns(runs)]


def _cpu_costs(runs: Runs) -> list[float]:
    """How much more CPU exactly-once takes, in worker and Kafka together; other work on the machine hardly shows."""
    return [exactly.total_cpu_s / at_least.total_cpu_s - 1 for exactly, at_least in _turns(runs)]


def _turns(runs: Runs) -> list[tuple[Run, Run]]:
    return list(zip(runs[EXACTLY_ONCE], runs[AT_LEAST_ONCE], strict=True))


def _facts(run: Run, runs: list[Run]) -> dict[str, Any]:
    kafka = None if run.kafka_cpu_s is None else round(run.per_million(run.kafka_cpu_s), 3)
    return {
        "readings_per_s": round(run.rate),
        "cpu_s_per_million": round(run.per_million(run.cpu_s), 3),
        "kafka_cpu_s_per_million": kafka,
        "busy_cores": round(run.busy_cores, 2),
        "peak_mb": round(run.peak_mb, 1),
        "windows": run.windows,
        "startup_s": round(run.startup_s, 2),
        "runs": [round(each.rate) for each in runs],
    }


def show(result: Mapping[str, Any], runs: Runs) -> None:
    """Print the table, the checks and the machine."""
    console = Console(file=sys.stdout, highlight=False)
    console.width = max(console.width, _WIDTH)
    table = Table(title=f"from JSON {_kind(result)} in Kafka to scored windows in Kafka", box=SIMPLE)
    table.add_column("runner", no_wrap=True)
    for heading in ("readings/s", "CPU s/M", "Kafka s/M", "busy cores", "peak MB", "windows", "ours ÷ it"):
        table.add_column(heading, justify="right", no_wrap=True)
    for runner in runs:
        table.add_row(runner.title, *_cells(result[runner.name]), _ratio(result["ratios"].get(runner.name)))
    console.print(table)
    console.print("\n".join(_lines(result, runs)), soft_wrap=True)


def _lines(result: Mapping[str, Any], runs: Runs) -> Iterator[str]:
    """What stands under the table."""
    job, machine = result["job"], result["machine"]
    spread = ", ".join(f"{runner.name} {_spread(own)}" for runner, own in runs.items())
    size = f"{job['devices']:,} devices x {job['metrics']} metrics"
    yield f"{job['readings']:,} {_kind(result)} of {size}; runs: {spread}"
    if AT_LEAST_ONCE in runs:
        yield (
            f"exactly-once costs {result['exactly_once_cost']:.0%} of throughput against at-least-once "
            f"({_range(_costs(runs))}, turn by turn), {result['exactly_once_cpu_cost']:.0%} of CPU "
            f"({_range(_cpu_costs(runs))})"
        )
    for runner in runs:
        if check := result["checks"].get(runner.name):
            scored = "all scored" if runner.scores else "not scored"
            whole = check["windows"] == job["results"]
            until = "" if whole else f" (until it was stopped after {runner.patience_s:g} s)"
            yield (
                f"{runner.name}: {check['windows']:,} windows{until}, each once, {scored}; "
                f"{check['sampled']:,} compared with pandas, worst relative difference {check['worst']:.1e}"
            )
    starts = ", ".join(f"{runner.name} {result[runner.name]['startup_s']:.1f} s" for runner in runs)
    yield f"CPU s/M: seconds of CPU a million readings; busy cores: of the machine, all it does; starting took {starts}"
    yield (
        f"{machine['kafka']}, Python {machine['python']}, {machine['cores']} cores, "
        f"load before the runs {machine['load'][0]:.1f}"
    )


def _kind(result: Mapping[str, Any]) -> str:
    """What was sent."""
    return "sessions" if result["job"]["sessions"] else "readings"


def _cells(facts: Mapping[str, Any]) -> list[str]:
    kafka = facts["kafka_cpu_s_per_million"]
    return [
        f"{facts['readings_per_s']:,}",
        f"{facts['cpu_s_per_million']:.2f}",
        "" if kafka is None else f"{kafka:.2f}",
        f"{facts['busy_cores']:.2f}",
        f"{facts['peak_mb']:,.0f}",
        f"{facts['windows']:,}" if facts["windows"] else "",
    ]


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3g}"


def _spread(runs: list[Run]) -> str:
    rates = [run.rate for run in runs]
    return f"{min(rates):,.0f} to {max(rates):,.0f}, median {median(rates):,.0f}"


def _range(shares: list[float]) -> str:
    return f"{min(shares):.0%} to {max(shares):.0%}"
