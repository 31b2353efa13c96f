"""Rejects as a person asks for them: which ones, how many, what became of each.

A *receipt* lies behind the rejects it tells of, in their own partition. So one pass in log order knows
of every reject whether it was replayed.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from heapq import nlargest
from typing import NamedTuple

import msgspec
from confluent_kafka import Message

from scorers.errors import ConfigError, InputError
from stream.contracts import Reason, Receipt
from stream.encode import RECEIPT
from stream.rejects import WHOLE
from tidewatch.tail import Span

_REPLAYED = 0x80
"""The bit of a reject's byte that says so."""
_receipt = msgspec.json.Decoder(Receipt)


class Id(NamedTuple):
    """Where the original lies, as ``topic/partition/offset``, of many readings in a record with the part; names it."""

    topic: str
    partition: int
    offset: int
    part: int = WHOLE

    def __str__(self) -> str:
        return "/".join(map(str, self[:3] if self.part == WHOLE else self))

    @classmethod
    def parse(cls, text: str) -> "Id":
        """The id that reads like this.

        Raises:
            InputError: it is none.
        """
        topic, *numbers = text.split("/")
        fits = len(numbers) in {2, 3}  # partition and offset, and maybe a part
        if not fits or not all(number.isascii() and number.isdigit() for number in numbers):
            raise InputError(
                f"{text!r} is not the id of a reject; write topic/partition/offset, as `rejects list` does."
            )
        return cls(topic, *map(int, numbers))


class Reject(NamedTuple):
    """One record of ``rejects``; times are epoch ms."""

    id: Id
    reason: Reason
    detail: str
    timestamp: int
    """The original's Kafka timestamp."""
    key: bytes | None
    value: bytes
    size: int
    """Bytes of the original, also where ``value`` is left out."""
    at: int
    """When it was rejected."""
    partition: int
    """Where it lies in ``rejects``, and its offset there."""
    offset: int


class Kind(NamedTuple):
    """What rejects are counted by."""

    topic: str
    reason: Reason


def understand(message: Message) -> Reject | Receipt | None:
    """The record of ``rejects`` in a message; None where it is neither of ours nor of this version."""
    headers = dict(message.headers() or ())
    try:
        if headers.get("ce_type") == RECEIPT.encode():
            return _receipt.decode(message.value() or b"")
        told = {name: _text(headers[name] or b"") for name in _NEEDED}
        origin, reason, timestamp = Id.parse(told["ce_id"]), Reason(told["tw_reason"]), int(told["tw_timestamp"])
    except (KeyError, ValueError, InputError, msgspec.DecodeError):
        return None
    value, arrival = message.value() or b"", message.timestamp()[1]
    place = message.partition() or 0, message.offset() or 0
    return Reject(origin, reason, told["tw_detail"], timestamp, message.key(), value, len(value), arrival, *place)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


_NEEDED = ("ce_id", "tw_reason", "tw_timestamp", "tw_detail")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rejects are asked for; what is empty or None lets all pass; ``[since, until)`` in the original's time."""

    reasons: frozenset[Reason] = frozenset()
    topics: frozenset[str] = frozenset()
    since: int | None = None
    until: int | None = None
    ids: frozenset[Id] = frozenset()

    def takes(self, reject: Reject) -> bool:
        """Whether it is one of them."""
        return (
            (not self.reasons or reject.reason in self.reasons)
            and (not self.topics or reject.id.topic in self.topics)
            and (self.since is None or reject.timestamp >= self.since)
            and (self.until is None or reject.timestamp < self.until)
            and (not self.ids or reject.id in self.ids)
        )


def reasons(names: Collection[str]) -> frozenset[Reason]:
    """The reasons of these names.

    Raises:
        ConfigError: there is none of a name.
    """
    for name in names:
        if name not in set(Reason):
            raise ConfigError(f"--reason {name!r} is none; choose from {', '.join(Reason)}.")
    return frozenset(map(Reason, names))


class Ledger:
    """What became of every selected reject: a byte for each offset, so millions fit.

    ``spans`` are the offsets of each partition of ``rejects``, ``inputs`` the topics that rejects may come from.
    """

    def __init__(self, spans: Mapping[int, Span], selection: Selection, inputs: Collection[str]) -> None:
        self.rejects: Counter[Kind] = Counter()
        """How many were selected."""
        self.replayed: Counter[Kind] = Counter()
        """How many of those have been replayed."""
        self.found: set[Id] = set()
        """Which of the ids asked for are there."""
        self.foreign = 0
        """Records that are not understood."""
        self._selection = selection
        self._first = {partition: span.first for partition, span in spans.items()}
        self._book = {partition: bytearray(span.end - span.first) for partition, span in spans.items()}
        self._kinds = [Kind(topic, reason) for topic in sorted(inputs) for reason in Reason]
        self._number = {kind: number for number, kind in enumerate(self._kinds, 1)}

    def note(self, message: Message) -> None:
        """Take in the next record of a partition."""
        record = understand(message)
        if isinstance(record, Receipt):
            self._sign_off(message.partition() or 0, record.offsets)
        elif record is None or (number := self._number.get(Kind(record.id.topic, record.reason))) is None:
            self.foreign += 1
        elif self._selection.takes(record):
            self._book[record.partition][record.offset - self._first[record.partition]] = number
            self.rejects[self._kinds[number - 1]] += 1
            if self._selection.ids:
                self.found.add(record.id)

    def _sign_off(self, partition: int, offsets: list[int]) -> None:
        book, first = self._book[partition], self._first[partition]
        for offset in offsets:
            # Kafka may have let go of the reject, or it was not asked for
            number = book[offset - first] if first <= offset < first + len(book) else 0
            if number and not number & _REPLAYED:
                book[offset - first] = number | _REPLAYED
                self.replayed[self._kinds[number - 1]] += 1

    def selected(self, reject: Reject) -> bool:
        """Whether it is one of those asked for."""
        return self._byte(reject) > 0

    def signed(self, reject: Reject) -> bool:
        """Whether a receipt says that it was replayed."""
        return self._byte(reject) >= _REPLAYED

    def pending(self, reject: Reject) -> bool:
        """Whether it is one of those asked for and was not replayed."""
        return 0 < self._byte(reject) < _REPLAYED

    def _byte(self, reject: Reject) -> int:
        return self._book[reject.partition][reject.offset - self._first[reject.partition]]

    @property
    def waiting(self) -> Counter[Kind]:
        """How many of the selected have not been replayed."""
        return self.rejects - self.replayed


def newest(count: int, rejects: Iterable[Reject]) -> list[Reject]:
    """The last ``count`` by the originals' timestamps, newest first and without their values."""
    return nlargest(
        count, (reject._replace(value=b"") for reject in rejects), key=lambda each: (each.timestamp, each.id)
    )
