"""What a partition must remember beyond the log: the records of ``device.state``.

Everything else is rebuilt by reading the log again from ``floor``.
"""

from collections.abc import Iterable, Sequence

import msgspec

from scorers.follow import Trail
from stream.alert import Watch
from stream.contracts import Accepted
from stream.levels import Odd
from stream.rejects import WHOLE


class Held(msgspec.Struct, gc=False):
    """A reading whose stamp is not believed yet, with all that makes it a record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes
    ts: int
    part: int = WHOLE
    """Which reading of its record it is; the value is that reading alone."""


class DeviceState(msgspec.Struct, gc=False, omit_defaults=True):
    """Written when a window of the device closed, its alert changed or a reading of it was held."""

    clock: int
    closed: int
    """Windows ending at or before this are closed."""
    metrics: Sequence[str] = ()
    """Every metric the device has sent: a new one may be one too many."""
    watch: Watch | None = None
    held: Held | None = None
    heard: int | None = None
    """The partition's clock when the device was last heard."""
    trail: Trail | None = None
    """How far its healthy windows went of late."""
    accepted: Accepted | None = None
    """Shifts of its levels that are typical."""
    odd: Odd | None = None
    """Where its windows lie since they are odd."""


class PartitionState(msgspec.Struct):
    """Written with every epoch, in the same transaction as its outputs."""

    next_offset: int
    """The first record whose effects are not yet out."""
    clock: int
    floor: int
    """The first record an open window still needs; reading starts here again."""
    floor_clock: int
    """The partition's clock there."""
    excluded: list[int | tuple[int, int]] = []
    """Offsets from ``floor`` on that were refused as from the future; with the part, of many readings in a record."""


class Progress(msgspec.Struct):
    """What every partition's record tells, whatever is made of it."""

    next_offset: int
    floor: int


class Memory(msgspec.Struct):
    """A partition's last committed state."""

    partition: PartitionState | None
    devices: dict[str, DeviceState]


_device = msgspec.json.Decoder(DeviceState)
_partition = msgspec.json.Decoder(PartitionState)
encode = msgspec.json.Encoder().encode


def device_key(scope: str, device: str) -> bytes:
    """Key of a device's record; ``scope`` names the app and the input topic."""
    return f"{scope}/device/{device}".encode()


def partition_key(scope: str, partition: int) -> bytes:
    """Key of a partition's record."""
    return f"{scope}/partition/{partition}".encode()


def recall(scope: str, partition: int, records: Iterable[tuple[bytes, bytes]]) -> Memory:
    """The state left by ``records`` (key, value) of the state topic, oldest first."""
    prefix, own = device_key(scope, ""), partition_key(scope, partition)
    last: dict[bytes, bytes] = {key: value for key, value in records if key == own or key.startswith(prefix)}
    whole = last.pop(own, None)
    devices = {key[len(prefix) :].decode(): _device.decode(value) for key, value in last.items()}
    return Memory(_partition.decode(whole) if whole else None, devices)
