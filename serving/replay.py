"""Readings or windows of a request, to scores as the stream gives them: its own core, fed once and thrown away.

Readings are windowed, and windows judged, by limits that follow the device as they do in a batch (``tidewatch score``):
what a request holds is a recording of its own.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from scorers.features import KINDS
from scorers.statistics import BLOCKS, Ints, Statistics
from serving.errors import RefusedError, TooLargeError
from serving.models import DEVICE, STAMP, TOP, FleetModel, whole
from serving.signature import listed
from serving.tensors import Columns
from stream.contracts import Score, Topics
from stream.decode import EARLIEST, LATEST, decode
from stream.message import Message, Output, singly
from stream.names import Names
from stream.outcome import Outcomes
from stream.parse import LARGEST
from stream.partition import Partition, Source, StreamSpec
from stream.readings import READINGS
from stream.records import PUNCTUATION, Records
from stream.texts import Texts
from stream.window import Closed

LONGEST = 1_000
"""Characters of a device's id or a metric's name."""


class Reading(msgspec.Struct, forbid_unknown_fields=True):
    """A record of ``sensor.readings``; of a device's own model, ``device_id`` may be left out."""

    ts: int | float | str
    values: dict[str, float | None]
    device_id: str | None = None


class Metric(msgspec.Struct, forbid_unknown_fields=True):
    """Statistics of one metric, as ``device.scores`` has them."""

    count: int
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    last: float | None = None
    sum: float | None = None


class Window(msgspec.Struct, forbid_unknown_fields=True):
    """A window of statistics; ``count`` is that of its fullest metric where it is not given."""

    window_end: int
    metrics: dict[str, Metric]
    window_start: int | None = None
    count: int | None = None
    device_id: str | None = None


def replay(model: FleetModel, readings: Sequence[Reading], spec: StreamSpec) -> list[msgspec.Raw]:
    """The scores of all windows that readings make, as JSON of ``stream.contracts.Score``, in order of time.

    Raises:
        RefusedError: a reading would be rejected by the stream; its number and the reason are told.
        TooLargeError: there are too many.
    """
    _counted("readings", len(readings), model.max_rows)
    topics = Topics()
    devices = [_device(model, f"readings[{at}]", reading.device_id) for at, reading in enumerate(readings)]
    values = [
        msgspec.json.encode({"device_id": device, "ts": reading.ts, "values": reading.values})
        for device, reading in zip(devices, readings, strict=True)
    ]
    partition = Partition(Source(topics.readings, READINGS), 0, spec, topics)
    records = _ordered(topics, values, devices, spec)
    partition.use(model.fleet)
    outputs = partition.feed(records)
    mark = [(PUNCTUATION, str(LATEST).encode())]
    outputs += partition.feed(
        Records(topics.readings, 0, np.array([len(values)]), records.timestamps[-1:], [None], [None], [mark])
    )
    return _scores(outputs, topics)


def judge(model: FleetModel, windows: Sequence[Window], spec: StreamSpec) -> list[msgspec.Raw]:
    """The scores of windows, as JSON of ``stream.contracts.Score``, in the order they are given in.

    Raises:
        RefusedError: a window is none; its number, its field and what was expected are told.
        TooLargeError: there are too many.
    """
    _counted("windows", len(windows), model.max_rows)
    devices = [_device(model, f"windows[{at}]", window.device_id) for at, window in enumerate(windows)]
    statistics = _statistics(windows)
    ends = np.array([_moment(f"windows[{at}].window_end", window.window_end) for at, window in enumerate(windows)])
    starts = np.array(
        [
            _start(window, spec)
            if window.window_start is None
            else _moment(f"windows[{at}].window_start", window.window_start)
            for at, window in enumerate(windows)
        ]
    )
    if (starts >= ends).any():
        raise RefusedError(f"windows[{int(np.argmax(starts >= ends))}].window_start: expected to be before window_end.")
    counts = np.array(
        [
            -1 if window.count is None else _many(f"windows[{at}].count", window.count)
            for at, window in enumerate(windows)
        ]
    )
    counts = np.where(counts < 0, statistics.count.max(axis=1), counts)
    order = np.argsort(ends, kind="stable")
    names, topics = Names(), Topics()
    outcomes = Outcomes(topics.readings, topics, spec.alert, spec.follow, names, sums=False)
    outcomes.use(model.fleet)
    numbers = names.enter(Texts.of([device.encode() for device in devices]))
    outcomes.meet()
    closed = Closed(numbers[order], starts[order], ends[order], counts[order], statistics.take(order))
    found = _scores(outcomes.tell(closed), topics)
    return [found[at] for at in np.argsort(order, kind="stable").tolist()]


