"""What the Parquet sink wrote, for whoever reads it: training, evaluation, comparison."""

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from scorers.errors import InputError
from sinks.table import SCHEMAS

DATE = pa.schema([("date", pa.date32())])
"""The folder that a row is in: the UTC date of ``window_start``."""


def dataset(folder: Path, table: str) -> ds.Dataset:
    """The files of one table that are there now, to be filtered and read in pieces.

    Args:
        folder: what the Parquet sink was given.
        table: ``predictions``, ``statistics`` or ``rejects``.

    Returns:
        a dataset with the schema of ``table.SCHEMAS``, and ``date`` (date32) where files lie by date.

    Raises:
        InputError: there is no such table.
    """
    path = folder / table
    if table not in SCHEMAS or not path.is_dir():
        raise InputError(f"There is no {table} table in {folder}; let the Parquet sink write one, or name its folder.")
    if table == "rejects":
        return ds.dataset(path, SCHEMAS[table], format="parquet")
    schema = pa.unify_schemas([SCHEMAS[table], DATE])
    return ds.dataset(path, schema, format="parquet", partitioning=ds.partitioning(DATE, flavor="hive"))
