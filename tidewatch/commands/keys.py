"""Commands of keys: who may call the service."""

import sys
import time
from typing import Annotated

import typer

from scorers.errors import ConfigError
from serving.keys import Key, KeyFile, Scope
from tidewatch.commands.flags import AsJson
from tidewatch.console import emit, err, folded, out
from tidewatch.settings import InForce
from tidewatch.spans import duration, moment

COLOURS = {"active": "green", "expired": "yellow", "revoked": "red"}

keys = typer.Typer(help="Keys of the service: make, list, revoke and rotate them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Its name, or its id.")]
Expires = Annotated[
    str | None,
    typer.Option("--expires", help="When it ends: a time, or a length of time such as 90d. Never by default."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(keys, name="keys")


@keys.command("create")
def create_key(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Whose it is, such as dashboard; logs and metrics show it.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="What it may do; may be repeated. admin includes the others. read by default."),
    ] = None,
    expires: Expires = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    now = time.time()
    _tell(
        *_file(context).create(name, scope or [Scope.READ], now=now, expires=_end(expires, now)), now, as_json=as_json
    )


@keys.command("list")
def list_keys(context: typer.Context, as_json: AsJson = False) -> None:
    """All keys, the oldest first; never the keys themselves."""
    now = time.time()
    found = [key.shown(now) for key in _file(context).held()]
    if as_json:
        emit([*found])
        return
    table = folded("id", "name", "ends in", "scopes", "created", "expires", "state")
    for key in found:
        colour = COLOURS[str(key["state"])]
        times = (str(key[name] or "")[:19] for name in ("created", "expires"))
        scopes = ", ".join(map(str, key["scopes"]))  # type: ignore[call-overload]  # a list
        table.add_row(
            str(key["id"]), str(key["name"]), str(key["last"]), scopes, *times, f"[{colour}]{key['state']}[/]"
        )
    out.print(table)


@keys.command("revoke")
def revoke_key(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """End a key; a running service refuses it within seconds."""
    now = time.time()
    ended = _file(context).revoke(name, now=now)
    if as_json:
        emit([key.shown(now) for key in ended])
        return
    for key in ended:
        out.print(f"{key.name} ({key.id}, …{key.last}) is revoked", markup=False, soft_wrap=True)


@keys.command("rotate")
def rotate_key(
    context: typer.Context,
    name: Name,
    overlap: Annotated[str, typer.Option(help="The old one goes on so long, such as 1h; 0 ends it now.")] = "0",
    expires: Expires = None,
    as_json: AsJson = False,
) -> None:
    """Make a new key of the same name and scopes, print it this once, and end the old one."""
    now = time.time()
    overlap_s = 0.0 if overlap == "0" else duration(overlap, "--overlap") / 1000
    made = _file(context).rotate(name, now=now, overlap_s=overlap_s, expires=_end(expires, now))
    _tell(*made, now, as_json=as_json)


def _file(context: typer.Context) -> KeyFile:
    in_force: InForce = context.obj
    return KeyFile(in_force.settings.serving.keys)


def _end(expires: str | None, now: float) -> float | None:
    """Epoch seconds of a time, or of now and a length of time."""
    if expires is None:
        return None
    try:
        return now + duration(expires, "--expires") / 1000
    except ConfigError:
        return moment(expires, "--expires") / 1000


def _tell(key: Key, token: str, now: float, *, as_json: bool) -> None:
    """The key alone goes to stdout, so that a script can take it."""
    if as_json:
        emit(key.shown(now) | {"key": token})
        return
    err.print(
        f"{key.name} ({key.id}) may {', '.join(key.scopes)}; keep the key, it is not shown again.",
        markup=False,
        soft_wrap=True,
    )
    sys.stdout.write(f"{token}\n")
