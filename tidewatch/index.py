"""The commands by name, each imported only when it is asked for: nobody waits for what another command needs."""

from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group


class Place(NamedTuple):
    """Where a command is, and what is said of it in the list of all."""

    module: str
    """Of ``tidewatch.commands``."""
    help: str
    """The first paragraph of its own."""


INDEX = {
    "up": Place(
        "up",
        "Bring everything up here: broker, Redis, worker, sinks; warm up, train, go live with faults. Ctrl-C ends it.",
    ),
    "produce": Place("feed", "Send simulated readings or sessions to Kafka."),
    "replay": Place(
        "feed", "Replay a recording, in order of event time; at its end every partition is told that it has ended."
    ),
    "worker": Place(
        "run", "Run the stream: readings in, scored windows, alerts and rejects out. Start more to share the work."
    ),
    "sink": Place(
        "sink", "Write scored windows and forecasts to Parquet, or scores, alerts and forecasts to Redis, exactly once."
    ),
    "train": Place(
        "learn",
        "Train one model per device from recorded windows; put the fleet in force if it is better than the one before.",
    ),
    "models": Place("models", "Look at the fleets that were trained, and choose the one in force."),
    "accept": Place(
        "tell",
        "Accept that the levels of devices have shifted: from now on they are typical, and the alert is resolved.",
    ),
    "score": Place(
        "batch", "Score recordings as the live stream would: same windows, models and limits, without a broker."
    ),
    "jobs": Place("batch", "What became of long work: see it, read its log, stop it."),
    "load": Place("load", "How much load each server will have: low, medium or high, 48 hours ahead."),
    "serve": Place("serve", "Score over HTTP and gRPC: every model of the fleet, and the load forecaster."),
    "service": Place("serve", "Look at a service that runs, as a client would."),
    "keys": Place("keys", "Keys of the service: make, list, revoke and rotate them."),
    "alerts": Place("look", "Follow alerts live."),
    "top": Place("look", "Show the oddest devices, live."),
    "lag": Place("look", "Show how far the worker and the sinks are behind, by partition."),
    "rejects": Place("keep", "Look at what was rejected, and send it back."),
    "doctor": Place(
        "look", "Check brokers, Redis, versions, topics, files; say what to fix. Exit code 1 where something fails."
    ),
    "config": Place(
        "look", "Print the settings in force, where each came from, and what it means; secrets are masked."
    ),
    "evaluate": Place(
        "judge", "Replay labelled recordings through the stream and measure its verdicts by their protocol."
    ),
    "compare": Place("judge", "Compare two folders of windows row by row; exit code 1 where they differ."),
    "report": Place("report", "Tell on one page what became of the fleet in a period, by what the Parquet sink kept."),
    "compact": Place("tidy", "Merge the many small files of each date into few, while sinks write and anybody reads."),
    "schedule": Place("schedule", "Run commands at their times: train, score, compact, report."),
}
"""In the order in which help shows them."""


class Index(TyperGroup):
    """A group whose help and suggestions are in the index."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=place.help) for name, place in INDEX.items()}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - Typer's signature
        """The command itself, imported by now; None if there is none of that name."""
        place = INDEX.get(cmd_name)
        return None if place is None else _commands(place.module)[cmd_name]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help by the index alone."""
        listed = TyperGroup(
            name=self.name,
            help=self.help,
            params=self.params,
            commands=dict(self.commands),
            rich_markup_mode=self.rich_markup_mode,
        )
        listed.format_help(ctx, formatter)


@cache
def _commands(module: str) -> dict[str, Any]:
    part = typer.Typer()
    import_module(f"tidewatch.commands.{module}").register(part)
    return dict(get_group(part).commands)
