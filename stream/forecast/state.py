"""What the forecaster must remember beyond the log: the records of ``load.state``.

One or a few for each closed hour, in Arrow; one for each server with a session that waits to be believed; one for the
partition. Hours that are open are rebuilt by reading the log again from ``floor``.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from stream.forecast.history import CLOSED
from stream.forecast.sessions import Sessions
from stream.state import partition_key

_ROWS = 4096
"""Servers in a record of an hour, at most."""


class HeldSession(msgspec.Struct, gc=False):
    """A session whose stamp is not believed yet."""

    offset: int
    arrival: int
    """Epoch ms."""
    ts: int
    loads: list[int]
    """Whole millionths."""

    @classmethod
    def of(cls, session: Sessions) -> "HeldSession":
        """The one there is."""
        return cls(int(session.offset[0]), int(session.arrival[0]), int(session.ts[0]), session.loads[0].tolist())

    def session(self, server: int) -> Sessions:
        """As it was before, of the server with that number."""
        offset, arrival, ts = (np.array([value], np.int64) for value in (self.offset, self.arrival, self.ts))
        return Sessions(offset, np.array([server], np.int64), ts, arrival, np.array([self.loads], np.int64))


class LoadState(msgspec.Struct):
    """The partition's; written with every epoch, in the same transaction as its forecasts."""

    next_offset: int
    """The first record whose effects are not yet out."""
    floor: int
    """The first record an open hour still needs; reading starts here again."""
    clock: int
    """The highest start of a session that is believed, epoch ms."""
    closed: int
    """Hours ending at or before this are closed."""
    excluded: list[int] = msgspec.field(default_factory=list)
    """Offsets from ``floor`` on that were refused as from the future."""


class Remembered(NamedTuple):
    """A partition's last committed state."""

    partition: LoadState | None
    hours: list[pa.Table]
    held: dict[str, HeldSession]


_encode = msgspec.json.Encoder().encode
_partition = msgspec.json.Decoder(LoadState)
_held = msgspec.json.Decoder(HeldSession)


def hour_keys(scope: str, hour: int, servers: int) -> list[bytes]:
    """Keys of the records of an hour with so many rows."""
    return [f"{scope}/hour/{hour}/{part}".encode() for part in range(-(-servers // _ROWS))]


def hour_records(scope: str, hour: int, rows: pa.Table) -> Iterator[tuple[bytes, bytes]]:
    """The records of an hour; ``rows`` are in ``CLOSED``."""
    for part, key in enumerate(hour_keys(scope, hour, len(rows))):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, CLOSED) as writer:
            writer.write_table(rows.slice(part * _ROWS, _ROWS).combine_chunks())
        yield key, sink.getvalue().to_pybytes()


def held_key(scope: str, server: str) -> bytes:
    """Key of the record of a server's held session."""
    return f"{scope}/held/{server}".encode()


def held_record(scope: str, server: str, session: Sessions) -> tuple[bytes, bytes]:
    """That record."""
    return held_key(scope, server), _encode(HeldSession.of(session))


def partition_record(scope: str, number: int, state: LoadState) -> tuple[bytes, bytes]:
    """The partition's record."""
    return partition_key(scope, number), _encode(state)


def recall(scope: str, number: int, records: Mapping[bytes, bytes]) -> Remembered:
    """The state that the last values of the state topic hold; an empty one is a tombstone."""
    own, hours, held = partition_key(scope, number), hour_prefix(scope), held_key(scope, "")
    there = {key: value for key, value in records.items() if value}
    return Remembered(
        _partition.decode(there[own]) if own in there else None,
        [pa.ipc.open_stream(value).read_all() for key, value in there.items() if key.startswith(hours)],
        {key[len(held) :].decode(): _held.decode(value) for key, value in there.items() if key.startswith(held)},
    )


def hour_prefix(scope: str) -> bytes:
    """What the keys of all hours begin with."""
    return f"{scope}/hour/".encode()
