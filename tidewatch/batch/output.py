"""What the core says to files: the tables of the Parquet sink, the reference's CSV, alerts and rejects.

Files are staged in the folder of the job, named as the sink names its own, so that whatever reads a folder of the sink
reads these: ``<table>/date=<UTC date>/score.<job>-<shard>-<first>-<last>.parquet``.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from sinks.base import Batch, Source
from sinks.decode import SCORES, Decoded, decode
from sinks.names import Range
from sinks.table import CONTRIBUTOR, REJECTS, TIME, Tables, by_date, concat, tables
from stream.contracts import Alert, Score
from stream.message import Bulk, Message, Output
from tidewatch.batch.spec import DISK, Format, Plan, Result

ALERTS = pa.schema(
    [
        ("alert_id", pa.string()),
        ("device_id", pa.string()),
        ("source", pa.string()),
        ("state", pa.string()),
        ("since", TIME),
        ("at", TIME),
        ("score", pa.float64()),
        ("severity", pa.float64()),
        ("contributors", pa.list_(pa.field("element", CONTRIBUTOR))),
        ("model_version", pa.string()),
    ]
)
"""One row for each change of an alert's state, as a record of ``device.alerts``."""

READ_AT = 5_000
"""Scores that are taken apart together."""
FULL = 400_000
"""Rows after which files are written."""

_alert = msgspec.json.Decoder(Alert)


class Staged:
    """The files of one shard; rows wait in memory until there are many.

    ``first`` is the number of its first record: those of a shard that is done in parts follow on.
    """

    def __init__(self, plan: Plan, shard: int, first: int = 0) -> None:
        self.files: list[Result] = []
        """``path`` within the output, ``rows``."""
        self.next = first
        self.devices: dict[str, Counter[str]] = defaultdict(Counter)
        """Windows, scored, anomalies and alerts of each device."""
        self.rejects: Counter[str] = Counter()
        self._plan = plan
        self._source = Source(f"score.{plan.job}", shard)
        self._folder = plan.work / "staged" / f"{shard:06d}"
        self._begun = first
        self._values: list[bytes] = []
        self._parts: list[Tables] = []
        self._rows = 0
        self._alerts: list[Alert] = []
        self._rejects: list[tuple[str, int, bytes, str]] = []

    def take(self, outputs: Iterable[Output]) -> None:
        """Take in what the core said."""
        topics = self._plan.topics
        for output in outputs:
            topic = output.topics[0] if isinstance(output, Bulk) else output.topic
            if topic == topics.scores and isinstance(output, Bulk):
                self._values += [value for value in output.values if value is not None]
            elif topic == topics.rejects and isinstance(output, Bulk):
                for message in output:
                    self._refused(message)
            elif topic == topics.alerts and isinstance(output, Message):
                self._alerted(_alert.decode(output.value))
        if len(self._values) >= READ_AT:
            self._read()
        if self._rows + len(self._alerts) + len(self._rejects) >= FULL:
            self._write()

    @property
    def after(self) -> int:
        """Where the numbers of another part of the shard may begin."""
        return max(self.next, self._begun) + 1

    def close(self) -> None:
        """Write what waits."""
        self._read()
        self._write()

    def discard(self) -> None:
        """Delete what was written."""
        for file in self.files:
            DISK.unlink(self._folder / file["path"])
        self.files.clear()

    def _wanted(self, end: int) -> bool:
        return self._plan.span.since <= end < self._plan.span.until

    def _read(self) -> None:
        offsets = range(self.next, self.next + len(self._values))
        decoded = decode(Batch(self._source, offsets, self._values), SCORES)
        if decoded.rejects:
            raise ValueError(f"a score keeps no contract ({decoded.rejects[0].reason})")
        self.next += len(self._values)
        self._values = []
        kept = [
            (score, at)
            for score, at in zip(decoded.records, decoded.offsets, strict=True)
            if self._wanted(score.window_end)
        ]
        scores = [score for score, _ in kept]
        self._count(scores)
        found = tables(self._source, Decoded(scores, [at for _, at in kept], decoded.rejects))
        self._parts.append(found)
        self._rows += found.rows

    def _count(self, scores: Iterable[Score]) -> None:
        for score in scores:
            about = self.devices[score.device_id]
            about["windows"] += 1
            about["scored"] += score.state == "scored"
            about["anomalies"] += score.anomaly

    def _alerted(self, alert: Alert) -> None:
        if self._wanted(alert.at):
            self.devices[alert.device_id]["alerts"] += alert.state == "firing"
            self._alerts.append(alert)

    def _refused(self, message: Message) -> None:
        about = dict(message.headers)
        place = about["ce_id"].decode().split("/")
        reason, detail = (about[name].decode(errors="replace") for name in ("tw_reason", "tw_detail"))
        self.rejects[reason] += 1
        self._rejects.append((about["ce_source"].decode(), int(place[-1]), message.value, f"{reason}: {detail}"))

    def _write(self) -> None:
        if self._parts:
            whole = concat(self._parts)
            if Format.PARQUET in self._plan.formats:
                for name, table in (("predictions", whole.predictions), ("statistics", whole.statistics)):
                    for date, part in by_date(table):
                        self._put(f"{name}/date={date}", ".parquet", part)
            if Format.CSV in self._plan.formats:
                for date, part in by_date(whole.statistics):
                    self._put(f"csv/date={date}", ".csv", judged(part, whole.predictions))
        if self._alerts:
            self._put("alerts", ".parquet", _alert_table(self._alerts))
        if self._rejects:
            self._put("rejects", ".parquet", _reject_table(self._source.partition, self._rejects))
        self._parts, self._alerts, self._rejects = [], [], []
        self._rows, self._begun = 0, max(self.next, self._begun + 1)

    def _put(self, folder: str, ending: str, table: pa.Table) -> None:
        if not len(table):
            return
        name = Range(self._source, self._begun, max(self._begun, self.next - 1))
        path = f"{folder}/{name}{ending}"
        target = self._folder / path
        DISK.make(target.parent)
        content: Callable[[BinaryIO], Any] = partial(_csv, table)
        if ending == ".parquet":
            content = partial(pq.write_table, table, compression="zstd", row_group_size=100_000)
        DISK.write(target, content)
        self.files.append({"path": path, "rows": len(table)})


