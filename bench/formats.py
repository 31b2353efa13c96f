"""The same readings as JSON one by one and as Arrow batches, fed to the stream's own core by hand: what one costs."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench import core
from bench.job import Job
from bench.setup import machine
from producers.arrow import BatchEncoder
from producers.batch import Batch
from stream.decode import Limits, decode
from stream.readings import READINGS as READINGS_PARSER
from stream.records import Records

SIZES = 10, 100, 1_000
"""Readings in a record."""
FED = 5_000
"""Readings a call of the core, in either format."""
DEVICES, METRICS = 62, 8
"""Of a gateway; as many devices as one of eight partitions has in the other measurements."""
READINGS = 300_000


def run(readings: int, load: tuple[float, ...]) -> dict[str, Any]:
    """Measure both formats in turns; the fastest turn of each counts."""
    job = Job.of(readings, DEVICES, METRICS)
    fed = {"JSON": core.runs(core.joined(job.batches()), FED)}
    for size in SIZES:
        fed[f"Arrow, {size:,} each"] = core.runs(core.joined(batches(job, size)), FED // size)
    for records in fed.values():
        core.seconds(records[:2], None)  # unrecorded: everything is compiled
    turns = [
        {name: (core.seconds(records, None), _decoding(records)) for name, records in fed.items()}
        for _ in range(core.TURNS)
    ]
    least = {name: tuple(min(turn[name][part] for turn in turns) for part in (0, 1)) for name in fed}
    rows = [_row(name, job.readings, records, *least[name]) for name, records in fed.items()]
    return {"readings": job.readings, "metrics": METRICS, "rows": rows, "machine": machine("no Kafka", load)}


def batches(job: Job, size: int) -> Iterator[Batch]:
    """Every reading of a job as a gateway sends them: so many in a record, stamped by the last of them."""
    encoder = BatchEncoder(job.metric_names)
    for window in range(job.windows):
        devices, ts, values = job.rows(window)
        starts = range(0, len(ts), size)
        texts = [encoder.encode(devices[at : at + size], ts[at : at + size], values[at : at + size]) for at in starts]
        yield Batch([b"gateway"] * len(texts), texts, np.array([ts[at : at + size][-1] for at in starts]))


def _decoding(records: Sequence[Records]) -> float:
    """CPU of this thread for reading alone, before any window."""
    began = time.thread_time()
    for run in records:
        decode(run, Limits(), READINGS_PARSER)
    return time.thread_time() - began


def _row(name: str, readings: int, records: Sequence[Records], seconds: float, decoding: float) -> dict[str, Any]:
    size = sum(len(value or b"") for run in records for value in run.values)
    return {
        "format": name,
        "bytes_per_reading": round(size / readings, 1),
        "readings_per_s": round(readings / seconds),
        "us_per_reading": round(seconds / readings * 1e6, 2),
        "us_to_decode": round(decoding / readings * 1e6, 2),
    }


def show(result: Mapping[str, Any]) -> None:
    """Print the table and the machine."""
    out = Console(file=sys.stdout, highlight=False)
    table = Table(box=SIMPLE)
    table.add_column("format", no_wrap=True)
    for heading in ("bytes a reading", "readings/s", "µs of CPU a reading", "of that to decode"):
        table.add_column(heading, justify="right")
    for row in result["rows"]:
        costs = f"{row['us_per_reading']:.2f}", f"{row['us_to_decode']:.2f}"
        table.add_row(row["format"], f"{row['bytes_per_reading']:.0f}", f"{row['readings_per_s']:,}", *costs)
    out.print(table)
    machine = result["machine"]
    out.print(
        f"{result['readings']:,} readings of {result['metrics']} metrics, no models; Python {machine['python']}, "
        f"{machine['cores']} cores, load before the runs {machine['load'][0]:.1f}",
        soft_wrap=True,
    )
