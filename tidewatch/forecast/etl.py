"""Session logs to hours and features: what is read, what is written where, and the account of it.

::

    files ──engine──▶ rejects/, peaks ──▶ hours/2024-01.parquet … ──▶ features/2024-01.parquet … ──▶ etl.json

All is made in a folder beside, and put in its place when it is whole; the manifest ``etl.json`` comes last. A folder
without one is not to be used.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scorers.errors import InputError, UnavailableError
from scorers.forecast.calendar import FeatureSpec, calendar
from scorers.forecast.features import QUERY
from scorers.forecast.hours import hours
from scorers.forecast.schema import DAYS, FEATURES, HOUR_MS, HOURS, LAGS
from tidewatch.forecast.local import DAY_MS, Local
from tidewatch.forecast.spec import Choice, Engine, Progress, Spans, Tally
from tidewatch.groups import Settings
from tidewatch.locks import lock
from tidewatch.places import WILD, Found, Place
from tidewatch.spans import interval

MANIFEST = "etl.json"
PARTS = ("rejects", "hours", "features")
"""Folders of the result."""
FORMAT = 1
BACK_MS = max(max(LAGS) * HOUR_MS, (max(DAYS) + 2) * DAY_MS)
"""How far before an hour its features reach."""
ENDINGS = (".csv", ".csv.gz")
"""Names of the files that are read in a folder."""


class Runner(StrEnum):
    """Where the SQL is run."""

    DUCKDB = "duckdb"
    SPARK = "spark"


@dataclass(frozen=True, slots=True)
class Request:
    """What to do: ``sources`` are files, folders, patterns or URIs, ``memory`` what DuckDB may take."""

    sources: tuple[str, ...]
    target: Path
    choice: Choice = field(default_factory=Choice)
    engine: Runner = Runner.DUCKDB
    memory: str = "2GB"


Manifest = dict[str, Any]


def etl(settings: Settings, request: Request, progress: Progress = lambda _, __, ___: None) -> Manifest:
    """Make hours and features of session logs.

    Args:
        settings: timezone, holidays, ``load.alive_h``, ``load.exclude``; S3 and Spark.
        request: what to read and where to write.
        progress: called as pieces of work are done; may raise to stop, and nothing is left half-made.

    Returns:
        the manifest, as it is kept in ``etl.json``.

    Raises:
        InputError: nothing to read, or nothing in it.
        UnavailableError: a disk, server or Spark does not answer, or another one writes to the folder.
        ConfigError: an interval, timezone, country or size of memory makes no sense.
    """
    began = monotonic()
    excluded = tuple(interval(text, "load.exclude") for text in settings.load.exclude)
    spec = FeatureSpec(settings.load.timezone, 0, settings.load.country)  # to refuse before hours are spent
    files = found(request.sources, settings.batch.s3_endpoint)
    with _stage(request.target) as stage, _engine(settings, request, stage) as engine:
        for part in PARTS:
            (stage / part).mkdir()
        tally = engine.read(files, request.choice, stage / "rejects", progress)
        _usable(tally, request)
        begin, end = (tally.first or 0) // HOUR_MS * HOUR_MS, tally.end(request.choice.until)
        if end <= begin:
            raise InputError("There is less than one whole hour between the first session and the last; read more.")
        spec = FeatureSpec(spec.timezone, begin, spec.country)
        months = _months(engine.days(), settings.load.alive_h, end)
        made = _hours(engine, months, lambda since, until: hours(settings.load.alive_h, since, until, excluded), stage,
                      progress)  # fmt: skip
        _features(engine, made, spec, stage, progress)
        manifest = _account(stage, tally, made, (begin, end), excluded) | {
            "spec": asdict(spec),
            "alive_h": settings.load.alive_h,
            "sources": {"files": len(files), "bytes": sum(file.size for file in files), "in": list(request.sources)},
            "servers_asked": sorted(request.choice.servers),
            "engine": str(request.engine),
            "seconds": round(monotonic() - began, 3),
        }
        _publish(stage, request.target, manifest)
    return manifest


def found(sources: Sequence[str], endpoint: str = "") -> list[Found]:
    """The logs that are named, each once, by path; in folders those that end in ``.csv`` or ``.csv.gz``.

    Raises:
        InputError: there is nothing.
    """
    files: dict[str, Found] = {}
    for source in sources:
        place = Place.of(source, endpoint)
        there = place.files()
        if there[0].place.path != place.path and not WILD & set(place.path):
            there = [file for file in there if file.place.name.endswith(ENDINGS)]
        if not there:
            raise InputError(
                f"There is no {' or '.join(ENDINGS)} under {place}; name a file, or a pattern such as *.log."
            )
        files |= {str(file.place): file for file in there}
    return [files[name] for name in sorted(files)]


@contextmanager
def _engine(settings: Settings, request: Request, stage: Path) -> Iterator[Engine]:
    work = stage / "work"
    work.mkdir()
    if request.engine is Runner.DUCKDB:
        with Local(work, request.memory) as local:
            yield local
        return
    spark = import_module("tidewatch.forecast.spark")  # PySpark is an extra
    with spark.engine(settings.spark, work) as engine:
        yield engine


@contextmanager
def _stage(target: Path) -> Iterator[Path]:
    """A folder within ``target`` to make things in, gone afterwards; one process at a time has one."""
    with lock(target / "_etl.lock", tries=1) as held:
        if held is None:
            raise UnavailableError(f"Another process writes to {target}; wait for it, or name another folder.")
        for stale in target.glob("_etl-*"):
            shutil.rmtree(stale, ignore_errors=True)
        try:
            with tempfile.TemporaryDirectory(prefix="_etl-", dir=target, ignore_cleanup_errors=True) as stage:
                yield Path(stage)
        except OSError as error:
            raise UnavailableError(
                f"{target} does not take what is written ({error}); see that it has room."
            ) from error


def _usable(tally: Tally, request: Request) -> None:
    if tally.chosen:
        return
    if tally.sessions:
        raise InputError(f"There is no session of {', '.join(sorted(request.choice.servers))}; see --servers.")
    if tally.last is not None:
        raise InputError("No session started between --from and --to; widen them.")
    told = ", ".join(f"{number:,} {reason}" for reason, number in tally.rejects.most_common())
    raise InputError(f"There is no session in what was read ({told or 'no lines'}); see whether it is a session log.")


def _months(days: Sequence[int], alive_h: int, end: int) -> list[tuple[str, int, int]]:
    """The months (UTC) in which there may be hours: name, and epoch ms ``[since, until)``."""
    lasting = alive_h // 24 + 2
    names = {_month((day + more) * DAY_MS) for day in days for more in (0, *range(lasting, 0, -28), lasting)}
    months = [(f"{year:04}-{month:02}", _begin(year, month), _begin(year + month // 12, month % 12 + 1))
              for year, month in sorted(names)]  # fmt: skip
    return [(name, since, min(until, end)) for name, since, until in months if since < end]


def _month(epoch_ms: int) -> tuple[int, int]:
    moment = datetime.fromtimestamp(epoch_ms / 1000, UTC)
    return moment.year, moment.month


def _begin(year: int, month: int) -> int:
    return round(datetime(year, month, 1, tzinfo=UTC).timestamp() * 1000)


Made = list[tuple[Path, int, int]]
"""A month's hours, and when they begin and end (epoch ms)."""


