"""Every sink keeps these laws, whatever it writes to."""

import pkgutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sinks
from sinks.base import Sink, Source
from tests.laws.sink_kit import NOW, STORES, TOPICS, Log, Store, alert, batch, encoded, feed, forecast, score, started

JUNK = [b"", b"{", b"null", b"\xff\xfe", b'{"device_id": 1}', b"[" * 2000, b"x" * 100_000, b'{"a": 1e999}']
SCORES = Source(TOPICS.scores, 0)
OTHERS = Source(TOPICS.scores, 1)
ALERTS = Source(TOPICS.alerts, 0)
FORECASTS = Source(TOPICS.forecasts, 0)

NewStore = Callable[[], AbstractContextManager[Store]]


@pytest.fixture(scope="module", params=STORES.values(), ids=lambda store: store.__name__)
def new_store(request: pytest.FixtureRequest) -> NewStore:
    fresh: NewStore = request.param
    return fresh


def sink_classes() -> Iterator[type]:
    modules = [import_module(f"sinks.{module.name}") for module in pkgutil.iter_modules(sinks.__path__)]
    members = [member for module in modules for member in vars(module).values() if isinstance(member, type)]
    return (member for member in members if is_sink(member))


def is_sink(member: type) -> bool:
    return member is not Sink and all(hasattr(member, name) for name in ("resume", "write", "flush", "release"))


def scores_of(*devices: str) -> st.SearchStrategy[list[bytes]]:
    return st.lists(
        st.builds(
            score,
            device=st.sampled_from(devices),
            hour=st.integers(-30, 30),
            value=st.floats(-1e6, 1e6),
            scored=st.booleans(),
        ),
        max_size=12,
    ).map(encoded)


records = scores_of("pump-1", "pump-2", "gehäuse/3")
changes = st.lists(
    st.builds(alert, number=st.integers(0, 2), state=st.sampled_from(["firing", "resolved"])), max_size=9
)
foretold = st.lists(
    st.builds(
        forecast,
        server=st.sampled_from(["10.0.0.1", "10.0.0.2"]),
        hour=st.integers(-3, 3),
        high=st.floats(0, 0.75),
        ahead=st.integers(0, 3),
    ),
    max_size=6,
)
logs = st.fixed_dictionaries(
    {
        SCORES: records,
        OTHERS: scores_of("valve-1"),
        ALERTS: changes.map(encoded),
        FORECASTS: foretold.map(encoded),
    }
)

steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([SCORES, OTHERS, ALERTS, FORECASTS]), st.integers(0, 4), st.integers(1, 5)),
        st.sampled_from(["flush", "roll", "restart", "hand over"]),
    ),
    max_size=25,
)
"""Write records from so far back, so many; make durable what is due; or all; be killed; give up partitions and get
them back."""


def follow(store: Store, log: Log, plan: Sequence[Any]) -> Any:
    """Feed the log in the steps of ``plan``, then what is left of it."""
    sink, ahead = started(store, log)
    for step in plan:
        if isinstance(step, tuple):
            source, back, count = step
            if source in ahead:
                first = max(ahead[source] - back, 0)
                sink.write(batch(log, source, first, first + count))
                ahead[source] = max(ahead[source], min(first + count, len(log[source])))
        elif step == "restart":
            sink.close()
            sink, ahead = started(store, log)
        elif step == "hand over":
            for source in ahead:
                sink.release(source)
            ahead = {source: sink.resume(source) for source in ahead}
        else:
            sink.flush(NOW, force=step == "roll")
    sink.close()
    return feed(store, log)


def test_every_sink_is_tried() -> None:
    assert set(sink_classes()) == set(STORES)


@settings(max_examples=40)
@given(log=logs, plan=steps)
def test_any_batching_repetition_and_restart_gives_the_same_content(new_store: NewStore, log: Log, plan: Any) -> None:
    with new_store() as disturbed, new_store() as plain:
        assert follow(disturbed, log, plan) == feed(plain, log)


@settings(max_examples=20)
@given(log=logs)
def test_feeding_twice_is_feeding_once(new_store: NewStore, log: Log) -> None:
    with new_store() as store:
        once = feed(store, log)
        sink, ahead = started(store, log)
        for source in ahead:
            sink.write(batch(log, source, 0, len(log[source])))
        sink.flush(NOW, force=True)
        sink.close()

        assert store.content() == once


@settings(max_examples=20)
@given(log=logs)
def test_a_sink_resumes_where_its_content_ends(new_store: NewStore, log: Log) -> None:
    with new_store() as store:
        feed(store, log)
        sink, ahead = started(store, log)
        sink.close()

        assert ahead == {source: len(log[source]) for source in ahead}


def test_an_empty_store_resumes_at_the_beginning(new_store: NewStore) -> None:
    with new_store() as store:
        sink, ahead = started(store, {SCORES: []})
        sink.close()

        assert ahead == {SCORES: 0}


def test_what_is_not_flushed_is_read_again(new_store: NewStore) -> None:
    log = {SCORES: encoded([score()])}
    with new_store() as store:
        sink, _ = started(store, log)
        before = store.content()
        sink.write(batch(log, SCORES, 0, 1))
        sink.close()

        assert store.content() == before


def test_flush_tells_where_to_go_on(new_store: NewStore) -> None:
    log = {SCORES: encoded([score(hour=hour) for hour in range(3)])}
    with new_store() as store:
        sink, _ = started(store, log)
        sink.write(batch(log, SCORES, 0, 3))
        moved = sink.flush(NOW, force=True)
        again = sink.flush(NOW, force=True)
        sink.close()

        assert (moved, again) == ({SCORES: 3}, {})


@settings(max_examples=20)
@given(good=records, junk=st.lists(st.sampled_from(JUNK) | st.binary(max_size=30), min_size=1), at=st.integers(0, 12))
def test_foreign_bytes_are_counted_and_stop_nothing(
    new_store: NewStore, good: list[bytes], junk: list[bytes], at: int
) -> None:
    values = [*good[:at], *junk, *good[at:]]
    for topic in (TOPICS.scores, TOPICS.alerts):
        source = Source(topic, 0)
        log = {source: values if topic == TOPICS.scores else junk}
        with new_store() as store:
            sink, ahead = started(store, log)
            for mine in ahead:
                sink.write(batch(log, mine, 0, len(log[mine])))
                moved = sink.flush(NOW, force=True)

                assert moved == {source: len(log[source])}
                assert (sink.tally.records, sink.tally.rejects) == (len(log[source]), len(junk))
            sink.close()
