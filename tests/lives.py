"""A partition's life with commits and crashes, as the worker leads it, without Kafka."""

from collections.abc import Callable, Iterator
from typing import Any

from stream.core import Core
from stream.message import Message, singly
from stream.records import Records


def cuts(records: Records, lengths: Iterator[int]) -> Iterator[Records]:
    """Batches of these lengths, one after the other."""
    begin = 0
    while begin < len(records):
        end = min(begin + next(lengths), len(records))
        yield records.pick(range(begin, end))
        begin = end


def committed(
    born: Callable[[], Core[Any]], records: Records, lengths: Iterator[int], fates: Iterator[str]
) -> list[Message]:
    """Feed batch by batch; an epoch may be committed after any, a crash may follow any. What was committed is given."""
    out: list[Message] = []
    pending: list[Message] = []
    state: dict[bytes, bytes] = {}
    partition, at = born(), 0
    while at < len(records):
        batch = next(cuts(records.pick(range(at, len(records))), lengths))
        pending += singly(partition.feed(batch))
        at += len(batch)
        fate = next(fates) if at < len(records) else "commit"
        if fate == "commit" and not partition.reliving:
            state |= {message.key or b"": message.value or b"" for message in singly(partition.checkpoint())}
            out, pending = out + pending, []
        elif fate == "crash":
            pending, partition = [], born()
            at = partition.recall(state) or 0
    return out
