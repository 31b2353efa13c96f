"""What aiokafka has fetched, in runs of records instead of one by one (ADR 22).

aiokafka's fetcher takes responses apart by two classes of its own module; ``install`` puts these in their place.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from aiokafka import codec
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import ConsumerRecord, TopicPartition

from stream.records import Records
from stream.unpack import Checksum, CorruptError, RecordBatch, batches, opened, readable, unpack

_RUN_RECORDS = 10_000
_RUN_BYTES = 2 * 1024 * 1024
"""A run ends with the batch that makes it this large, decompressed."""
_checksum: Checksum = calc_crc32c  # type: ignore[assignment]  # it takes any buffer
_DECOMPRESS = {1: codec.gzip_decode, 2: codec.snappy_decode, 3: codec.lz4_decode, 4: codec.zstd_decode}


class Kept(MemoryRecords):  # type: ignore[valid-type,misc]  # aiokafka chooses between two
    """A partition's part of a response, whose bytes can be had."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = memoryview(data)


class Runs(fetcher.PartitionRecords):
    """Gives ``Records`` where aiokafka's own gives one record at a time; transactions are treated as it treats them."""

    handed: ClassVar[dict[TopicPartition, int]] = {}
    """Past the last record ever given, by partition; told before the client's position moves past it."""

    def _unpack_records(self) -> Iterator[Records]:
        if not readable(self._records.data):
            yield from self._old()
            return
        waiting: list[RecordBatch] = []
        count = size = 0
        try:
            for batch in batches(self._records.data, _checksum):
                if self._counts(batch):
                    waiting.append(opened(batch, _DECOMPRESS))
                    count, size = count + batch.records, size + len(waiting[-1].body)
                if count >= _RUN_RECORDS or size >= _RUN_BYTES:
                    yield from self._run(waiting)
                    waiting, count, size = [], 0, 0
                if not waiting:
                    self.next_fetch_offset = batch.next_offset
            yield from self._run(waiting)
            if waiting:
                self.next_fetch_offset = batch.next_offset
        except CorruptError as error:
            raise CorruptRecordException(f"{self._tp}: {error}") from error

    def _run(self, waiting: list[RecordBatch]) -> Iterator[Records]:
        if not waiting:
            return
        records = unpack(self._tp.topic, self._tp.partition, waiting).since(self.next_fetch_offset)
        self.next_fetch_offset = waiting[-1].next_offset
        if len(records):
            self.handed[self._tp] = int(records.offsets[-1]) + 1
            yield records

    def _counts(self, batch: RecordBatch) -> bool:
        """Whether the batch holds records that were sent for good."""
        if self._isolation_level == fetcher.READ_COMMITTED and batch.producer >= 0:
            self._consume_aborted_up_to(batch.base_offset)  # type: ignore[no-untyped-call]  # as above
            if batch.control and self._aborts(batch):
                self._aborted_producers.discard(batch.producer)
            if batch.transactional and batch.producer in self._aborted_producers:
                return False
        return not batch.control

    def _aborts(self, batch: RecordBatch) -> bool:
        mark = unpack(self._tp.topic, self._tp.partition, [opened(batch, _DECOMPRESS)]).keys[0]
        return bool(ControlRecord.parse(mark or b"") == ABORT_MARKER)

    def _old(self) -> Iterator[Records]:
        """From a format of before Kafka 0.11, as aiokafka reads it."""
        for record in super()._unpack_records():  # type: ignore[no-untyped-call]  # as above
            yield Records(
                self._tp.topic, self._tp.partition, np.array([record.offset]), np.array([record.timestamp]),
                [record.key], [record.value], [record.headers],
            )  # fmt: skip


def install() -> None:
    """Let aiokafka's fetchers of this process give runs."""
    vars(fetcher).update(MemoryRecords=Kept, PartitionRecords=Runs)


def each(run: Records) -> Iterator[Any]:
    """The records of a run as aiokafka gives them."""
    columns = run.offsets.tolist(), run.timestamps.tolist(), run.keys, run.values, run.headers
    for offset, timestamp, key, value, headers in zip(*columns, strict=True):
        sizes = len(key or b""), len(value or b"")
        place = run.topic, run.partition, offset, timestamp, 0
        yield ConsumerRecord(*place, key, value, None, *sizes, headers)  # type: ignore[arg-type]  # None is fine
