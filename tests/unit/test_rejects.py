"""Rejects in a log of their own: which are asked for, which were replayed, and what a terminal may see of them."""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.errors import ConfigError, InputError
from stream.contracts import Reason, Receipt
from stream.encode import receipt_message, reject_messages
from stream.message import Message as Produced
from stream.records import Records
from stream.rejects import Rejects
from tidewatch.console import picture, plain
from tidewatch.rejects import Id, Kind, Ledger, Reject, Selection, newest, reasons, understand
from tidewatch.resend import batches, originals, receipts
from tidewatch.tail import Span

TOPIC = "sensor.readings"
NOW = 1_700_000_000_000
LATER = NOW + 60_000


class Message:
    """A record as Kafka gives it back; confluent-kafka's own cannot be made."""

    def __init__(self, **fields: Any) -> None:
        for name in ("topic", "partition", "offset", "key", "value", "headers", "timestamp"):
            setattr(self, name, partial(fields.get, name))


def kept(message: Produced, partition: int, offset: int) -> Any:
    return Message(
        topic=message.topic,
        partition=partition,
        offset=offset,
        key=message.key,
        value=message.value,
        headers=[*message.headers],
        timestamp=(1, LATER),
    )


def rejected(at: int, reason: Reason = Reason.LATE, *, offset: int = 0, partition: int = 0, ts: int = NOW) -> Any:
    """A reject of ``sensor.readings/1/<at>``, as the worker writes it, at ``offset`` of ``rejects``."""
    records = Records(TOPIC, 1, np.array([at]), np.array([ts]), [b"dev-7"], [b"bytes"], [()])
    (message,) = reject_messages("rejects", records, Rejects.of(np.array([0]), [(reason, "why")]))
    return kept(message, partition, offset)


def receipt(offsets: list[int], *, offset: int, partition: int = 0) -> Any:
    return kept(receipt_message("rejects", partition, Receipt(offsets), LATER), partition, offset)


def ledger(log: Sequence[Any], selection: Selection | None = None, *, first: int = 0) -> Ledger:
    """What is known after reading ``log``, of two partitions with up to a hundred records each."""
    book = Ledger({0: Span(first, 100), 1: Span(first, 100)}, selection or Selection(), [TOPIC])
    for message in log:
        book.note(message)
    return book


def reject(message: Any) -> Reject:
    found = understand(message)
    assert isinstance(found, Reject)
    return found


def test_a_reject_is_read_back_as_it_was_written() -> None:
    assert reject(rejected(5, Reason.FUTURE, offset=9, partition=3)) == Reject(
        Id(TOPIC, 1, 5), Reason.FUTURE, "why", NOW, b"dev-7", b"bytes", 5, LATER, 3, 9
    )


@pytest.mark.parametrize(
    "headers",
    [
        None,
        [("tw_reason", b"late")],
        [("ce_type", b"io.tidewatch.receipt.v1")],
        [("tw_reason", b"dull"), *((f"tw_{name}", b"1") for name in ("topic", "partition", "offset", "timestamp"))],
    ],
)
def test_what_is_neither_reject_nor_receipt_is_told_as_foreign(headers: Any) -> None:
    stranger = Message(topic="rejects", partition=0, offset=0, value=b"not ours", headers=headers, timestamp=(1, NOW))

    assert understand(stranger) is None
    assert ledger([stranger]).foreign == 1


def test_a_reject_of_a_topic_that_is_no_input_is_foreign() -> None:
    book = Ledger({0: Span(0, 10)}, Selection(), ["server.sessions"])
    book.note(rejected(0))

    assert (book.foreign, book.rejects.total()) == (1, 0)


def test_an_id_is_read_as_it_is_written() -> None:
    assert Id.parse(str(Id("a.b", 3, 47))) == Id("a.b", 3, 47)
    assert Id.parse("a.b/3/47/2") == Id("a.b", 3, 47, 2)
    assert str(Id("a.b", 3, 47, 0)) == "a.b/3/47/0"


@pytest.mark.parametrize("text", ["", "a", "a/1", "a/1/2/3/4", "a/x/2", "a/-1/2", "a/1/²"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="topic/partition/offset"):
        Id.parse(text)


def test_an_unknown_reason_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=f"'dull'.*{', '.join(Reason)}"):
        reasons(["late", "dull"])


