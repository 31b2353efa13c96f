"""Scores and forecasts to Parquet: the sink that keeps each, in files that never change."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scorers.errors import ConfigError, UnavailableError
from sinks.base import Batch, Origin, Positions, Source, Tally
from sinks.decode import FORECASTS, SCORES, decode
from sinks.disk import Disk
from sinks.folder import Stray, strays
from sinks.ledger import Content, Ledger
from sinks.names import Range
from sinks.table import DATED, SCHEMAS, Tables, by_date, concat, forecasts, tables
from stream.contracts import Topics

log = logging.getLogger(__name__)

DISK = Disk()
SHOWN = 3
"""Strays that a warning names."""
MAX_BYTES = 256 * 1024 * 1024
"""Rows wait in no more memory than this, however wide they are."""


@dataclass(frozen=True, slots=True)
class ParquetSpec:
    """Where files go, and when they are written.

    Rows wait in memory until there are ``max_rows`` of them (of all tables and partitions together), or
    the oldest has waited ``max_seconds``. ``compression`` is a codec of pyarrow.
    """

    folder: Path
    max_rows: int = 500_000
    max_seconds: float = 30.0
    compression: str = "zstd"
    row_group_rows: int = 100_000

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: a limit is not positive, or the codec unknown.
        """
        for name in ("max_rows", "max_seconds", "row_group_rows"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"parquet.{name} is {getattr(self, name)}; set it above 0.")
        if self.compression not in {"none", "snappy", "gzip", "brotli", "lz4", "zstd"}:
            raise ConfigError(
                f"parquet.compression is {self.compression!r}; set none, snappy, gzip, brotli, lz4 or zstd."
            )


@dataclass(slots=True)
class _Pending:
    """Rows of one source that are not durable yet."""

    first: int
    last: int
    parts: list[Tables] = field(default_factory=list)
    records: int = 0


class ParquetSink:
    """Writes ``predictions/``, ``statistics/``, ``forecasts/`` and ``rejects/`` under one folder.

    All but the last are Hive-partitioned by the UTC date of ``window_start``, or ``issued``. A file once visible is
    whole and stays as it is; names that begin with ``_`` are not for readers.
    """

    def __init__(self, spec: ParquetSpec, topics: Topics, *, disk: Disk = DISK) -> None:
        self.tally = Tally()
        self._spec = spec
        self._scores, self._forecasts = topics.scores, topics.forecasts
        self._ledger = Ledger(spec.folder, disk)
        self._positions = Positions()
        self._pending: dict[Source, _Pending] = {}
        self._rows = self._bytes = 0
        self._since: float | None = None

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics of scores and of forecasts."""
        return (self._scores, self._forecasts)

    def bind(self, origin: Origin) -> None:
        """Make the folder, or check that it is the one for ``origin``; see ``Sink``."""
        with self._disk_errors():
            self._ledger.open(origin, tuple(SCHEMAS))
            self._warn(strays(self._spec.folder, footers=False))

    def resume(self, source: Source) -> int:
        """Lock the source in this folder; see ``Sink``."""
        with self._disk_errors():
            offset = self._ledger.own(source)
        self._positions.offsets[source] = offset
        return offset

    def write(self, batch: Batch) -> None:
        """Decode a batch and keep its rows in memory; see ``Sink``."""
        fresh = self._positions.fresh(batch)
        if not fresh:
            return
        if fresh.source.topic == self._forecasts:
            rows = forecasts(fresh.source, decode(fresh, FORECASTS))
        else:
            rows = tables(fresh.source, decode(fresh, SCORES))
        pending = self._pending.setdefault(fresh.source, _Pending(fresh.offsets[0], 0))
        pending.last = fresh.offsets[-1]
        pending.parts.append(rows)
        pending.records += len(fresh)
        self._rows += rows.rows
        self._bytes += rows.nbytes

    def flush(self, now: float, *, force: bool = False) -> dict[Source, int]:
        """Write the files of every source once there are rows or seconds enough; see ``Sink``."""
        if not self._pending or not (force or self._due(now)):
            return {}
        moved = {}
        for source in list(self._pending):
            with self._disk_errors():
                moved[source] = self._roll(source)
        self._since = None
        return moved

    def release(self, source: Source) -> None:
        """Forget waiting rows and unlock; see ``Sink``."""
        self._forget(source)
        self._positions.offsets.pop(source, None)
        self._ledger.disown(source)

    def close(self) -> None:
        """Forget all waiting rows and unlock."""
        for source in list(self._positions.offsets):
            self.release(source)
        self._ledger.close()

    def _warn(self, found: list[Stray]) -> None:
        if found:
            shown = ", ".join(str(stray.path) for stray in found[:SHOWN])
            log.warning(
                "%d in the tables of %s are not files of ours and are left out, such as %s; move them away "
                "(`tidewatch compact --dry-run` names them all)", len(found), self._spec.folder, shown
            )  # fmt: skip

    def _due(self, now: float) -> bool:
        if self._since is None or now < self._since:  # the clock was set back
            self._since = now
        full = self._rows >= self._spec.max_rows or self._bytes >= MAX_BYTES
        return full or now - self._since >= self._spec.max_seconds

    def _roll(self, source: Source) -> int:
        pending = self._pending[source]
        span = Range(source, pending.first, pending.last)
        rows = concat(pending.parts)
        self._ledger.commit(span, self._files(rows))
        self.tally.add(pending.records, len(rows.rejects))
        self._forget(source)
        log.info("%s: %d records in %s", source, pending.records, span)
        return span.last + 1

    def _files(self, rows: Tables) -> dict[str, Content]:
        """What to write, by the folder it goes to."""
        files = {
            f"{name}/date={date}": self._content(part)
            for name, column in DATED.items()
            for date, part in by_date(getattr(rows, name), column)
        }
        return files | ({"rejects": self._content(rows.rejects)} if len(rows.rejects) else {})

    def _content(self, table: pa.Table) -> Content:
        spec = self._spec
        return partial(pq.write_table, table, compression=spec.compression, row_group_size=spec.row_group_rows)

    def _forget(self, source: Source) -> None:
        pending = self._pending.pop(source, None)
        if pending:
            self._rows -= sum(part.rows for part in pending.parts)
            self._bytes -= sum(part.nbytes for part in pending.parts)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnavailableError(
                f"Cannot write to {self._spec.folder} ({error.strerror or error}); free space or make it writable."
            ) from error
