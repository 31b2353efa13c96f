"""The first command: everything, on this machine, with faults to watch."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from tidewatch.commands.flags import AsJson
from tidewatch.console import emit, err, folded, out
from tidewatch.demo import Demo, Scene
from tidewatch.settings import InForce, mask, override
from tidewatch.signals import until_signalled
from tidewatch.stack import Stack, local_stack

KEYS = (
    "readings", "windows", "scores", "anomalies", "alerts", "rejects",
    "parquet_rows", "redis_keys", "fault_recall", "false_alarm_rate", "seconds",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(up)


def up(
    context: typer.Context,
    lasting: Annotated[
        float | None, typer.Option("--for", min=45, help="Seconds after which it ends by itself.")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="Simulated devices.")] = 40,
    seed: Annotated[int, typer.Option(help="The same seed simulates the same fleet and faults.")] = 0,
    speed: Annotated[float, typer.Option(min=1, help="Event time against real time, while live.")] = 30.0,
    fault_rate: Annotated[float, typer.Option(min=0, help="Random faults per device and hour.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Bring everything up here: broker, Redis, worker, sinks; warm up, train, go live with faults. Ctrl-C ends it."""
    in_force: InForce = context.obj
    scene = Scene(devices, seed, speed, fault_rate, lasting_s=lasting)
    with until_signalled() as stop, local_stack(in_force) as stack:
        folder = Path("var/up") / time.strftime("%Y%m%d-%H%M%S")
        folder.mkdir(parents=True, exist_ok=True)
        mine = _settings(in_force, stack, folder)
        _welcome(mine, stack, folder)
        summary = Demo(mine, stack, scene, folder, lambda text: err.print(text, soft_wrap=True), stop).run()
    if not summary["faults"]:
        err.print(
            "No fault had come and gone when time was up, so none could be found: give --for more, or leave it out."
        )
    (folder / "summary.json").write_text(json.dumps(summary, indent=2))
    if as_json:
        emit({key: summary[key] for key in KEYS})
    else:
        _show(summary)


def _settings(in_force: InForce, stack: Stack, folder: Path) -> InForce:
    """The settings in force, pointed at this stack and this folder."""
    prompt = {"parquet.max_seconds": 2.0, "worker.epoch_s": 0.5}
    return override(
        in_force,
        {
            "kafka.bootstrap": stack.broker.bootstrap,
            "redis.url": stack.redis_url,
            "topics.partitions": stack.partitions,
            "parquet.folder": folder / "parquet",
            "worker.fleet": folder / "fleet.arrow",
            "models.registry": "",
            "models.folder": folder / "models",
            **{name: value for name, value in prompt.items() if not in_force.configured(name)},
        },
    )


def _welcome(in_force: InForce, stack: Stack, folder: Path) -> None:
    for note in stack.notes:
        err.print(note, soft_wrap=True)
    where = f"--kafka {stack.broker.bootstrap} --redis {mask(in_force.settings.redis.url)}"
    err.print(f"Look while it runs:  tidewatch {where} top   or   … alerts", soft_wrap=True)
    err.print(f"Parquet, fleet and logs: {folder}", soft_wrap=True)


def _show(summary: dict[str, Any]) -> None:
    table = folded("what", "came of it", title="Tidewatch")
    for key in KEYS:
        value = summary[key]
        shown = f"{value:.2%}" if key in {"fault_recall", "false_alarm_rate"} else f"{value:,}"
        table.add_row(key.replace("_", " "), shown)
    for kind, found in summary["kinds"].items():
        table.add_row(f"  {kind.replace('_', ' ')} found", found)
    out.print(table)
