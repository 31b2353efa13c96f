"""The command line.

Exit codes: 0 done, 1 a check failed, 2 wrong usage or settings, 3 unusable input or model, 4 Kafka,
Redis or a disk does not answer, 130 interrupted. What goes on until it is told to stop ends well on
Ctrl-C or SIGTERM, with 0, and at once on the second.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from scorers.errors import ConfigError, InputError, ModelError, TidewatchError, UnavailableError
from tidewatch.console import Level, err, log_from
from tidewatch.index import Index
from tidewatch.signals import INTERRUPTED, as_usual

EXIT_CODES: dict[type[TidewatchError], int] = {ConfigError: 2, InputError: 3, ModelError: 3, UnavailableError: 4}

app = typer.Typer(
    name="tidewatch",
    cls=Index,
    help="Watches a fleet through its event streams: windows, scores, alerts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(  # noqa: PLR0913, PLR0917 - a command has one parameter a flag
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="Settings file; `tidewatch.toml` here if there is one.")] = None,
    kafka: Annotated[str | None, typer.Option(help="Brokers as host:port,…; also TIDEWATCH_KAFKA.")] = None,
    redis: Annotated[str | None, typer.Option(help="Address of Redis; also TIDEWATCH_REDIS.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting, as `window.size_s=5`; may be repeated.")
    ] = None,
    log: Annotated[
        Level, typer.Option(envvar="LOG_LEVEL", case_sensitive=False, help="Least serious messages to log.")
    ] = Level.WARNING,
) -> None:
    """Settings come from their defaults, `tidewatch.toml`, the environment and these flags, in that order."""
    from tidewatch import settings  # noqa: PLC0415 - half a second, which only those who run a command are to pay

    log_from(log)
    flags: dict[str, object] = {"kafka.bootstrap": kafka, "redis.url": redis}
    for text in assign or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text!r} is not of the form group.name=value, such as window.size_s=5.")
        flags[name.strip()] = value.strip()
    context.obj = settings.load(flags, config=config)
    as_usual()


def main() -> None:
    """Run a command; what goes wrong becomes one sentence and an exit code."""
    words, sys.argv[1:] = sys.argv[1:], []  # as it is imported, Faust takes any --loop or --datadir of ours for its own
    try:
        app(words)
    except TidewatchError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", markup=True, soft_wrap=True)
        sys.exit(next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
