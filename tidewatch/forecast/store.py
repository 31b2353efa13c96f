"""Hours and features on disk, and which forecaster is in force."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from scorers.errors import InputError
from scorers.forecast.calendar import FeatureSpec
from scorers.forecast.schema import FEATURES, HOUR_MS, HOURS
from scorers.whole import replacing
from tidewatch.forecast.etl import MANIFEST, manifest

_ETL = "run `tidewatch load etl`, or name another folder"


def root(folder: Path) -> Path:
    """The folder that `tidewatch load etl` wrote, given it or its ``features``."""
    return folder.parent if folder.name == "features" and (folder.parent / MANIFEST).exists() else folder


def spec(folder: Path) -> FeatureSpec:
    """What the features in an ETL's folder mean.

    Raises:
        InputError: nothing there says so.
    """
    told = manifest(folder)["spec"]
    return FeatureSpec(told["timezone"], told["start"], told["country"])


def hours(folder: Path, *, since: int | None = None, until: int | None = None) -> pa.Table:
    """``HOURS`` in a folder, those that begin at ``since`` or later and before ``until`` (epoch ms).

    Raises:
        InputError: it has none.
    """
    wanted = None
    if since is not None:
        wanted = ds.field("hour") >= since
    if until is not None:
        before = ds.field("hour") < until
        wanted = before if wanted is None else wanted & before
    return _read(folder, HOURS, "hours", wanted)


def features(folder: Path) -> pa.Table:
    """``FEATURES`` in a folder.

    Raises:
        InputError: it has none.
    """
    return _read(folder, FEATURES, "features")


def extent(folder: Path) -> tuple[Sequence[str], int]:
    """All servers that hours tell of, by name, and the end of the last hour (epoch ms).

    Raises:
        InputError: there are none.
    """
    seen = _read(folder, pa.schema([HOURS.field("server"), HOURS.field("hour")]), "hours")
    last = seen.group_by("server").aggregate([("hour", "max")]).sort_by("server")
    return last["server"].to_pylist(), max(last["hour_max"].to_pylist()) + HOUR_MS


def _read(folder: Path, schema: pa.Schema, what: str, wanted: ds.Expression | None = None) -> pa.Table:
    if not folder.exists():
        raise InputError(f"There is no folder {str(folder)!r} with {what}; {_ETL}.")
    try:
        files = ds.dataset(folder, format="parquet", partitioning="hive")
        lacking = [name for name in schema.names if name not in files.schema.names]
        if lacking:
            raise InputError(f"{folder} holds no {what}: {', '.join(lacking[:5])} is missing; {_ETL}.")
        table = files.to_table(columns=schema.names, filter=wanted).cast(schema).combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"The {what} in {folder} cannot be read ({error}); {_ETL}.") from error
    if not len(table):
        raise InputError(f"{folder} holds no {what}{'' if wanted is None else ' of that time'}; {_ETL}.")
    return table


def write(table: pa.Table, path: Path) -> None:
    """A Parquet file that appears whole.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with replacing(path) as file:
            pq.write_table(table, file)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error}); name a file in a folder with room.") from error
