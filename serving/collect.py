"""What went in and what came out, kept by day for feedback and drift: off by default, sampled, never in the way.

A request hands over references and goes on. One thread writes them as CloudEvents 1.0: JSON lines or Parquet in a
folder for each day, or messages to Kafka in binary mode. What does not fit into the queue, or cannot be written, is
dropped and counted.
"""

import json
import logging
import os
import queue
import random
import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import KafkaException

from scorers.errors import UnavailableError, hold
from serving.trace import current

log = logging.getLogger(__name__)

TYPE = "tidewatch.prediction"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("type", pa.string()),
        ("subject", pa.string()),
        ("time", pa.timestamp("ms", tz="UTC")),
        ("model", pa.string()),
        ("version", pa.string()),
        ("request_id", pa.string()),
        ("trace_id", pa.string()),
        ("inputs", pa.string()),
        ("outputs", pa.string()),
    ]
)
"""Parquet: a row a request; ``inputs`` and ``outputs`` are JSON."""
_TELL_AGAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class CollectSpec:
    """How much is collected.

    Raises:
        ConfigError: a share beyond 0 to 1, or a size that is not positive.
    """

    share: float = 1.0
    queue: int = 10_000
    """Requests that may wait."""
    batch: int = 1000
    """Requests that are written at once."""
    every_s: float = 5.0
    """A request waits so long at most to be written."""
    source: str = "tidewatch/serving"

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        hold("serving", self, [("share", 0 <= self.share <= 1, "between 0 and 1")])
        hold(
            "serving", self, [(name, getattr(self, name) > 0, "more than 0") for name in ("queue", "batch", "every_s")]
        )


@dataclass(frozen=True, slots=True)
class Taken:
    """One request as it was handed over; arrays are shared with it, and must not change."""

    id: str
    at: float
    """Epoch seconds."""
    model: str
    version: str
    request_id: str | None
    trace_id: str | None
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]

    def data(self) -> dict[str, Any]:
        """The event's data."""
        names = ("model", "version", "request_id", "trace_id")
        return {name: getattr(self, name) for name in names} | {
            "inputs": _plain(self.inputs),
            "outputs": _plain(self.outputs),
        }


class LostError(UnavailableError):
    """Not all was written; ``lost`` says how many were not."""

    def __init__(self, lost: int, why: object) -> None:
        super().__init__(f"{lost} predictions could not be written: {why}.")
        self.lost = lost


class Store(Protocol):
    """Where events go. ``write`` raises whatever goes wrong; what was not written is dropped."""

    def write(self, taken: Sequence[Taken], source: str) -> None:
        """Write events, in one step where that is possible.

        Raises:
            LostError: some of them could not be written.
        """

    def close(self) -> None:
        """Nothing more comes."""