@pytest.mark.parametrize(
    ("selection", "passes"),
    [
        (Selection(), True),
        (Selection(reasons=frozenset({Reason.LATE, Reason.FUTURE})), True),
        (Selection(reasons=frozenset({Reason.FUTURE})), False),
        (Selection(topics=frozenset({TOPIC})), True),
        (Selection(topics=frozenset({"server.sessions"})), False),
        (Selection(since=NOW), True),
        (Selection(since=NOW + 1), False),
        (Selection(until=NOW + 1), True),
        (Selection(until=NOW), False),
        (Selection(ids=frozenset({Id(TOPIC, 1, 5)})), True),
        (Selection(ids=frozenset({Id(TOPIC, 1, 6)})), False),
    ],
)
def test_a_selection_takes_what_passes_all_its_filters(selection: Selection, passes: bool) -> None:
    assert selection.takes(reject(rejected(5))) == passes


def test_a_receipt_signs_off_what_lies_before_it_in_its_partition() -> None:
    # partition 0:  r0  r1  r2  receipt of 0 and 2  r4        partition 1:  r0
    log = [*(rejected(at, offset=at) for at in (0, 1, 2)), receipt([0, 2], offset=3), rejected(4, offset=4)]
    other = rejected(9, offset=0, partition=1)
    book = ledger([*log, other])
    rows = [reject(message) for message in (*log[:3], log[4], other)]

    assert [book.pending(row) for row in rows] == [False, True, False, True, True]
    assert [book.signed(row) for row in rows] == [True, False, True, False, False]
    assert book.rejects == {Kind(TOPIC, Reason.LATE): 5}
    assert book.waiting == {Kind(TOPIC, Reason.LATE): 3}


def test_a_receipt_of_what_kafka_let_go_of_or_nobody_asked_for_counts_for_nothing() -> None:
    late = Selection(reasons=frozenset({Reason.LATE}))
    log = [rejected(0, Reason.FUTURE, offset=10), rejected(1, offset=11), receipt([3, 10, 11, 11], offset=12)]
    book = ledger(log, late, first=10)

    assert book.replayed == {Kind(TOPIC, Reason.LATE): 1}
    assert not book.selected(reject(log[0]))


def test_ids_that_are_there_are_found() -> None:
    asked = frozenset({Id(TOPIC, 1, 5), Id(TOPIC, 1, 6)})

    assert ledger([rejected(5), rejected(7, offset=1)], Selection(ids=asked)).found == {Id(TOPIC, 1, 5)}


def test_the_newest_come_first_by_the_originals_time_and_without_their_bytes() -> None:
    rows = [reject(rejected(at, ts=NOW + ts, offset=at)) for at, ts in enumerate([30, 10, 40, 20])]
    found = newest(2, iter(rows))

    assert [row.timestamp - NOW for row in found] == [40, 30]
    assert [(row.value, row.size) for row in found] == [(b"", 5)] * 2


def test_an_original_goes_back_to_its_partition_with_its_time() -> None:
    (message,) = originals([reject(rejected(5))])

    assert message == Produced(TOPIC, b"dev-7", b"bytes", b"", 1, NOW)


def test_there_is_a_receipt_for_each_partition_of_a_batch() -> None:
    batch = [reject(rejected(at, offset=10 + at, partition=at % 2)) for at in range(3)]
    messages = receipts("rejects", batch, LATER)

    assert [(message.topic, message.partition, message.value) for message in messages] == [
        ("rejects", 0, b'{"offsets":[10,12]}'),
        ("rejects", 1, b'{"offsets":[11]}'),
    ]


@given(st.lists(st.integers(0, 30)), st.integers(1, 5), st.integers(1, 40))
def test_batches_hold_all_in_order_and_no_more_than_they_may(sizes: list[int], records: int, size: int) -> None:
    row = reject(rejected(5))
    rows = [row._replace(value=b"x" * count, size=count) for count in sizes]
    found = list(batches(rows, records, size))

    assert list(itertools.chain(*found)) == rows
    assert all(len(batch) <= records for batch in found)
    assert all(len(batch) == 1 or sum(row.size for row in batch) <= size for batch in found)


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (b"", [""]),
        ('{\n\t"é": 1}'.encode(), ["{", '\t"é": 1}']),
        (b"\x1b[2J", ["00000000  1b 5b 32 4a                                      .[2J"]),
        (b"\xff" * 17, [f"00000000  {'ff ' * 15}ff  {'.' * 16}", f"00000010  ff{' ' * 47}."]),
        ("a\u202eb".encode(), ["00000000  61 e2 80 ae 62                                   a...b"]),
    ],
)
def test_bytes_are_shown_as_text_only_where_all_of_it_is_printable(value: bytes, lines: list[str]) -> None:
    assert list(picture(value)) == lines


@given(st.text())
def test_nothing_from_outside_steers_a_terminal(text: str) -> None:
    assert plain(text).isprintable()


def test_printable_text_stays_as_it_is() -> None:
    assert plain("pump-7 [bold] é") == "pump-7 [bold] é"
    assert plain("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