def columns(scores: Sequence[msgspec.Raw]) -> Columns:
    """Scores as tensors: what the model's outputs are, and of each window its device, start and end."""
    rows = [msgspec.json.decode(score, type=Score) for score in scores]
    found: Columns = {
        name: np.array([getattr(row, name) for row in rows], np.float64)
        for name in ("decision", "score", "severity", "confidence")
    }
    found["anomaly"] = np.array([row.anomaly for row in rows], np.bool_)
    found["state"] = np.array([row.state for row in rows], object)
    found["model"] = np.array([row.model or "" for row in rows], object)
    found["device"] = np.array([row.device_id for row in rows], object)
    found["window_start"] = np.array([row.window_start for row in rows], np.int64)
    found["window_end"] = np.array([row.window_end for row in rows], np.int64)
    found["feature"] = np.full((len(rows), TOP), "", object)
    for name in ("share", "actual", "typical"):
        found[name] = np.full((len(rows), TOP), np.nan)
    for at, row in enumerate(rows):
        for place, one in enumerate(row.contributors[:TOP]):
            found["feature"][at, place] = one.feature
            found["share"][at, place] = one.share
            found["actual"][at, place] = np.nan if one.actual is None else one.actual
            found["typical"][at, place] = one.typical
    return found


def readings_of(model: FleetModel, given: Columns) -> list[Reading]:
    """Readings in columns: ``ts`` in epoch ms, ``device`` where the model is a fleet's, and a column for each metric.

    Raises:
        RefusedError: a column is missing, or of another type, width or number of rows.
    """
    wanted = [STAMP] if model.device is not None else [STAMP, DEVICE]
    if missing := [name for name in wanted if name not in given]:
        raise RefusedError(f"{listed(missing)}: missing; expected ts INT64 [n] and the device of each reading.")
    metrics = [name for name in given if name not in {STAMP, DEVICE}]
    kinds = {STAMP: "iu", DEVICE: "O"}
    for name, array in given.items():
        if array.dtype.kind not in kinds.get(name, "fiu"):
            kind = {STAMP: "INT64", DEVICE: "BYTES"}.get(name, "FP64")
            raise RefusedError(f"{name}: expected {kind} [n], and got {array.dtype.name}.")
        if array.size != len(array) or len(array) != len(given[STAMP]):
            raise RefusedError(f"{name}: expected shape [{len(given[STAMP])}] as of ts, and got {list(array.shape)}.")
    if not metrics:
        raise RefusedError("ts: expected a column FP64 [n] for each metric beside it, such as temperature.")
    numbers = {name: given[name].ravel().tolist() for name in metrics}
    devices = given[DEVICE].ravel().tolist() if DEVICE in given else [None] * len(given[STAMP])
    return [
        Reading(
            ts,
            {name: None if numbers[name][at] != numbers[name][at] else numbers[name][at] for name in metrics},
            devices[at],
        )
        for at, ts in enumerate(given[STAMP].ravel().tolist())
    ]


def _counted(what: str, rows: int, most: int) -> None:
    if not rows:
        raise RefusedError(f"{what}: expected at least one, and got none.")
    if rows > most:
        raise TooLargeError(f"{what}: expected {most} at most, and got {rows}.")