class Collector:
    """Takes requests from the service, and writes them behind its back."""

    def __init__(self, store: Store, spec: CollectSpec, *, chance: Callable[[], float] = random.random) -> None:
        self.counts: Counter[str] = Counter({"written": 0, "dropped": 0})
        self._store = store
        self._spec = spec
        self._chance = chance
        self._queue: queue.Queue[Taken | None] = queue.Queue(spec.queue)
        self._told = float("-inf")
        self._taken = 0
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)
        self._thread.start()

    def take(self, model: str, version: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Hand a request over: never waits, never raises."""
        share = self._spec.share
        if share < 1 and self._chance() >= share:
            return
        context = current.get()
        request, trace = (context.request_id, context.trace.trace_id) if context else (None, None)
        taken = Taken(secrets.token_hex(16), time.time(), model, version, request, trace, inputs, outputs)
        self._taken += 1
        try:
            self._queue.put_nowait(taken)
        except queue.Full:
            self.counts["dropped"] += 1

    def close(self, within_s: float = 10.0) -> None:
        """Write what waits, and end; what takes longer is lost, and the log says how much."""
        end = time.monotonic() + within_s
        with suppress(queue.Full):
            self._queue.put(None, timeout=within_s)
        self._thread.join(max(0.0, end - time.monotonic()))
        if self._thread.is_alive():
            waiting = self._taken - self.counts["written"] - self.counts["dropped"]
            log.warning("%d predictions are not collected: they could not be written within %g s", waiting, within_s)

    def _run(self) -> None:
        over = False
        while not over:
            batch, over = self._batch()
            if batch:
                self._write(batch)
        self._store.close()

    def _batch(self) -> tuple[list[Taken], bool]:
        """The next requests, and whether they are the last."""
        batch: list[Taken] = []
        end = time.monotonic() + self._spec.every_s
        while len(batch) < self._spec.batch:
            try:
                taken = self._queue.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                break
            if taken is None:
                return batch, True
            batch.append(taken)
        return batch, False

    def _write(self, batch: list[Taken]) -> None:
        lost = 0
        try:
            self._store.write(batch, self._spec.source)
        except Exception as error:
            lost = error.lost if isinstance(error, LostError) else len(batch)
            if time.monotonic() - self._told > _TELL_AGAIN_S:
                self._told = time.monotonic()
                log.exception("Predictions could not be collected")
        self.counts["dropped"] += lost
        self.counts["written"] += len(batch) - lost


class Folder:
    """``<folder>/date=YYYY-MM-DD/<process>-<n>.jsonl`` or ``.parquet``; by the UTC date of the request.

    JSON lines are appended to; a Parquet file appears whole.
    """

    def __init__(self, folder: Path, *, parquet: bool) -> None:
        self._folder = folder
        self._parquet = parquet
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._files = 0

    def write(self, taken: Sequence[Taken], source: str) -> None:
        """Write events to the files of their days."""
        days: defaultdict[str, list[Taken]] = defaultdict(list)
        for one in taken:
            days[_time(one).date().isoformat()].append(one)
        for day, of_day in days.items():
            place = self._folder / f"date={day}"
            place.mkdir(parents=True, exist_ok=True)
            if self._parquet:
                self._write_parquet(place, of_day, source)
            else:
                with (place / f"{self._name}.jsonl").open("ab") as file:
                    file.write(b"".join(_encoded(_event(one, source)) + b"\n" for one in of_day))

    def close(self) -> None:
        """Every file is closed already."""

    def _write_parquet(self, place: Path, taken: Iterable[Taken], source: str) -> None:
        rows = []
        for one in taken:
            event = _event(one, source)
            data = event.pop("data")
            data |= {name: _encoded(data[name]).decode() for name in ("inputs", "outputs")}
            rows.append(event | data | {"time": _time(one)})
        draft = place / f".{self._name}-{self._files:06}"
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), draft)
        draft.rename(place / f"{self._name}-{self._files:06}.parquet")
        self._files += 1


class Kafka:
    """Messages in CloudEvents' binary mode, key = model; written is what the brokers have acknowledged.

    Args:
        producer: of confluent-kafka, or like it; its ``message.timeout.ms`` says how long a message may take.
        topic: where to.
        prepare: called before the first message, again and again until it raises nothing.
    """

    def __init__(self, producer: Any, topic: str, prepare: Callable[[], object] = lambda: None) -> None:
        self._producer = producer
        self._topic = topic
        self._prepare: Callable[[], object] | None = prepare

    def write(self, taken: Sequence[Taken], source: str) -> None:
        """Send events, and wait until each has been acknowledged or is given up."""
        if self._prepare:
            self._prepare()
            self._prepare = None
        acknowledged = 0
        faults: list[object] = []

        def heard(error: object, _: object) -> None:
            nonlocal acknowledged
            if error is None:
                acknowledged += 1
            else:
                faults.append(error)

        for one in taken:
            try:
                self._send(one, source, heard)
            except (BufferError, KafkaException) as error:  # such as too large a message
                faults.append(error)
        self._producer.flush()
        if acknowledged < len(taken):
            raise LostError(len(taken) - acknowledged, faults[0] if faults else "nobody answers")

    def _send(self, one: Taken, source: str, heard: Callable[[object, object], None]) -> None:
        event = _event(one, source)
        data = event.pop("data")
        headers = [(f"ce_{name}", str(value).encode()) for name, value in event.items() if name != "datacontenttype"]
        headers.append(("content-type", event["datacontenttype"].encode()))
        self._producer.produce(self._topic, _encoded(data), key=one.model.encode(), headers=headers, on_delivery=heard)

    def close(self) -> None:
        """Nothing is under way."""


def _time(taken: Taken) -> datetime:
    return datetime.fromtimestamp(taken.at, UTC)


def _event(taken: Taken, source: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": taken.id,
        "source": source,
        "type": TYPE,
        "subject": taken.model,
        "time": _time(taken).isoformat(timespec="milliseconds"),
        "datacontenttype": "application/json",
        "data": taken.data(),
    }


def _encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _plain(value: Any) -> Any:
    """Arrays and bytes as JSON has them; what is no number is null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