def _hours(
    engine: Engine,
    months: Sequence[tuple[str, int, int]],
    query: Callable[[int, int], str],
    stage: Path,
    progress: Progress,
) -> Made:
    made: Made = []
    for done, (name, since, until) in enumerate(months):
        progress("months of hours", done, len(months))
        path = stage / "hours" / f"{name}.parquet"
        engine.write(query(since, until), HOURS, path)
        if pq.read_metadata(path).num_rows:
            made.append((path, since, until))
        else:
            path.unlink()
    progress("months of hours", len(months), len(months))
    return made


def _features(engine: Engine, made: Made, spec: FeatureSpec, stage: Path, progress: Progress) -> None:
    for done, (path, since, _) in enumerate(made):
        progress("months of features", done, len(made))
        reach = since - BACK_MS
        known = engine.give([other for other, _, end in made[: done + 1] if end > reach], reach)
        engine.calendar(calendar(known, spec))
        engine.write(QUERY, FEATURES, stage / "features" / path.name)
    progress("months of features", len(made), len(made))


def _account(stage: Path, tally: Tally, made: Made, log: tuple[int, int], excluded: Spans) -> Manifest:
    """What was read and made."""
    begin, end = log
    files = [path for path, _, _ in made]
    count, servers, print_of_hours = _fingerprint(files, HOURS)
    rows, _, print_of_features = _fingerprint([stage / "features" / path.name for path in files], FEATURES)
    return {
        "format": FORMAT,
        "start": begin,
        "end": end,
        "hours": count,
        "features": rows,
        "servers": servers,
        "lines": tally.lines,
        "sessions": tally.chosen,
        "blank": tally.blank,
        "rejects": dict(sorted(tally.rejects.items())),
        "silent": _silent(tally.busy, begin, end, excluded),
        "excluded": [list(span) for span in excluded],
        "fingerprint": {"hours": print_of_hours, "features": print_of_features},
    }