def _device(model: FleetModel, where: str, given: str | None) -> str:
    if model.device is None and not given:
        raise RefusedError(f"{where}.device_id: missing; expected a string.")
    if model.device is not None and given not in (None, model.device):
        raise RefusedError(f"{where}.device_id: expected {model.device!r}, whose model this is, and got {given!r:.80}.")
    device = given or model.device or ""
    if len(device) > LONGEST:
        raise RefusedError(f"{where}.device_id: expected {LONGEST} characters at most, and got {len(device)}.")
    return device


def _ordered(topics: Topics, values: list[bytes], devices: list[str], spec: StreamSpec) -> Records:
    """Readings as records in order of time, each stamped as if it had arrived when it was measured."""
    many = len(values)
    keys = [device.encode() for device in devices]
    far = np.full(many, 2**53)
    decoded = decode(
        Records(topics.readings, 0, np.arange(many), far, keys, values, [()] * many), spec.limits, READINGS
    )
    for row, _, detail, *_ in decoded.rejects:
        raise RefusedError(f"readings[{row}]: {detail}.")
    order = np.argsort(decoded.ts, kind="stable").tolist()
    return Records(
        topics.readings,
        0,
        np.arange(many),
        decoded.ts[order],
        [keys[at] for at in order],
        [values[at] for at in order],
        [()] * many,
    )


def _scores(outputs: Sequence[Output], topics: Topics) -> list[msgspec.Raw]:
    found: list[msgspec.Raw] = []
    for message in singly(outputs):
        if message.topic == topics.rejects:
            raise RefusedError(f"readings: {_reason(message)}.")
        if message.topic == topics.scores:
            found.append(msgspec.Raw(message.value))
    return found


def _reason(message: Message) -> str:
    about = dict(message.headers)
    return f"{about['tw_detail'].decode()} ({message.value.decode(errors='replace'):.200})"


def _statistics(windows: Sequence[Window]) -> Statistics:
    metrics = tuple(dict.fromkeys(name for window in windows for name in window.metrics))
    place = {name: column for column, name in enumerate(metrics)}
    shape = len(windows), len(metrics)
    blocks = {name: np.full(shape, np.nan) for name in BLOCKS}
    blocks["count"] = np.zeros(shape)
    if not metrics:
        raise RefusedError("windows[0].metrics: expected the statistics of at least one metric.")
    for row, window in enumerate(windows):
        for name, metric in window.metrics.items():
            at = row, place[name]
            blocks["count"][at] = _many(f"windows[{row}].metrics.{name:.60}.count", metric.count)
            for kind in BLOCKS:
                if kind != "count" and (value := getattr(metric, kind)) is not None:
                    blocks[kind][at] = value
    rows = np.stack([blocks[kind] for kind in KINDS], axis=-1).reshape(len(windows), -1)
    cube = whole(rows, [f"metrics.{name}.{kind}" for name in metrics for kind in KINDS]).reshape(*shape, len(KINDS))
    numbers = {kind: np.ascontiguousarray(cube[..., at]) for at, kind in enumerate(KINDS)}
    last = np.where(np.abs(blocks["last"]) <= LARGEST, blocks["last"], numbers["mean"])
    count: Ints = numbers.pop("count").astype(np.int64)
    return Statistics(metrics, count=count, last=last, **numbers)


def _moment(where: str, stamp: int) -> int:
    if not EARLIEST <= stamp < LATEST:
        raise RefusedError(f"{where}: expected epoch milliseconds from 1980 to 2199, and got {stamp!s:.40}.")
    return stamp


def _many(where: str, count: int) -> int:
    if not 0 <= count <= 2**53:
        raise RefusedError(f"{where}: expected a whole number from 0 up, and got {count!s:.40}.")
    return count


def _start(window: Window, spec: StreamSpec) -> int:
    """Where a window of the stream's size begins that ends where this one does."""
    return window.window_end - spec.window.size_ms
