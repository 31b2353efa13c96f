"""Many readings to one record of ``sensor.readings``: an Arrow IPC stream, as gateways send it."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from producers.batch import Floats, Ints
from stream.arrow import DEVICE, STAMP


class BatchEncoder:
    """Columns in, Arrow of the ``sensor.readings`` contract out, for one set of metrics.

    Nothing is compressed here: Kafka's producer does that for many records at once.
    """

    def __init__(self, metrics: Sequence[str]) -> None:
        self.metrics = tuple(metrics)
        columns = [(DEVICE, pa.string()), (STAMP, pa.int64()), *((name, pa.float64()) for name in self.metrics)]
        self._schema = pa.schema(columns)

    def encode(self, devices: Sequence[str], ts: Ints, values: Floats) -> bytes:
        """All rows as one record; a value that is not finite is left out of its reading.

        Args:
            devices: ``n`` device ids.
            ts: shape ``(n,)``, epoch ms.
            values: shape ``(n, m)``, the metrics in the encoder's order.
        """
        absent = ~np.isfinite(values)
        metrics = [pa.array(column, mask=missing) for column, missing in zip(values.T, absent.T, strict=True)]
        batch = pa.record_batch([pa.array(devices, pa.string()), pa.array(ts), *metrics], schema=self._schema)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._schema) as writer:
            writer.write_batch(batch)
        text: bytes = sink.getvalue().to_pybytes()
        return text