def judged(statistics: pa.Table, predictions: pa.Table) -> pa.Table:
    """The columns of the reference: one row for each window, device and metric.

    ``TS`` is the end of the window, ``Val`` the mean; ``Prediction`` is 1 for an anomaly, 0 for none and empty where
    the device had no model. A window is judged as a whole, so that all its metrics have one prediction.
    """
    row = pc.index_in(statistics["kafka_offset"], predictions["kafka_offset"].combine_chunks())
    scored = pc.equal(predictions["state"], "scored")
    verdict = pc.if_else(scored, predictions["anomaly"].cast(pa.int8()), pa.scalar(None, pa.int8()))
    return pa.table(
        {
            "TS": _times(statistics["window_end"]),
            "Device": statistics["device_id"],
            "Sensor": statistics["metric"],
            "Val": statistics["mean"],
            "Prediction": verdict.take(row),
        }
    )


def _times(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """ISO-8601 in UTC, with milliseconds only where there are any."""
    with suppress(pa.ArrowInvalid):
        column = column.cast(pa.timestamp("s", tz="UTC"))
    return pc.strftime(column, "%Y-%m-%dT%H:%M:%SZ")


def _csv(table: pa.Table, file: BinaryIO) -> None:
    """RFC 4180, quoted only where some text needs it."""
    needed = any(pc.any(pc.match_substring_regex(table[name], '[",\r\n]')).as_py() for name in ("Device", "Sensor"))
    file.write(b",".join(name.encode() for name in table.column_names) + b"\n")
    style = "needed" if needed else "none"
    pacsv.write_csv(table, file, pacsv.WriteOptions(include_header=False, quoting_style=style))


def _alert_table(alerts: list[Alert]) -> pa.Table:
    columns = {field.name: [getattr(alert, field.name) for alert in alerts] for field in ALERTS}
    columns["contributors"] = [msgspec.to_builtins(alert.contributors) for alert in alerts]
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in ALERTS}, schema=ALERTS)


def _reject_table(partition: int, rejects: list[tuple[str, int, bytes, str]]) -> pa.Table:
    topic, offset, value, reason = zip(*rejects, strict=True)
    return pa.table(
        {
            "kafka_topic": pa.array(topic, pa.string()),
            "kafka_partition": pa.array([partition] * len(rejects), pa.int32()),
            "kafka_offset": pa.array(offset, pa.int64()),
            "value": pa.array(value, pa.binary()),
            "reason": pa.array(reason, pa.string()),
        },
        schema=REJECTS,
    )