def _fingerprint(files: Sequence[Path], schema: pa.Schema) -> tuple[int, int, str]:
    """Rows, servers and SHA-256 of what files hold: the same for the same rows in the same order, however written."""
    prints = [hashlib.sha256() for _ in schema]
    servers: set[str] = set()
    rows = 0
    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=schema.names):
                rows += len(batch)
                servers.update(batch["server"].unique().to_pylist())
                for known, name in zip(prints, schema.names, strict=True):
                    _feed(known, batch[name].cast(schema.field(name).type))
    return rows, len(servers), hashlib.sha256(b"".join(known.digest() for known in prints)).hexdigest()


def _feed(known: Any, column: pa.Array) -> None:
    if pa.types.is_string(column.type):
        known.update("\0".join([*column.to_pylist(), ""]).encode())
        return
    known.update(column.is_null().to_numpy(zero_copy_only=False).tobytes())
    known.update(column.fill_null(0).to_numpy().tobytes())


def _silent(busy: set[int], begin: int, end: int, excluded: Spans) -> list[list[int]]:
    """Spans of whole hours in which no server had a session, but for those excluded."""
    edges = [begin - HOUR_MS, *sorted(hour for hour in busy if hour < end), end]
    gaps = [(one + HOUR_MS, other) for one, other in pairwise(edges) if other > one + HOUR_MS]
    return [[since, until] for since, until in gaps if not any(a <= since and until <= b for a, b in excluded)]


def _publish(stage: Path, target: Path, manifest: Manifest) -> None:
    """Put what is whole in its place; what was there goes, its manifest first."""
    (target / MANIFEST).unlink(missing_ok=True)
    for part in PARTS:
        if (target / part).exists():
            (target / part).rename(stage / f"old-{part}")
        (stage / part).rename(target / part)
    draft = stage / MANIFEST
    draft.write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    draft.rename(target / MANIFEST)


def manifest(folder: Path) -> Manifest:
    """The account of what is in a folder.

    Raises:
        InputError: there is none, or one of a newer format.
    """
    try:
        told: Manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} holds no hours and features; run tidewatch load etl --out {folder}.") from error
    if told.get("format") != FORMAT:
        raise InputError(f"{folder / MANIFEST} is of another format than {FORMAT}; run tidewatch load etl again.")
    return told
