"""What there is to replay: files on disk, and the published recordings known by name, with their labels."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyarrow import parquet

from producers.columns import Columns, detect, identify, stamps
from producers.formats import FORMATS, Tally, columns_of, read, require
from scorers.errors import InputError

FIRST = 1_704_067_200_000
"""2024-01-01T00:00:00Z: where a named recording without times is put."""
MINUTE_MS = 60_000
SAMPLE = 8_192
"""Rows that are looked at to find out which column is what."""
USUAL_ROOT = Path("../shared/data")


@dataclass(frozen=True, slots=True)
class Labels:
    """What a benchmark knows about its rows.

    ``columns`` hold the labels. The first ``train_rows`` of each device are for training, its first ``train_share``,
    or the rows where ``train_flag`` is set; the rest are for testing.
    """

    columns: tuple[str, ...] = ()
    train_rows: int = 0
    train_share: float = 0.0
    train_flag: str | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """The metrics that explain an event, from row ``first`` to row ``last`` of its device's test rows."""

    first: int
    last: int
    metrics: frozenset[str]


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a recording; ``split`` is ``train`` or ``test`` where the benchmark splits by file."""

    path: Path
    columns: Columns
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """Files that are replayed together, in order of event time."""

    name: str
    parts: tuple[Part, ...]
    labelled: Labels | None = None


def recording(path: Path, columns: Columns | None = None) -> Recording:
    """A file, a folder of files or a pattern such as ``data/2024-*.parquet``, with its columns found.

    A file without a device column is one device named after the file.

    Raises:
        InputError: nothing there, or no column to take time or metrics from.
    """
    parts = tuple(_part(file, columns or Columns()) for file in _files(path))
    return Recording(path.stem, parts)


def _files(path: Path) -> list[Path]:
    """A folder means its Parquet files, or where it has none its text files."""
    if path.is_dir():
        known = [file for file in path.rglob("*") if any(suffix.lower() in FORMATS for suffix in file.suffixes)]
        found = [file for file in known if file.suffix.lower() == ".parquet"] or known
    else:
        anchor = Path(path.anchor)
        found = [path] if path.exists() else list(anchor.glob(str(path.relative_to(anchor))))
    if not found:
        raise InputError(
            f"There is no recording at {str(path)!r}; give a file, folder or pattern of {', '.join(FORMATS)}."
        )
    return sorted(found)


def _part(path: Path, columns: Columns) -> Part:
    names = columns_of(path)
    sample = next((table for table in read(path, names, rows=SAMPLE, tally=Tally()) if len(table)), None)
    if sample is None:
        raise InputError(f"{str(path)!r} holds no rows; leave it out.")
    found = detect(columns, sample, path=path)
    require(path, found.wanted, names)
    return Part(path, found)


def data_root(explicit: Path | None, environ: Mapping[str, str]) -> Path:
    """The folder of the published recordings: the one given, else ``TIDEWATCH_DATA``, else the usual place.

    Raises:
        InputError: it is not there.
    """
    root = explicit or Path(environ.get("TIDEWATCH_DATA") or USUAL_ROOT)
    if not root.is_dir():
        raise InputError(
            f"There is no folder of recordings at {str(root)!r}; set TIDEWATCH_DATA, or give it with --data."
        )
    return root


def named(name: str, root: Path) -> Recording:
    """A published recording such as ``skab``, ``smd/machine-1-2`` or ``workload/worldcup98_requests_per_minute``.

    ``root`` is the folder of all recordings or of this one.

    Raises:
        InputError: no such recording, or its files are not under ``root``.
    """
    dataset, _, member = name.partition("/")
    build = NAMED.get(dataset)
    if build is None:
        raise InputError(f"There is no recording named {name!r}; use one of {', '.join(NAMED)}, or give a path.")
    folder = root / dataset if (root / dataset).is_dir() else root
    return replace(build(folder, member), name=name)


def labels(recorded: Recording, *, metrics: bool = False) -> pd.DataFrame:
    """What is known about each row: ``device``, ``ts`` (epoch ms), ``split`` (train or test), then the labels.

    Rows are in file order; a label that a file lacks (as in files for training) is 0. With ``metrics`` these follow.

    Raises:
        InputError: the recording has no labels.
    """
    if recorded.labelled is None:
        raise InputError(f"Recording {recorded.name!r} has no labels; evaluate one of {', '.join(NAMED)}.")
    frames = [_part_labels(part, recorded.labelled, metrics=metrics) for part in recorded.parts]
    return pd.concat(frames, ignore_index=True)


def causes(recorded: Recording) -> dict[str, list[Cause]]:
    """What explains the labelled events, by device, where the benchmark says so.

    It does in ``interpretation_label.csv`` for all machines (SMD), or in a file for each, ``interpretation_omi-1.txt``
    (ASD); metrics are numbered from 1.
    """
    found: dict[str, list[Cause]] = {}
    for part in recorded.parts:
        if part.split == "test":
            machine, names = part.path.stem.removesuffix("_test"), part.columns.metrics or ()
            told = _explained(part.path.parent, machine)
            if told is not None:
                found[part.columns.name or machine] = [
                    Cause(int(first), int(last), frozenset(names[int(number) - 1] for number in numbers.split(",")))
                    for first, last, numbers in told
                ]
    return found


def _explained(folder: Path, machine: str) -> list[tuple[str, str, str]] | None:
    """First row, last row and metrics of each event, as the files have them; None where nothing is told."""
    table, own = folder / "interpretation_label.csv", folder / f"interpretation_{machine}.txt"
    if table.is_file():
        rows = pd.read_csv(table, dtype=str).query("machine == @machine")
        return list(zip(rows.start, rows.end, rows.dims_1based, strict=True))
    if own.is_file():
        lines = [line.partition(":") for line in own.read_text().split()]
        return [(*rows.split("-", 1), numbers) for rows, _, numbers in lines]  # type: ignore[misc]
    return None


def apart(recorded: Recording) -> Iterator[Recording]:
    """The same in recordings of their own, where files belong to one device each."""
    for _, parts in groupby(recorded.parts, lambda part: part.columns.name):
        yield replace(recorded, parts=tuple(parts))


def _part_labels(part: Part, labelled: Labels, *, metrics: bool) -> pd.DataFrame:
    columns, measured = part.columns, part.columns.metrics or () if metrics else ()
    flags = [labelled.train_flag] if labelled.train_flag else []
    present = [name for name in (*labelled.columns, *flags) if name in columns_of(part.path)]
    wanted = [name for name in (columns.ts, columns.device) if name is not None] + present + list(measured)
    table = next(read(part.path, wanted, rows=sys.maxsize, tally=Tally()))
    device = columns.name or [identify(text, columns.prefix) for text in table[columns.device].to_pylist()]
    frame = pd.DataFrame({"ts": stamps(table[columns.ts], columns)[0]})
    frame.insert(0, "device", device)
    for name in (*labelled.columns, *flags):
        frame[name] = table[name].to_numpy() if name in present else 0
    frame.insert(2, "split", np.where(_train(frame, part, labelled), "train", "test"))
    values = {name: table[name].to_numpy() for name in measured}
    return pd.concat([frame.drop(columns=flags), pd.DataFrame(values, frame.index)], axis=1)


def _train(frame: pd.DataFrame, part: Part, labelled: Labels) -> NDArray[np.bool_]:
    """Which rows the benchmark gives for training."""
    if part.split is not None:
        return np.full(len(frame), part.split == "train")
    if labelled.train_flag:
        return frame[labelled.train_flag].to_numpy(np.bool_)
    devices = frame.groupby("device")["ts"]
    first = labelled.train_rows + (devices.transform("size").to_numpy() * labelled.train_share).astype(np.int64)
    return np.asarray(devices.cumcount().to_numpy() < first)


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise InputError(
            f"There is no {name!r} in {str(folder)!r}; set TIDEWATCH_DATA, or give the folder with --data."
        )
    return path


def _skab(folder: Path, member: str) -> Recording:
    path = _file(folder, f"{member or 'skab'}.parquet")
    columns = Columns(device="file", ts="datetime", metrics=SKAB_METRICS, prefix="skab-")
    labelled = None if member else Labels(("anomaly", "changepoint"), train_rows=400)
    return Recording("skab", (Part(path, columns),), labelled)


def _series(name: str, labelled: Labels) -> Callable[[Path, str], Recording]:
    """A file of many series, each a device with the metric ``value``."""

    def build(folder: Path, _: str) -> Recording:
        columns = Columns(device="file", ts="timestamp", metrics=("value",), prefix=f"{name}-")
        return Recording(name, (Part(_file(folder, f"{name}.parquet"), columns),), labelled)

    return build


def _machines(name: str, step: int) -> Callable[[Path, str], Recording]:
    """Two files a device, for training and testing, whose rows are numbered; the test follows the training."""

    def build(folder: Path, member: str) -> Recording:
        found = sorted(path.name.removesuffix("_train.parquet") for path in folder.glob("*_train.parquet"))
        devices = [member] if member else found or ["machine"]
        parts = [part for device in devices for part in _machine(folder, device, prefix=f"{name}-", step=step)]
        return Recording(name, tuple(parts), Labels(("label",)))

    return build


def _machine(folder: Path, device: str, *, prefix: str, step: int) -> Iterator[Part]:
    start = FIRST
    for split in ("train", "test"):
        path = _file(folder, f"{device}_{split}.parquet")
        metrics = tuple(name for name in columns_of(path) if name not in {"t", "label"})
        yield Part(path, Columns(ts="t", metrics=metrics, name=prefix + device, start=start, step=step), split)
        start += step * parquet.read_metadata(path).num_rows


def _workload(folder: Path, member: str) -> Recording:
    if not member:
        known = sorted(path.stem for path in folder.glob("*.parquet"))
        raise InputError(f"Name one file of the workload traces, such as workload/{known[0] if known else '<file>'}.")
    path = _file(folder, f"{member}.parquet")
    numbered = Columns(start=FIRST, step=1_000) if "second" in columns_of(path) else Columns()
    columns = _part(path, numbered).columns
    metrics = tuple(name for name in columns.metrics or () if name != "outage")
    named_device = f"workload-{member}" if columns.device is None else None
    return Recording("workload", (Part(path, replace(columns, metrics=metrics, name=named_device)),))


SKAB_METRICS = (
    "accelerometer1_rms",
    "accelerometer2_rms",
    "current",
    "pressure",
    "temperature",
    "thermocouple",
    "voltage",
    "volume_flow_rate_rms",
)

NAMED: dict[str, Callable[[Path, str], Recording]] = {
    "skab": _skab,
    "smd": _machines("smd", MINUTE_MS),
    "asd": _machines("asd", 5 * MINUTE_MS),
    "nab": _series("nab", Labels(("label", "window"), train_flag="probation")),
    "mscloud": _series("mscloud", Labels(("label",), train_share=0.15)),
    "workload": _workload,
}
"""The published recordings, by name."""
