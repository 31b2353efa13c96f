"""What a partition remembers: out and back, the newest record of every key, and nobody else's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.behaviour import Behaviour, Course, Evidence
from stream.alert import Watch
from stream.app import sources
from stream.contracts import Accepted, Level, Topics
from stream.levels import Odd
from stream.message import Message
from stream.partition import Partition, StreamSpec
from stream.records import Records
from stream.state import DeviceState, Held, Memory, PartitionState, device_key, encode, partition_key, recall

TOPICS = Topics()
SOURCE, _ = sources(TOPICS)
NOW = 1_700_000_000_000

INT64 = st.integers(-(2**62), 2**62)
FLOATS, COUNTS = st.floats(-1e300, 1e300), st.integers(0, 2**53)
COURSES = st.builds(Course, COUNTS, INT64, INT64, *[FLOATS] * 5)
EVIDENCE = st.builds(Evidence, st.lists(COUNTS, min_size=5, max_size=5), COUNTS, COUNTS, FLOATS, COURSES)
WATCHES = st.builds(
    Watch, st.lists(st.none() | INT64, max_size=4), st.none() | INT64, st.floats(0, 100), st.floats(0, 1e9),
    st.dictionaries(st.text(), EVIDENCE, max_size=3), st.none() | st.sampled_from(Behaviour), st.none() | st.text(),
)  # fmt: skip
HELD = st.builds(Held, INT64, INT64, st.none() | st.binary(max_size=9), st.binary(max_size=99), INT64)
NUMBERS = st.floats(-1e100, 1e100)
LEVELS = st.dictionaries(st.text(max_size=9), st.builds(Level, NUMBERS, NUMBERS), max_size=3)
ACCEPTED = st.builds(Accepted, LEVELS, INT64, st.none() | st.text(max_size=9))
ODD = st.builds(Odd, INT64, st.dictionaries(st.text(max_size=9), st.tuples(INT64, NUMBERS), max_size=3))
DEVICES = st.builds(
    DeviceState, INT64, INT64, st.lists(st.text()), st.none() | WATCHES, st.none() | HELD,
    accepted=st.none() | ACCEPTED, odd=st.none() | ODD,
)  # fmt: skip
WHOLE = st.builds(PartitionState, INT64, INT64, INT64, INT64, st.lists(INT64, max_size=9))


@given(devices=st.dictionaries(st.text(max_size=9), DEVICES, max_size=4), whole=st.none() | WHOLE)
def test_what_is_remembered_comes_back(devices: dict[str, DeviceState], whole: PartitionState | None) -> None:
    records = [(device_key("t", name), encode(state)) for name, state in devices.items()]
    records += [(partition_key("t", 3), encode(whole))] if whole else []

    assert recall("t", 3, records) == Memory(whole, devices)


def test_the_newest_record_of_a_key_counts() -> None:
    old, new = DeviceState(1, 1), DeviceState(2, 2)
    memory = recall("t", 0, [(device_key("t", name), encode(state)) for name, state in (("a", old), ("a", new))])

    assert memory.devices == {"a": new}


def test_other_topics_and_partitions_are_none_of_our_business() -> None:
    whole = PartitionState(5, 5, 5, 5)
    strangers = [
        (device_key("other", "a"), encode(DeviceState(1, 1))),
        (device_key("t2", "a"), encode(DeviceState(1, 1))),
        (partition_key("t", 1), encode(whole)),
        (partition_key("t", 11), encode(whole)),
        (b"", b"junk"),
    ]

    assert recall("t", 0, strangers) == Memory(None, {})
    assert recall("t", 1, strangers) == Memory(whole, {})


@pytest.mark.parametrize("name", ["a/b", "device", "t/device/a", "ü", " ", "t/partition/0"])
def test_any_device_name_is_its_own_key(name: str) -> None:
    memory = recall("t", 0, [(device_key("t", name), encode(DeviceState(1, 2)))])

    assert memory == Memory(None, {name: DeviceState(1, 2)})


def test_what_a_former_version_wrote_can_be_read() -> None:
    old = b'{"clock":3,"closed":2,"metrics":["x"],"watch":{"recent":[1],"since":1},"trail":[9.0,3,0.1,0.2,1,0.0]}'
    state = recall("t", 0, [(device_key("t", "a"), old)]).devices["a"]

    assert (state.watch, state.accepted, state.odd) == (Watch([1], 1), None, None)


# --- what a partition writes -------------------------------------------------------------------


def fed(*seconds: float, device: str = "a", ahead: int = 0) -> Partition:
    """A partition after readings at ``seconds``, whose records came ``ahead`` ms after their stamps."""
    partition = Partition(SOURCE, 2, StreamSpec(), TOPICS)
    stamps = [NOW + int(second * 1000) for second in seconds]
    values: list[bytes | None] = [
        f'{{"device_id": "{device}", "ts": {stamp}, "values": {{"x": 1}}}}'.encode() for stamp in stamps
    ]
    count = len(values)
    arrival = np.array(stamps, np.int64) + ahead
    partition.feed(Records(SOURCE.topic, 2, np.arange(count), arrival, [b"k"] * count, values, [()] * count))
    return partition


def memory(messages: list[Message]) -> Memory:
    return recall(f"/{SOURCE.topic}", 2, [(message.key or b"", message.value) for message in messages])


def test_a_checkpoint_goes_to_its_own_partition_of_the_state_topic() -> None:
    places = {(message.topic, message.partition) for message in fed(1, 20).checkpoint()}

    assert places == {(TOPICS.state, 2)}


def test_a_device_is_remembered_when_a_window_of_it_has_closed() -> None:
    open_only, closed = memory(fed(1, 2).checkpoint()), memory(fed(1, 25).checkpoint())

    assert open_only.devices == {}
    assert closed.devices == {"a": DeviceState(NOW + 25_000, NOW + 23_000, ["x"], heard=NOW + 25_000)}


def test_a_partition_remembers_where_its_open_windows_begin() -> None:
    whole = memory(fed(1, 5, 11, 15, 21, 25).checkpoint()).partition

    # [0, 10) closed at 15, [10, 20) at 25; [20, 30) is open since offset 4
    assert whole == PartitionState(6, NOW + 25_000, 4, NOW + 15_000)


def test_what_has_not_changed_is_not_written_again() -> None:
    partition = fed(1, 25)
    partition.checkpoint()

    assert [message.key for message in partition.checkpoint()] == [partition_key(partition.scope, 2)]


def test_a_reading_that_is_held_travels_with_all_that_makes_it_a_record() -> None:
    (held,) = [state.held for state in memory(fed(1, ahead=10**9).checkpoint()).devices.values()]

    assert held is not None
    assert (held.offset, held.timestamp, held.key, held.ts) == (0, NOW + 1_000 + 10**9, b"k", NOW + 1_000)
    assert b'"device_id": "a"' in held.value


def test_nothing_remembered_is_no_place_to_start() -> None:
    partition = Partition(SOURCE, 2, StreamSpec(), TOPICS)

    assert partition.restore(Memory(None, {})) is None
    assert not partition.reliving


def test_a_restored_partition_relives_the_log_from_its_floor() -> None:
    before = fed(1, 5, 11, 15)
    after = Partition(SOURCE, 2, StreamSpec(), TOPICS)
    floor = after.restore(memory(before.checkpoint()))

    assert floor == before.floor == 2
    assert after.reliving
    assert after.hush(10**9) == []
