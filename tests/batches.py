"""What tests of batch scoring share: recordings, a fleet, and what one partition of the stream makes of them."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from producers.recordings import recording
from producers.replay import Replay
from producers.sensors import SensorFleet
from scorers import pack
from scorers.fit import TrainSpec
from scorers.fleet import Fleet
from scorers.model import DeviceModel
from scorers.train import fit_fleet
from sinks.base import Batch, Source
from sinks.decode import SCORES, decode
from sinks.table import Tables, by_date, tables
from stream.contracts import Score
from stream.message import Message, singly
from stream.partition import Partition
from stream.partition import Source as Input
from stream.readings import READINGS
from stream.records import PUNCTUATION, Records
from tidewatch.evaluate import blocks
from tidewatch.groups import Settings
from tidewatch.settings import load
from tidewatch.wiring import stream_spec

START = 1_700_000_000_000
MINUTE = 60_000
BROKEN, FAULT = "pump-0001", 10
"""A device, and the minute from which all its metrics are wrong."""


def settings(folder: Path, **changes: object) -> Settings:
    """Those of a test: everything in its folder, a limit that follows soon."""
    flags = {
        "jobs.folder": folder / "jobs",
        "worker.fleet": folder / "fleet.arrow",
        "batch.shards": 3,
        "following.warmup": 20,
    }
    return load(flags | changes, environ={}).settings


@lru_cache(maxsize=4)
def readings(devices: int = 6, minutes: int = 12, seed: int = 3) -> pa.Table:
    """A simulated fleet, a reading a second, one device broken in the end: ``ts``, ``device_id``, a column a metric."""
    fleet = SensorFleet(devices, seed=seed, start=START).build()
    rows: list[dict[str, object]] = []
    for batch in fleet.batches(60):
        for value in batch.values:
            reading = json.loads(value)
            if reading["ts"] >= START + minutes * MINUTE:
                return pa.Table.from_pylist(rows, schema=_schema(rows))
            values = reading["values"]
            if reading["device_id"] == BROKEN and reading["ts"] >= START + FAULT * MINUTE:
                values = {name: 1.5 * value for name, value in values.items()}
            rows.append({"ts": reading["ts"], "device_id": reading["device_id"], **values})
    raise AssertionError


def _schema(rows: list[dict[str, object]]) -> pa.Schema:
    names = dict.fromkeys(name for row in rows for name in row)
    kinds = {"ts": pa.int64(), "device_id": pa.string()}
    return pa.schema([(name, kinds.get(name, pa.float64())) for name in names])


def write(folder: Path, table: pa.Table, files: int = 1) -> Path:
    """A recording of so many files."""
    folder.mkdir(parents=True, exist_ok=True)
    step = -(-len(table) // files)
    for number in range(files):
        pq.write_table(table.slice(number * step, step), folder / f"part-{number}.parquet")
    return folder


def train(current: Settings) -> None:
    """Models of the first minutes of the recording, as the worker's fleet."""
    current.worker.fleet.parent.mkdir(parents=True, exist_ok=True)
    pack.save(Fleet.of(models(), "v1"), current.worker.fleet, 0)


@lru_cache(maxsize=1)
def models() -> dict[str, DeviceModel]:
    table = readings()
    early = table.filter(pc.less(table["ts"], START + (FAULT - 1) * MINUTE))
    with tempfile.TemporaryDirectory() as folder:
        current = settings(Path(folder))
        scores = [
            msgspec.json.decode(message.value, type=Score)
            for message in streamed(write(Path(folder) / "in", early), current, Fleet.empty())
            if message.topic == current.topics.names().scores
        ]
    windows, ends = blocks(scores)
    return dict(fit_fleet(windows, TrainSpec(min_windows=20), ends).models)


def streamed(path: Path, current: Settings, fleet: Fleet) -> list[Message]:
    """What one partition makes of a recording that is replayed into it as it was measured."""
    topics = current.topics.names()
    partition = Partition(Input(topics.readings, READINGS), 0, stream_spec(current), topics)
    partition.use(fleet)
    found: list[Message] = []
    at = 0
    player = Replay(recording(path)).open()
    for batch in player.batches():
        count = len(batch)
        offsets = np.arange(at, at + count)
        records = Records(topics.readings, 0, offsets, batch.ts, batch.keys, batch.values, [()] * count)
        found += singly(partition.feed(records))
        at += count
    mark = [(PUNCTUATION, str(player.last).encode())]
    end = Records(topics.readings, 0, np.array([at]), np.array([player.last]), [None], [None], [mark])
    return found + list(singly(partition.feed(end)))


def kept(folder: Path, messages: Iterable[Message], topic: str) -> Path:
    """Scores as the Parquet sink would keep them."""
    source = Source(topic, 0)
    values = [message.value for message in messages if message.topic == topic]
    found: Tables = tables(source, decode(Batch(source, range(len(values)), values), SCORES))
    for name, table in (("predictions", found.predictions), ("statistics", found.statistics)):
        for date, part in by_date(table):
            place = folder / name / f"date={date}"
            place.mkdir(parents=True, exist_ok=True)
            pq.write_table(part, place / f"{topic}-0000-{0:020d}-{len(values):020d}.parquet")
    return folder


def live(path: Path, current: Settings, folder: Path) -> Path:
    """A folder with what the stream gave."""
    return kept(folder, streamed(path, current, pack.load(current.worker.fleet)), current.topics.names().scores)


def rows(folder: Path, table: str) -> Iterator[dict[str, object]]:
    """All rows of a table of an output."""
    for file in sorted((folder / table).rglob("*.parquet")):
        yield from pq.read_table(file, partitioning=None).to_pylist()
