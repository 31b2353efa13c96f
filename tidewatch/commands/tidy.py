"""The command that keeps the Parquet folder in order."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from signal import SIGTERM, default_int_handler, signal
from typing import Annotated, Any

import typer

from scorers.errors import ConfigError
from sinks.compact import Compaction, CompactSpec, compact, plan
from sinks.parquet import ParquetSpec
from sinks.table import SCHEMAS
from tidewatch.commands.flags import AsJson
from tidewatch.console import emit, err, out, progress
from tidewatch.settings import InForce

MB = 1024 * 1024


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compact")(tidy)


def tidy(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Argument(help="The Parquet sink's folder; `parquet.folder`.")] = None,
    table: Annotated[list[str] | None, typer.Option(help="Only this table; may be repeated.")] = None,
    since: Annotated[str | None, typer.Option(help="Only dates from this one on, such as 2026-11-01.")] = None,
    until: Annotated[str | None, typer.Option(help="Only dates before this one.")] = None,
    min_files: Annotated[int, typer.Option(help="Leave a date alone that has fewer small files.")] = 4,
    target_mb: Annotated[float, typer.Option(help="Smaller files are small; merged ones become this large.")] = 128.0,
    keep_s: Annotated[float, typer.Option(help="Keep what was replaced so long, for those who read it.")] = 600.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be merged.")] = False,
    as_json: AsJson = False,
) -> None:
    """Merge the many small files of each date into few, while sinks write and anybody reads.

    Exit code 1 where it found what is not ours, or torn: that is reported, and stays where it is.
    """
    in_force: InForce = context.obj
    spec = CompactSpec(
        ParquetSpec(folder or in_force.settings.parquet.folder),
        tuple(table or SCHEMAS),
        _date(since, "--since"),
        _date(until, "--until"),
        min_files=min_files,
        target_mb=target_mb,
        keep_s=keep_s,
    )
    done = plan(spec) if dry_run else _compact(spec)
    if as_json:
        emit({"dry_run": dry_run, **_plain(done)})
    else:
        _show(done, dry_run=dry_run)
    if done.strays:
        raise typer.Exit(1)


def _compact(spec: CompactSpec) -> Compaction:
    with _terminable(), progress("merging rows") as show:
        return compact(spec, time.time(), progress=show)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: leave everything in order, then end."""
    before = signal(SIGTERM, default_int_handler)
    try:
        yield
    finally:
        signal(SIGTERM, before)


def _date(text: str | None, flag: str) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{flag} {text!r} is no date; give it as 2026-11-21.") from error


def _plain(done: Compaction) -> dict[str, Any]:
    return {
        "merges": [{**asdict(merge), "path": str(merge.path)} for merge in done.merges],
        "strays": [{"path": str(stray.path), "why": stray.why} for stray in done.strays],
        "kept_bytes": done.kept_bytes,
    }


def _show(done: Compaction, *, dry_run: bool) -> None:
    for merge in done.merges:
        before = f"{merge.path}: {merge.files_before:,} files of {merge.bytes_before / MB:.1f} MB"
        after = "would be merged" if dry_run else f"became {merge.files_after:,} of {merge.bytes_after / MB:.1f} MB"
        out.print(f"{before} {after}, {merge.rows:,} rows", soft_wrap=True)
    if not done.merges:
        out.print("Nothing to merge.")
    if done.kept_bytes:
        kept = f"{done.kept_bytes / MB:.1f} MB"
        out.print(f"{kept} of replaced files are kept for readers; a later compaction deletes them.", soft_wrap=True)
    for stray in done.strays:
        err.print(f"[yellow]left out:[/] {stray}", soft_wrap=True)
