"""Messages one by one and in columns, and their headers in one byte string."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.contracts import Reason
from stream.encode import reject_messages
from stream.message import Bulk, Message, header, singly, size
from stream.records import Records
from stream.rejects import Rejects
from stream.texts import Texts

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
headers = st.lists(st.tuples(names, st.binary(max_size=300)), max_size=5)


def joined(pairs: list[tuple[str, bytes]]) -> bytes:
    return b"".join(header(*pair) for pair in pairs)


messages = st.builds(
    lambda topic, key, value, own, common, partition, timestamp: Message(
        topic, key, value, joined(own), partition, timestamp, joined(common)
    ),
    names, st.none() | st.binary(max_size=9), st.binary(max_size=99), headers, headers,
    st.integers(-1, 9), st.integers(0, 2**60),
)  # fmt: skip
places = st.tuples(st.integers(0, 2**63 - 1), st.integers(-(2**63), 2**63 - 1), st.none() | st.binary(max_size=9))


@given(headers, headers)
def test_headers_come_back_in_their_order(common: list[tuple[str, bytes]], own: list[tuple[str, bytes]]) -> None:
    assert Message("t", None, b"", joined(own), common=joined(common)).headers == common + own


@given(st.lists(messages, max_size=9))
def test_columns_hold_the_same_messages(many: list[Message]) -> None:
    bulk = Bulk.of(many)

    assert list(bulk) == many
    assert list(singly([*many, bulk])) == many + many
    assert size([bulk]) <= size(many) + 3


@given(st.lists(places, min_size=1, max_size=9))
def test_a_reject_tells_its_place_whatever_it_is(rows: list[tuple[int, int, bytes | None]]) -> None:
    offsets, arrivals, values = zip(*rows, strict=True)
    records = Records("in", 3, np.array(offsets), np.array(arrivals), [None] * len(rows), values, [()] * len(rows))
    told = Rejects.of(np.arange(len(rows)), [(Reason.MALFORMED, f"why {row}") for row in range(len(rows))])
    found = [dict(message.headers) for message in reject_messages("rejects", records, told)]

    assert [one["ce_id"] for one in found] == [b"in/3/%d" % offset for offset in offsets]
    assert [one["tw_timestamp"] for one in found] == [b"%d" % arrival for arrival in arrivals]
    assert [one["tw_detail"] for one in found] == [b"why %d" % row for row in range(len(rows))]


@given(st.lists(st.none() | st.binary(max_size=9), min_size=1), st.data())
def test_what_is_gathered_is_what_is_picked(texts: list[bytes | None], data: st.DataObject) -> None:
    rows = np.array(data.draw(st.lists(st.integers(0, len(texts) - 1))), np.int64)
    whole = Texts.of(texts)

    assert list(whole.gather(rows)) == whole.pick(rows) == [texts[row] for row in rows]
