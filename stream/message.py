"""One record to produce, with its headers in one byte string, as ``stream/producer.py`` hands them to librdkafka."""

import struct
from collections.abc import Sequence

import msgspec

_SIZES = struct.Struct("<HI")
"""Before each header: the sizes of its name, with a closing NUL, and of its value."""
_OVERHEAD = 1_024
"""Bytes of a message's objects, here and in librdkafka."""


class Message(msgspec.Struct, gc=False, frozen=True):
    """Without a partition the key decides, without a timestamp the clock (epoch ms)."""

    topic: str
    key: bytes | None
    value: bytes
    head: bytes = b""
    """Headers: what ``header`` gives, one after another."""
    partition: int = -1
    timestamp: int = 0
    common: bytes = b""
    """More headers, in an object that it shares with others."""

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """Names and values, for people and tests."""
        text = self.common + self.head
        at, pairs = 0, []
        while at < len(text):
            name, value = _SIZES.unpack_from(text, at)
            at += _SIZES.size
            end = at + name
            pairs.append((text[at : end - 1].decode(), text[end : end + value]))
            at = end + value
        return pairs


def header(name: str, value: bytes) -> bytes:
    """One header of a ``Message``."""
    return opening(name, len(value)) + value


def opening(name: str, size: int) -> bytes:
    """What comes before a header's value of ``size`` bytes."""
    text = name.encode() + b"\0"
    return _SIZES.pack(len(text), size) + text


def size(messages: Sequence[Message]) -> int:
    """Bytes they take in memory, about."""
    parts = [len(message.value) + len(message.key or b"") + len(message.head) for message in messages]
    return sum(parts) + _OVERHEAD * len(parts)
