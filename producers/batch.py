"""What every producer hands to publishing: encoded records in time order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.contracts import Fault

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Batch:
    """Records ready for Kafka, ordered by event time.

    ``keys`` and ``values`` hold one ``bytes`` a record; ``ts`` is their event time, shape ``(n,)``, int64 epoch
    ms. ``faults`` are those that begin within the batch.
    """

    keys: Sequence[bytes]
    values: Sequence[bytes]
    ts: Ints
    faults: tuple[Fault, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.keys)


class _Reading(msgspec.Struct, gc=False):
    """The wire shape of ``sensor.readings``."""

    device_id: str
    ts: int
    values: msgspec.Struct


class ReadingEncoder:
    """Columns in, JSON of the ``sensor.readings`` contract out, for one set of metrics.

    A Struct type made for these metrics lets C loops build and encode every row: 1.2 us for 8 metrics,
    half of what one dict a row costs. Numbers are written in the shortest form that reads back equal.
    """

    def __init__(self, metrics: Sequence[str]) -> None:
        self.metrics = tuple(metrics)
        self._values = _columns_struct("Values", self.metrics)
        self._encoder = msgspec.json.Encoder()

    def encode(self, devices: Sequence[str], ts: Ints, values: Floats) -> list[bytes]:
        """One JSON object a row; a value that is not finite is left out of its reading.

        Args:
            devices: ``n`` device ids.
            ts: shape ``(n,)``, epoch ms.
            values: shape ``(n, m)``, the metrics in the encoder's order.
        """
        columns = [_present(column) for column in values.T]
        rows = map(self._values, *columns) if columns else (self._values() for _ in devices)
        readings = map(_Reading, devices, ts.tolist(), rows)
        return json_lines(self._encoder, list(readings))


def columns_encoder(columns: Sequence[str]) -> Any:
    """A Struct type whose instances take ``columns`` by position and encode under those names."""
    return _columns_struct("Row", columns)


def json_lines(encoder: msgspec.json.Encoder, rows: list[Any]) -> list[bytes]:
    """Every row as JSON ``bytes``; JSON text never holds a raw newline, so splitting is safe."""
    return encoder.encode_lines(rows).split(b"\n")[:-1]


def _columns_struct(name: str, columns: Sequence[str]) -> Any:
    fields = [f"c{position}" for position in range(len(columns))]
    wire_names: Mapping[str, str] = dict(zip(fields, columns, strict=True))
    return msgspec.defstruct(name, fields, rename=wire_names, gc=False)


def _present(column: Floats) -> list[Any]:
    """The column as Python numbers, with what is not finite unset (and so not encoded)."""
    cells: NDArray[Any] = column
    absent = ~np.isfinite(column)
    if absent.any():
        cells = column.astype(object)
        cells[absent] = msgspec.UNSET
    numbers: list[Any] = cells.tolist()
    return numbers
