"""The forecaster's core: in any batching, after any crash, the same forecasts, and the features of batch."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, repeat

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pytest

from scorers.forecast.features import DIV, features
from scorers.forecast.hours import BUCKETS, PEAKS, SESSIONS
from scorers.forecast.hours import hours as etl_hours
from scorers.forecast.schema import HORIZON, HOUR_MS, HOURS, LOADS
from stream.contracts import Forecast, Topics
from stream.forecast.core import Forecasting, LoadSpec
from stream.forecast.history import KEPT
from stream.forecast.issue import Champion
from stream.forecast.state import hour_prefix
from stream.message import Message, singly
from stream.records import PUNCTUATION, Records, join
from tests.lives import committed, cuts
from tests.workload import START, Session, StandIn, ahead, hours, log, sessions

TOPICS = Topics()
SPEC = LoadSpec(app="app")
DAY_MS = 24 * HOUR_MS
DIRT = [b"junk", b"{}", b'{"ServerIP": "10.0.0.1", "SessionStart": "soon"}']


def ended(minutes: float, **blank: None) -> bytes:
    """A session that ends so many minutes after it starts, with some columns blank."""
    record = json.loads(one("s0", 0.1).value) | blank
    return json.dumps(record | {"SessionEnd": record["SessionStart"] + int(60_000 * minutes)}).encode()


def born(model: StandIn | None = None, spec: LoadSpec = SPEC) -> Forecasting:
    core = Forecasting(0, spec, TOPICS)
    core.use(Champion(model))
    return core


def one(server: str, hours: float, load: float = 1.0) -> Session:
    """A session so many hours after the start."""
    return Session(server, START + int(hours * HOUR_MS), (load,) * 8)


def told(core: Forecasting, records: Records, lengths: Iterator[int] | None = None) -> list[Forecast]:
    batches = cuts(records, lengths or repeat(len(records)))
    return forecasts([message for batch in batches for message in singly(core.feed(batch))])


def forecasts(messages: list[Message]) -> list[Forecast]:
    return [msgspec.json.decode(message.value, type=Forecast) for message in messages]


def remembered(core: Forecasting) -> dict[bytes, bytes]:
    return {message.key or b"": message.value for message in singly(core.checkpoint())}


def kept(state: dict[bytes, bytes]) -> pa.Table:
    """The hours in the state, as ``HOURS``, sorted."""
    tables = [pa.ipc.open_stream(v).read_all() for k, v in state.items() if v and k.startswith(hour_prefix(SCOPE))]
    return pa.concat_tables(tables).select(HOURS.names).sort_by([("server", "ascending"), ("hour", "ascending")])


SCOPE = Forecasting(0, SPEC, TOPICS).scope


def dirty(found: list[Session], seed: int) -> list[Session | bytes]:
    """The same with lines that are none, loads that cannot be, late sessions and some days ahead."""
    chance, mixed = random.Random(seed), list[Session | bytes](found)
    for place in sorted(chance.sample(range(len(found)), len(found) // 20), reverse=True):
        near = found[place]
        wrong: list[Session | bytes] = [
            chance.choice(DIRT),
            replace(near, loads=(-1.0, *near.loads[1:])),
            replace(near, ts=near.ts - 3 * HOUR_MS),
            replace(near, ts=near.ts + 40 * DAY_MS),
        ]
        mixed.insert(place, chance.choice(wrong))
    return mixed


def punctuated(records: Records, at: int) -> Records:
    mark = log([b""])
    mark = replace(mark, offsets=mark.offsets + len(records), headers=[[(PUNCTUATION, b"%d" % at)]])
    return join([records, mark])


@pytest.mark.parametrize("seed", range(3))
def test_any_batching_and_any_crash_give_the_same_forecasts(seed: int) -> None:
    chance = random.Random(seed)
    found = dirty(sessions(4, 100, seed=seed, an_hour=2.0), seed)
    records = punctuated(log(found), START + 121 * HOUR_MS)
    whole = [*singly(born(StandIn()).feed(records))]
    lengths = (chance.choice([1, 30, 200]) for _ in count())
    fates = (chance.choice(["commit", "crash", "go", "go"]) for _ in count())
    broken = committed(lambda: born(StandIn()), records, lengths, fates)

    assert len(whole) > 250
    assert [(m.topic, m.key, m.value) for m in broken] == [(m.topic, m.key, m.value) for m in whole]
    assert {message.topic for message in whole} == {TOPICS.forecasts}


def test_every_server_is_forecast_once_for_every_hour_that_ends() -> None:
    found = [one(f"s{server}", hour + 0.5) for hour in range(4) for server in range(3)] + [one("s0", 4.1)]
    out = told(born(StandIn()), log(found))

    assert [(f.issued, f.server) for f in out] == [
        (START + hour * HOUR_MS, f"s{server}") for hour in range(1, 5) for server in range(3)
    ]
    assert all([h.hour for h in f.hours] == [f.issued + n * HOUR_MS for n in range(HORIZON)] for f in out)


def test_hours_are_those_of_batch() -> None:
    found = sessions(6, 200, seed=3)
    end = START + 200 * HOUR_MS
    core = born()
    told(core, punctuated(log(found), end), repeat(37))

    assert kept(remembered(core)).equals(hours(found, end))
    assert core.counts["late"] == 0


def test_hours_are_those_that_etl_makes() -> None:
    found = sessions(5, 150, seed=8)
    end = START + 150 * HOUR_MS
    columns = [[s.server for s in found], [s.ts for s in found]]
    columns += [[round(s.loads[at] * 1e6) for s in found] for at in range(len(LOADS))]
    core = born()
    told(core, punctuated(log(found), end))
    with duckdb.connect() as database:
        database.execute(DIV)
        database.register("sessions", pa.table(columns, schema=SESSIONS))
        for table, query in (("buckets", BUCKETS), ("peaks", PEAKS)):
            database.execute(f"CREATE TABLE {table} AS {query}")
        etl = database.sql(etl_hours(24, START, end)).to_arrow_table().cast(HOURS)

    assert kept(remembered(core)).equals(etl)


def test_features_are_those_of_batch_to_the_last_bit() -> None:
    found = sessions(4, 36 * 24, seed=5, an_hour=1.0)
    end, late = START + 36 * DAY_MS, 33 * len(found) // 36
    core, model = born(), StandIn()
    records = punctuated(log(found), end)
    told(core, records.part(0, late), repeat(500))
    core.use(Champion(model))
    told(core, records.part(late, len(records)), repeat(60))
    asked = pa.concat_tables(model.asked).drop("load")
    batch = pa.concat_tables(
        features(hours(found, end), table.select(["server", "hour"]), model.spec) for table in model.asked
    )

    assert asked.equals(batch.drop("load"))
    assert len(model.asked) > 2
    assert asked["lag_730"].null_count < len(asked)


def test_what_was_committed_is_not_told_again_by_whoever_goes_on_within_an_hour() -> None:
    records = log([*sessions(3, 30), one("10.0.0.1", 30.2), one("10.0.0.1", 30.7), one("10.0.0.2", 31.2)])
    first = born(StandIn())
    told(first, records.part(0, len(records) - 2))
    state = remembered(first)
    second = born(StandIn())
    begin = second.recall(state)

    assert begin is not None
    assert 0 < begin < len(records) - 2
    rest = told(second, records.part(begin, len(records)), repeat(1))
    whole = told(born(StandIn()), records)
    assert rest == [forecast for forecast in whole if forecast.issued == START + 31 * HOUR_MS]


def test_a_new_server_is_forecast_from_the_fleet_until_it_has_a_past() -> None:
    found = [one("s0", hour + 0.5) for hour in range(100)] + [one("new", hour + 0.6) for hour in range(20, 100)]
    ordered = sorted(found, key=lambda session: session.ts)
    out = told(born(StandIn()), log(ordered))
    basis = [forecast.basis for forecast in out if forecast.server == "new"]

    assert basis[0] == "fleet"
    assert basis == ["fleet"] * 47 + ["own"] * (len(basis) - 47)


def test_a_server_silent_for_longer_than_it_may_live_is_missing_and_comes_back_with_its_past() -> None:
    found = [one("s0", hour + 0.5) for hour in range(200)]
    found += [one("s1", hour + 0.6, 7.0) for hour in range(200) if not 60 <= hour < 120]
    ordered = sorted(found, key=lambda session: session.ts)
    core = born(StandIn())
    out = [forecast for forecast in told(core, log(ordered)) if forecast.server == "s1"]
    known = [(f.issued - START) // HOUR_MS for f in out]
    table = kept(remembered(core))
    there = [(row["hour"] - START) // HOUR_MS for row in table.to_pylist() if row["server"] == "s1"]

    assert known == [*range(1, 85), *range(121, 200)]
    assert there == [*range(84), *range(120, 199)]
    assert table.equals(hours(ordered, START + 199 * HOUR_MS))


def test_without_a_model_hours_are_kept_and_nothing_is_told() -> None:
    records = log(sessions(3, 80))
    half = len(records) // 2
    core = born()

    assert told(core, records.part(0, half)) == []
    core.use(Champion(StandIn()))
    late = told(core, records.part(half, len(records)))
    assert late
    assert late == [f for f in told(born(StandIn()), records) if f.issued >= late[0].issued]


def test_the_state_forgets_hours_that_nobody_needs() -> None:
    found = [one(f"s{hour % 2}", hour + 0.5) for hour in range(KEPT + 100)]
    core, state = born(), dict[bytes, bytes]()
    for batch in cuts(log(found), repeat(50)):
        core.feed(batch)
        state |= remembered(core)
    there = [key for key, value in state.items() if value and key.startswith(hour_prefix(SCOPE))]
    again = born()
    again.recall(state)

    assert len(there) == KEPT
    assert len(state) - len([key for key, value in state.items() if not value]) == KEPT + 1
    assert again.open_windows == core.open_windows - 1  # the open hour is read from the log again


def test_a_date_with_day_and_month_exchanged_closes_nothing() -> None:
    found = [one("s0", 0.5), one("s0", 0.6), one("s1", 0.7), one("s1", 24 * 90.0), one("s1", 0.8), one("s0", 1.5)]
    core = born()
    told(core, log(found), repeat(1))

    assert core.counts["rejects.future"] == 1
    assert core.counts["late"] == 0
    assert kept(remembered(core)).equals(hours([*found[:3], *found[4:]], START + HOUR_MS))


@pytest.mark.parametrize("length", [1, 2, 100])
def test_a_log_that_goes_on_after_a_week_loses_nothing(length: int) -> None:
    found = [one("s0", 0.5), one("s0", 0.6)]
    found += [one(f"s{n % 5}", 24 * 7 + n / 4) for n in range(20)]
    core = born()
    told(core, log(found), repeat(length))

    assert core.counts["late"] == 0
    assert kept(remembered(core)).equals(hours(found, START + (24 * 7 + 4) * HOUR_MS))


def test_a_partition_that_falls_silent_ends_its_hours_by_the_clock() -> None:
    core = born(StandIn())
    told(core, log([one("s0", 0.2), one("s0", 0.5)]))

    assert core.hush(20 * 60_000) == []
    first = forecasts([*singly(core.hush(41 * 60_000))])
    assert [forecast.issued for forecast in first] == [START + HOUR_MS]
    assert core.hush(42 * 60_000) == []
    assert len(core.hush(60 * DAY_MS // 2)) == 24  # until nobody is there


def test_a_punctuation_ends_the_hours_before_it_and_no_more() -> None:
    core = born(StandIn())
    records = punctuated(log([one("s0", 0.2), one("s0", 0.5)]), START + 3 * HOUR_MS)

    assert [f.issued for f in told(core, records)] == [START + hour * HOUR_MS for hour in (1, 2, 3)]
    beyond = born(StandIn())
    records = punctuated(log([one("s0", 0.2), one("s0", 0.5)]), 10**17)
    assert [f.issued for f in told(beyond, records)] == [START + HOUR_MS]


def test_what_is_no_session_is_counted_by_reason() -> None:
    core = born()
    wrong = [replace(one("s0", 0.1), loads=(load, *[1.0] * 7)) for load in (-0.5, 2e9)]
    blank = [ended(1, TotalLoad=None), ended(1, MbytesTransferred=None)]
    told(core, log([one("s0", 0.1), ended(2), ended(-2), *blank, *DIRT, *wrong, one("s0", 2.5), one("s0", 0.2)]))
    found = {reason: number for reason, number in core.counts.items() if reason.startswith("rejects")}

    assert found == {
        "rejects": 7,
        "rejects.malformed": 1,
        "rejects.missing_field": 3,
        "rejects.swapped": 1,
        "rejects.out_of_range": 2,
    }
    assert core.counts["late"] == 1
    assert core.counts["sessions"] == 12
    assert kept(remembered(core))["sessions"].to_pylist() == [3, 0]


def test_hours_left_out_are_missing_in_what_is_asked() -> None:
    found = sessions(3, 90)
    span = (START + 10 * HOUR_MS + 1, START + 12 * HOUR_MS)
    end = START + 90 * HOUR_MS
    model = StandIn()
    told(born(model, replace(SPEC, exclude=(span,))), punctuated(log(found), end))
    batch = hours(found, end)
    left = batch.filter(~np.isin(batch["hour"].to_numpy(), [START + 10 * HOUR_MS, START + 11 * HOUR_MS]))
    targets = ahead({"10.0.0.1"}, end)
    asked = model.asked[-1]
    last = asked.filter(
        pa.array(np.isin(asked["hour"].to_numpy(), targets["hour"]) & (asked["server"].to_numpy() == "10.0.0.1"))
    )

    assert last.drop("load").equals(features(left, targets, model.spec).drop("load"))
