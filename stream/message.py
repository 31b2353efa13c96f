"""Records to produce, one or many, with headers in byte strings, as ``stream/producer.py`` gives them to librdkafka."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from scorers.compiled import compiled
from scorers.statistics import Ints
from stream.texts import Texts

Bytes = NDArray[np.uint8]

_SIZES = struct.Struct("<HI")
"""Before each header: the sizes of its name, with a closing NUL, and of its value."""
SIZE_AT = 2
"""Where there the size of the value is: four bytes, the lowest first."""
_IN_LIBRDKAFKA = 768
"""Bytes of a message's copy there, but for its value."""
_OVERHEAD = _IN_LIBRDKAFKA + 256
"""With its objects here."""


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


@dataclass(frozen=True, slots=True)
class Bulk:
    """Messages in columns."""

    topics: Sequence[str]
    topic: Ints
    """Which of ``topics``, by row."""
    keys: Texts
    values: Texts
    heads: Texts
    commons: Sequence[bytes]
    common: Ints
    """Which of ``commons``, by row."""
    partition: Ints
    timestamp: Ints

    @classmethod
    def of(cls, messages: Sequence[Message]) -> "Bulk":
        """The same in columns."""
        names = {name: number for number, name in enumerate(dict.fromkeys(m.topic for m in messages))}
        commons = {text: number for number, text in enumerate(dict.fromkeys(m.common for m in messages))}
        return cls(
            list(names),
            np.array([names[message.topic] for message in messages], np.int64),
            Texts.of([message.key for message in messages]),
            Texts.of([message.value for message in messages]),
            Texts.of([message.head for message in messages]),
            list(commons),
            np.array([commons[message.common] for message in messages], np.int64),
            np.array([message.partition for message in messages], np.int64),
            np.array([message.timestamp for message in messages], np.int64),
        )

    def __len__(self) -> int:
        return len(self.topic)

    def __iter__(self) -> Iterator[Message]:
        numbers = (column.tolist() for column in (self.topic, self.partition, self.timestamp, self.common))
        columns = *numbers, self.keys, self.values, self.heads
        for topic, partition, timestamp, common, key, value, head in zip(*columns, strict=True):
            yield Message(self.topics[topic], key, value, head, partition, timestamp, self.commons[common])

    @property
    def size(self) -> int:
        """Bytes it takes in memory, about."""
        texts = len(self.keys.buffer) + len(self.values.buffer) + len(self.heads.buffer)
        return texts + _IN_LIBRDKAFKA * len(self)


Output = Message | Bulk


def tombstones(topic: str, keys: Sequence[bytes], partition: int) -> Bulk:
    """Messages without a value: a compacted topic forgets these keys."""
    count, same = len(keys), np.zeros(len(keys), np.int64)
    nothing = Texts(b"\0", same, same)
    nulls = Texts(b"\0", same, np.full(count, -1))
    return Bulk([topic], same, Texts.of(keys), nulls, nothing, [b""], same, np.full(count, partition), same)


def singly(outputs: Iterable[Output]) -> Iterator[Message]:
    """Message by message."""
    for output in outputs:
        if isinstance(output, Bulk):
            yield from output
        else:
            yield output


def bulks(outputs: Iterable[Output]) -> Iterator[Bulk]:
    """In columns, in their order."""
    single: list[Message] = []
    for output in outputs:
        if isinstance(output, Message):
            single.append(output)
            continue
        if single:
            yield Bulk.of(single)
            single = []
        yield output
    if single:
        yield Bulk.of(single)


def header(name: str, value: bytes) -> bytes:
    """One header of a ``Message``."""
    return opening(name, len(value)) + value


@lru_cache(maxsize=4096)
def opening(name: str, size: int) -> bytes:
    """What comes before a header's value of ``size`` bytes."""
    text = name.encode() + b"\0"
    return _SIZES.pack(len(text), size) + text


@compiled
def put(out: Bytes, at: int, text: Bytes) -> int:
    """Write some bytes; where they end."""
    for place in range(len(text)):
        out[at + place] = text[place]
    return at + len(text)


@compiled
def put_size(out: Bytes, head: int, begin: int, end: int) -> None:
    """Let the header whose opening is at ``head`` have the value from ``begin`` to before ``end``."""
    for byte in range(4):
        out[head + SIZE_AT + byte] = ((end - begin) >> (8 * byte)) & 0xFF


def written(out: Bytes, ends: Ints) -> Texts:
    """Texts one after the other, by where each ends."""
    edges = np.append(0, ends)
    return Texts(out[: edges[-1] + 1].tobytes(), edges[:-1], np.diff(edges))


def size(outputs: Sequence[Output]) -> int:
    """Bytes they take in memory, about."""
    one = [output for output in outputs if type(output) is Message]
    parts = [len(message.value) + len(message.key or b"") + len(message.head) for message in one]
    return sum(parts) + _OVERHEAD * len(parts) + sum(bulk.size for bulk in outputs if isinstance(bulk, Bulk))
