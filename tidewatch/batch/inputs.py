"""What there is to score: recordings, or statistics that were written before."""

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from producers.formats import FORMATS
from producers.recordings import NAMED
from scorers.errors import InputError
from sinks.folder import misfit
from sinks.names import DATED
from sinks.read import dataset
from tidewatch.batch.spec import Kind
from tidewatch.places import Found, Place


def find(source: Place) -> tuple[Kind, list[Found]]:
    """What the input holds, and its files.

    A folder with ``statistics/date=…`` is statistics; any other holds recordings: its Parquet files, or where it has
    none its text files.

    Raises:
        InputError: nothing there can be scored.
    """
    if source.local and not Path(source.path).exists() and source.name in NAMED:
        raise InputError(f"There is nothing at {source}; name the file of the published recording {source.name!r}.")
    found = source.files()
    tables = {table: [file for file in found if _dated(file, table, source)] for table in ("statistics", "predictions")}
    if tables["statistics"]:
        if source.local and (Path(source.path) / "statistics").is_dir():
            ours = {path for table in tables for path in _whole(Path(source.path), table)}
            tables = {table: [file for file in files if file.place.path in ours] for table, files in tables.items()}
        return Kind.STATISTICS, tables["statistics"] + tables["predictions"]
    parquet = [file for file in found if file.within.lower().endswith(".parquet")]
    chosen = parquet or [file for file in found if any(suffix in file.within.lower() for suffix in FORMATS)]
    if not chosen:
        raise InputError(
            f"No file of {source} is {', '.join(FORMATS)}; name a recording, or a folder of the Parquet sink."
        )
    if parquet and _statistics(parquet[0]):
        return Kind.STATISTICS, parquet
    return Kind.READINGS, chosen


def _whole(folder: Path, table: str) -> list[str]:
    """The files of a table of the sink that are there now, without strays."""
    return list(dataset(folder, table).files) if (folder / table).is_dir() else []


def _dated(file: Found, table: str, source: Place) -> bool:
    parts = (source.name, *file.within.split("/"))
    return any(one == table and DATED.fullmatch(two) for one, two in pairwise(parts))


def _statistics(file: Found) -> bool:
    try:
        with file.place.system().open_input_file(file.place.path) as opened:
            schema = pq.read_schema(opened)
    except (OSError, pa.ArrowException):
        return False
    return misfit("statistics", schema) is None
