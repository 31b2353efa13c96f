"""Are two Parquet folders the same? Row by row, in DuckDB, whatever their size.

Rows belong together by device and window, and metric in ``statistics``. Where a row came from
(``kafka_partition``, ``kafka_offset``, file) is left out.
"""

import tempfile
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from scorers.source import attached
from sinks.read import dataset
from sinks.table import SCHEMAS

WINDOW = ("source", "device_id", "window_start", "window_end")
KEYS = {"predictions": WINDOW, "statistics": (*WINDOW, "metric")}
COLUMNS = {
    name: [field for field in SCHEMAS[name] if field.name not in keys and not field.name.startswith("kafka_")]
    for name, keys in KEYS.items()
}
EXAMPLES = 5
MACROS = """
CREATE MACRO differs(a, b) AS CASE WHEN a IS NOT DISTINCT FROM b THEN 0.0 ELSE 'inf'::DOUBLE END;
CREATE MACRO gap(a, b) AS
    CASE WHEN a IS NULL OR b IS NULL THEN differs(a, b) WHEN a = b THEN 0.0 ELSE abs(a::DOUBLE - b::DOUBLE) END;
CREATE MACRO contributors_gap(a, b) AS greatest(
    differs([c.feature FOR c IN a], [c.feature FOR c IN b]),
    coalesce(list_max([
        greatest(gap(p[1].share, p[2].share), gap(p[1].actual, p[2].actual), gap(p[1].typical, p[2].typical))
        FOR p IN list_zip(a, b)
    ]), 0.0)
);
"""
"""How far two values are apart: 0 where they are the same, infinite where they cannot be subtracted."""


@dataclass(frozen=True, slots=True)
class TableDifference:
    """How two tables differ; beyond ``rows`` everything counts keys, but ``duplicated`` rows too many."""

    table: str
    examples: tuple[str, ...]
    """A few of the rows that are only on one side, duplicated or differing."""
    left_rows: int
    right_rows: int
    left_only: int
    right_only: int
    left_duplicated: int
    right_duplicated: int
    differing: int
    largest: float
    """The largest absolute difference between two numbers; infinite where one of them is null."""

    def __str__(self) -> str:
        if self.same:
            return f"{self.table}: the same {self.left_rows:,} rows"
        counts = (
            (self.left_only, "left only"),
            (self.right_only, "right only"),
            (self.left_duplicated, "too many left"),
            (self.right_duplicated, "too many right"),
            (self.differing, "differing" + (f" by up to {self.largest:g}" if isfinite(self.largest) else "")),
        )
        told = ", ".join(f"{count:,} {what}" for count, what in counts if count)
        rows = f"{self.left_rows:,} rows left, {self.right_rows:,} right"
        return "\n".join([f"{self.table}: {rows}; {told}", *(f"  {example}" for example in self.examples)])

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        found = (self.left_only, self.right_only, self.left_duplicated, self.right_duplicated, self.differing)
        return not any(found)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two folders differ, table by table."""

    tables: tuple[TableDifference, ...]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return all(table.same for table in self.tables)


def compare(left: Path, right: Path, *, tolerance: float = 0.0) -> Comparison:
    """Compare ``predictions`` and ``statistics`` of two folders of the Parquet sink.

    Args:
        left: one folder.
        right: the other.
        tolerance: the largest absolute difference between two numbers that still counts as equal.

    Raises:
        InputError: a folder lacks a table.
    """
    with tempfile.TemporaryDirectory() as spill, duckdb.connect(config={"temp_directory": spill}) as database:
        database.execute(MACROS)
        return Comparison(tuple(_compare(database, table, (left, right), tolerance) for table in KEYS))


def _compare(
    database: duckdb.DuckDBPyConnection, table: str, folders: tuple[Path, Path], tolerance: float
) -> TableDifference:
    left, right = (dataset(folder, table) for folder in folders)
    with attached(database, "l_rows", left), attached(database, "r_rows", right):
        database.execute(f"CREATE OR REPLACE TEMP TABLE pairs AS {_pairs(table)}", {"tolerance": tolerance})
    counts: Any = database.execute(COUNTS).fetchall()[0]
    examples = database.execute(f"{_examples(table)} LIMIT {EXAMPLES}").fetchall()
    return TableDifference(table, tuple(example for (example,) in examples), *counts)


COUNTS = """
SELECT
    coalesce(sum(lefts), 0)::BIGINT,
    coalesce(sum(rights), 0)::BIGINT,
    count(*) FILTER (rights = 0),
    count(*) FILTER (lefts = 0),
    coalesce(sum(greatest(lefts - 1, 0)), 0)::BIGINT,
    coalesce(sum(greatest(rights - 1, 0)), 0)::BIGINT,
    count(*) FILTER (wrong != ''),
    coalesce(max(gap), 0.0)
FROM pairs
"""
"""The numbers of ``TableDifference``, in its order."""


def _pairs(table: str) -> str:
    """SQL for one row per key: how often it is on either side, the largest gap, and which columns are apart."""
    keys = KEYS[table]
    joined = " AND ".join(f"l.{key} = r.{key}" for key in keys)
    shown = ", ".join(f"coalesce(l.{key}, r.{key}) AS {key}" for key in keys)
    gaps = {field.name: _gap(field) for field in COLUMNS[table]}
    wrong = ", ".join(
        f"CASE WHEN {gap} > $tolerance THEN concat('{name} ', {_text('l', name)}, ' against ', {_text('r', name)}) END"
        for name, gap in gaps.items()
    )
    both = "l.copies > 0 AND r.copies > 0"
    return f"""
SELECT {shown}, coalesce(l.copies, 0) AS lefts, coalesce(r.copies, 0) AS rights,
    CASE WHEN {both} THEN greatest({", ".join(gaps.values())}) END AS gap,
    CASE WHEN {both} THEN concat_ws(', ', {wrong}) ELSE '' END AS wrong
FROM ({_side("l", table)}) l FULL JOIN ({_side("r", table)}) r ON {joined}
"""  # noqa: S608  # names come from our own schemas


def _side(side: str, table: str) -> str:
    """SQL for one row per key of one side."""
    keys = ", ".join(KEYS[table])
    columns = ", ".join(f"any_value({field.name}) AS {field.name}" for field in COLUMNS[table])
    return f"SELECT {keys}, count(*) AS copies, {columns} FROM {side}_rows GROUP BY {keys}"  # noqa: S608  # as above


def _gap(field: pa.Field) -> str:
    numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    name = "contributors_gap" if field.name == "contributors" else "gap" if numeric else "differs"
    return f"{name}(l.{field.name}, r.{field.name})"


def _text(side: str, name: str) -> str:
    return f"coalesce({side}.{name}::VARCHAR, 'null')"


def _examples(table: str) -> str:
    """SQL for one line per pair that is not the same, those that differ in value first."""
    metric = ", ' ', metric" if "metric" in KEYS[table] else ""
    return f"""
SELECT concat(source, '/', device_id, ' ', epoch_ms(epoch_ms(window_start)), 'Z'{metric}, ': ', CASE
    WHEN rights = 0 THEN 'left only' WHEN lefts = 0 THEN 'right only'
    WHEN wrong != '' THEN wrong
    ELSE concat(lefts, ' times left, ', rights, ' times right') END)
FROM pairs WHERE lefts != 1 OR rights != 1 OR wrong != '' ORDER BY wrong = '', 1
"""  # noqa: S608  # as above
