"""Kafka's record batches to columns, as aiokafka writes and reads them."""

import random
import struct
from typing import Any

import numpy as np
import pytest
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from stream.runs import Kept, Runs, each
from stream.unpack import CorruptError, RecordBatch, unpack

PLACE = TopicPartition("t", 3)
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}

Plain = tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def some(seed: int, count: int, base: int = 0) -> list[Plain]:
    chance = random.Random(seed)
    return [
        (
            base + at,
            1_700_000_000_000 + chance.randrange(-(10**9), 10**9),
            chance.choice([None, b"", b"key", chance.randbytes(200)]),
            chance.choice([None, b"", b"value", chance.randbytes(chance.randrange(20_000))]),
            chance.choice([[], [], [("a", b"1")], [("\u00fc" * 70, None), ("b", b"")]]),
        )
        for at in range(count)
    ]


def batch(
    records: list[Plain], *, codec: int = 0, producer: int = -1, base: int | None = None, control: bool = False
) -> bytes:
    """Bytes as a broker hands them over."""
    builder = DefaultRecordBatchBuilder(2, codec, int(producer >= 0), producer, 0, 0, 1_000_000_000)
    start = records[0][0] if base is None else base
    for offset, timestamp, key, value, headers in records:
        assert builder.append(offset - start, timestamp, key, value, headers)
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, start)
    if control:
        data[22] |= 0x20
        struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    return bytes(data)


def end(offset: int, producer: int, kind: int) -> bytes:
    """A transaction's end: 0 aborts, 1 commits."""
    mark = struct.pack(">HH", 0, kind)
    return batch([(offset, 1, mark, b"", [])], producer=producer, control=True)


def runs(data: bytes, *, start: int = 0, aborted: list[tuple[int, int]] | None = None, kind: type = Runs) -> Any:
    records = Kept(data) if kind is Runs else MemoryRecords(data)
    return kind(PLACE, records, aborted, start, None, None, True, fetcher.READ_COMMITTED)


def plain(data: bytes, **options: Any) -> list[Plain]:
    return [
        (one.offset, one.timestamp, one.key, one.value, [*one.headers])
        for run in runs(data, **options)
        for one in each(run)
    ]


@pytest.mark.parametrize("codec", CODECS)
def test_what_was_written_is_read_whatever_it_was_compressed_by(codec: str) -> None:
    first, second = some(1, 200), some(2, 300, base=200)

    assert plain(batch(first, codec=CODECS[codec]) + batch(second)) == first + second


def test_records_before_the_place_asked_for_and_what_is_cut_off_are_left_out() -> None:
    records, data = some(3, 50), batch(some(3, 50)) + batch(some(4, 9, base=50))

    assert plain(data[:-5], start=20) == records[20:]
    assert plain(data[:30]) == []


def test_a_run_ends_where_it_is_large_and_says_where_to_go_on() -> None:
    begins = range(0, 35_000, 7_000)
    parts = [batch([(begin + at, at, None, b"x", []) for at in range(7_000)]) for begin in begins]
    unpacked = runs(b"".join(parts))
    found = []
    for run in unpacked:
        assert unpacked.next_fetch_offset == run.offsets[-1] + 1
        found.append(len(run))

    assert found == [14_000, 14_000, 7_000]
    assert unpacked.next_fetch_offset == 35_000


def test_transactions_are_treated_as_aiokafka_treats_them() -> None:
    chance = random.Random(5)
    for _ in range(200):
        offset, data, aborted, begun = 0, b"", [], dict[int, int]()
        for _ in range(chance.randrange(1, 20)):
            producer = chance.choice([-1, 7, 8])
            if producer in begun and chance.random() < 0.5:
                kind = chance.randrange(2)
                data += end(offset, producer, kind)
                if kind == 0:
                    aborted.append((producer, begun[producer]))
                del begun[producer]
                offset += 1
                continue
            count = chance.randrange(1, 4)
            data += batch(
                [(offset + at, at, None, b"%d" % (offset + at), []) for at in range(count)], producer=producer
            )
            if producer >= 0:
                begun.setdefault(producer, offset)
            offset += count
        ours = runs(data, aborted=list(aborted))
        theirs = runs(data, aborted=list(aborted), kind=Runs.__mro__[1])
        found = [offset for run in ours for offset in run.offsets.tolist()]

        assert found == [record.offset for record in theirs]
        assert ours.next_fetch_offset == theirs.next_fetch_offset == offset


def test_compacted_batches_are_passed_over_whole() -> None:
    data = bytearray(batch(some(6, 3)))
    struct.pack_into(">i", data, 23, 9)  # the last offset it once had
    struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    unpacked = runs(bytes(data))

    assert [len(run) for run in unpacked] == [3]
    assert unpacked.next_fetch_offset == 10


def test_a_format_of_old_is_read_by_aiokafka() -> None:
    builder = LegacyRecordBatchBuilder(1, 0, 100_000)
    for at in range(3):
        assert builder.append(at, timestamp=at, key=b"k", value=b"v%d" % at)
    data = bytes(builder.build())

    assert [(offset, value) for offset, _, _, value, _ in plain(data)] == [(0, b"v0"), (1, b"v1"), (2, b"v2")]


@pytest.mark.parametrize("codec", CODECS)
def test_damage_never_passes_for_records(codec: str) -> None:
    chance = random.Random(codec)
    good = batch(some(7, 30), codec=CODECS[codec])
    for _ in range(300):
        data = bytearray(good)
        data[chance.randrange(61, len(data))] ^= 1 << chance.randrange(8)
        with pytest.raises(CorruptRecordException):
            plain(bytes(data))


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_damage_below_a_good_checksum_is_damage_or_harmless(codec: str) -> None:
    chance = random.Random(codec)
    good = batch(some(8, 30), codec=CODECS[codec])
    for _ in range(2_000):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(57, len(data))] = chance.randrange(256)
        struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
        try:
            found = plain(bytes(data))
        except CorruptRecordException:
            continue
        assert all(np.diff([offset for offset, *_ in found]) == 1) or found


@pytest.mark.parametrize("before", [b"", b"\0\0\0", b"\0\0\0\1"], ids=["record", "key", "value"])
def test_a_part_is_never_looked_for_beyond_its_record(before: bytes) -> None:
    body = before + b"\xfe" + b"\xff" * 8 + b"\x01" + b"\0" * 20  # a length of 2**63 - 1
    body = bytes([2 * len(body)]) + body if before else body

    with pytest.raises(CorruptError):
        unpack("t", 0, [RecordBatch(0, 1, 0, 0, 0, -1, 1, memoryview(body))])
