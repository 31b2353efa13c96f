"""Commands of the service: serve, and what a client needs to know of one that runs."""

import logging
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from serving import logs
from tidewatch import hosting, smoke
from tidewatch.commands.flags import AsJson
from tidewatch.console import emit, err, folded, out
from tidewatch.settings import InForce, override

KEY = "TIDEWATCH_KEY"

Url = Annotated[
    str | None, typer.Option(help="Address of the service; by default what the group `serving` of the settings says.")
]
Key = Annotated[str | None, typer.Option(envvar=KEY, help="Key of the service, if it asks for one.", show_envvar=True)]
Ca = Annotated[str | None, typer.Option(help="File of the certificates to trust, where the service's own is private.")]
Name = Annotated[str | None, typer.Argument(help="A model; by default the main fleet's first device.")]

service = typer.Typer(help="Look at a service that runs, as a client would.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(serve)
    service.command("usage")(usage)
    service.command("smoke")(smoke_test)
    app.add_typer(service, name="service")


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="The same as `--set serving.host=…`.")] = None,
    port: Annotated[int | None, typer.Option(help="The same as `--set serving.port=…`.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="The same as `--set serving.grpc_port=…`; 0: no gRPC.")] = None,
) -> None:
    """Score over HTTP and gRPC: every model of the fleet, and the load forecaster."""
    flags = {"serving.host": host, "serving.port": port, "serving.grpc_port": grpc_port}
    in_force: InForce = context.obj
    settings = override(in_force, {name: value for name, value in flags.items() if value is not None}).settings
    built = hosting.host(settings)
    logs.as_json(logging.getLogger().level)
    hosting.follow(settings)
    err.print(f"serving {hosting.url(settings)}, its documents at {hosting.url(settings)}/docs", soft_wrap=True)
    hosting.run(settings, built)


def usage(
    context: typer.Context, name: Name = None, url: Url = None, key: Key = None, ca: Ca = None, as_json: AsJson = False
) -> None:
    """A model's URL, its schema, and a sample call."""
    caller = _caller(context, url, key, ca)
    about = smoke.about(caller, name or smoke.first(caller))
    if as_json:
        emit(about)
        return
    out.print(
        f"[bold]{escape(about['name'])}[/], version {escape(about['version'])}: {about['score_url']}", soft_wrap=True
    )
    out.print(_schema(about))
    out.print(smoke.call(about, keyed=bool(key)), soft_wrap=True, markup=False)


def _schema(about: dict[str, Any]) -> Table:
    table = folded("field", "datatype", "shape", "columns", box=SIMPLE)
    for field in about["signature"]:
        table.add_row(field["name"], field["datatype"], str(field["shape"]), ", ".join(field["columns"]))
    return table


def smoke_test(
    context: typer.Context, name: Name = None, url: Url = None, key: Key = None, ca: Ca = None, as_json: AsJson = False
) -> None:
    """Call a service as a client would, each call with a traceparent; 1 if one is not answered as it should be."""
    in_force: InForce = context.obj
    steps = list(smoke.steps(_caller(context, url, key, ca), name, in_force.settings.serving.forecaster))
    failed = [step for step in steps if step.fault]
    if as_json:
        emit({"ok": not failed, "steps": [step.plain() for step in steps]})
    else:
        for step in steps:
            mark = f"[red]{escape(step.fault)}[/]" if step.fault else "[green]ok[/]"
            out.print(f"{step.ms:8.1f} ms  {escape(step.what)}  {mark}", soft_wrap=True)
            if step.fault:
                out.print(f"             traceparent {step.traceparent}")
    if failed:
        raise typer.Exit(1)


def _caller(context: typer.Context, url: str | None, key: str | None, ca: str | None) -> smoke.Caller:
    in_force: InForce = context.obj
    return smoke.Caller((url or hosting.url(in_force.settings)).rstrip("/"), key, ca)
