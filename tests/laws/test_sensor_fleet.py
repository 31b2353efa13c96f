"""Laws of the sensor fleet: same seed same bytes, and a fault touches what its truth says and nothing else."""

import json
from itertools import islice, pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.batch import Batch, Floats
from producers.devices import DEVICE_TYPES
from producers.faults import KINDS
from producers.sensors import SensorFleet
from producers.signals import Frame
from scorers.errors import ConfigError
from stream.contracts import Fault

START = 1_700_000_000_000
TICKS = 240
SPEC = SensorFleet(10, seed=3, start=START)


def records(spec: SensorFleet, *, rows: int, total: int) -> list[tuple[bytes, bytes]]:
    """The first ``total`` records, taken in batches of ``rows``."""
    found: list[tuple[bytes, bytes]] = []
    for batch in spec.build().batches(rows):
        found += zip(batch.keys, batch.values, strict=True)
        if len(found) >= total:
            break
    return found[:total]


def with_fault(kind: str, device: str = "pump-0001") -> tuple[Fault, list[Frame], list[Frame]]:
    """A fault over the middle third, the frames it is in, and those of the fault-free twin."""
    fleet = SPEC.build()
    fault = fleet.fault(device, kind, start=START + 80_000, duration_ms=80_000)
    fleet.inject(fault)
    return fault, fleet.frames(TICKS)[0], SPEC.build().frames(TICKS)[0]


def window_means(values: Floats, ticks: int = 5) -> Floats:
    means: Floats = values.reshape(-1, ticks, values.shape[1]).mean(axis=1)
    return means


def correlations(values: Floats) -> Floats:
    """Between the window means of every two metrics, shape ``(m, m)``, without sign."""
    return np.abs(np.asarray(np.corrcoef(window_means(values).T)))


@settings(max_examples=20)
@given(
    devices=st.integers(1, 23), seed=st.integers(0, 2**32), rows=st.integers(1, 300), interval=st.integers(1, 60_000)
)
def test_same_spec_gives_same_bytes_in_any_batching(devices: int, seed: int, rows: int, interval: int) -> None:
    spec = SensorFleet(devices, seed, interval, START, fault_rate=30.0, fault_ms=120_000)

    assert records(spec, rows=rows, total=200) == records(spec, rows=64, total=200)


def test_another_seed_gives_other_bytes() -> None:
    assert records(SPEC, rows=64, total=10) != records(SensorFleet(10, seed=4, start=START), rows=64, total=10)


@pytest.mark.parametrize("interval", [1, 7, 1_000])
def test_time_never_goes_back_and_each_device_moves_on(interval: int) -> None:
    batches = list(islice(SensorFleet(12, interval_ms=interval, start=START).build().batches(100), 5))
    seen: dict[bytes, list[int]] = {}
    for batch in batches:
        for key, ts in zip(batch.keys, batch.ts.tolist(), strict=True):
            seen.setdefault(key, []).append(ts)
    times = np.concatenate([batch.ts for batch in batches])

    assert (np.diff(times) >= 0).all()
    assert all(earlier < later for stamps in seen.values() for earlier, later in pairwise(stamps))


def test_records_keep_the_contract() -> None:
    batch = next(SPEC.build().batches(1))
    readings = [json.loads(value) for value in batch.values]

    assert [key.decode() for key in batch.keys] == [reading["device_id"] for reading in readings]
    assert batch.ts.tolist() == [reading["ts"] for reading in readings]
    assert {tuple(reading["values"]) for reading in readings} == {kind.names for kind in DEVICE_TYPES}


@pytest.mark.parametrize("devices", [1, 4, 5, 6, 1_000])
def test_a_fleet_has_as_many_devices_as_asked_for(devices: int) -> None:
    batch = next(SensorFleet(devices, start=START).build().batches(1))

    assert len(batch) == len(set(batch.keys)) == devices


def test_metrics_of_a_device_move_together() -> None:
    frames, _ = SensorFleet(10, start=START).build().frames(1_000)
    for frame in frames:
        driven = np.abs(frame.kind.column("load")) > 0

        assert np.median(correlations(frame.values[:, 0, driven])) > 0.9


def test_short_term_spread_is_what_magnitudes_are_measured_in() -> None:
    frames, _ = SensorFleet(60, start=START).build().frames(1_500)
    for frame in frames:
        seen = np.sqrt(frame.values.var(axis=0).mean(axis=0))

        np.testing.assert_allclose(seen, frame.kind.column("spread"), rtol=0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_changes_its_metrics_within_its_time_and_nothing_else(kind: str) -> None:
    fault, faulty, healthy = with_fault(kind)
    for seen, twin in zip(faulty, healthy, strict=True):
        differs = ~((seen.values == twin.values) | (np.isnan(seen.values) & np.isnan(twin.values)))
        within = (seen.ts >= fault.start) & (seen.ts < fault.end)
        device = np.array([name == fault.device_id for name in seen.devices])
        metric = np.array([name in fault.metrics for name in seen.metrics])
        allowed = within[..., None] & device[:, None] & metric

        assert np.array_equal(seen.ts, twin.ts)
        assert not (differs & ~allowed).any()
        assert differs[:, device][..., metric].any() == device.any()


def fault_rows(kind: str) -> tuple[Fault, Floats, Floats, Floats]:
    """The fault, then faulty values, healthy values (both ``(n, k)``) and the spreads of its metrics."""
    fault, faulty, healthy = with_fault(kind)
    rows = (faulty[0].ts[:, 0] >= fault.start) & (faulty[0].ts[:, 0] < fault.end)
    columns = [faulty[0].metrics.index(metric) for metric in fault.metrics]
    spread = faulty[0].kind.column("spread")[columns]
    return fault, faulty[0].values[rows, 0][:, columns], healthy[0].values[rows, 0][:, columns], spread


def test_a_spike_hits_the_first_reading_and_a_few_more() -> None:
    fault, faulty, healthy, spread = fault_rows("spike")
    hit = np.flatnonzero(np.abs(faulty - healthy)[:, 0] > 0.5 * fault.magnitude * spread[0])

    assert hit[0] == 0
    assert 2 <= len(hit) < len(faulty) / 2


def test_a_level_shift_moves_every_reading_by_its_magnitude() -> None:
    fault, faulty, healthy, spread = fault_rows("level_shift")

    np.testing.assert_allclose((faulty - healthy) / spread, fault.magnitude, rtol=0.01)


def test_a_stuck_sensor_repeats_its_first_reading() -> None:
    _, faulty, healthy, _ = fault_rows("stuck")

    assert (faulty == healthy[0]).all()


def test_a_drift_grows_to_its_magnitude() -> None:
    fault, faulty, healthy, spread = fault_rows("drift")
    grown = (faulty - healthy) / spread

    assert (np.diff(grown, axis=0) > 0).all()
    np.testing.assert_allclose(grown[-1], fault.magnitude, rtol=0.05)


def test_a_noise_burst_has_its_magnitude_as_standard_deviation() -> None:
    fault, faulty, healthy, spread = fault_rows("noise_burst")

    np.testing.assert_allclose(((faulty - healthy) / spread).std(axis=0), fault.magnitude, rtol=0.3)


def test_a_dropout_leaves_out_its_metrics_and_the_device_keeps_sending() -> None:
    fleet = SPEC.build()
    fault = fleet.fault("fan-0002", "dropout", start=START + 10_000, duration_ms=30_000)
    fleet.inject(fault)
    readings = [json.loads(value) for value in next(fleet.batches(600)).values if b"fan-0002" in value]
    without = [reading for reading in readings if not set(fault.metrics) & set(reading["values"])]

    assert len(readings) == 60
    assert [reading["ts"] for reading in without] == [
        reading["ts"] for reading in readings if fault.start <= reading["ts"] < fault.end
    ]
    assert all(reading["values"] for reading in without)


@pytest.mark.parametrize("device", ["pump-0001", "motor-0002", "chiller-0001"])
def test_a_broken_correlation_breaks_it_and_stays_in_range(device: str) -> None:
    fault, faulty, healthy = with_fault("broken_correlation", device)
    place = next(place for place, frame in enumerate(faulty) if device in frame.devices)
    frame, column = faulty[place], faulty[place].devices.index(device)
    rows = slice(80, 160)
    broken = [frame.metrics.index(name) for name in fault.metrics]
    whole = [at for at in range(len(frame.metrics)) if at not in broken]
    wrong = correlations(frame.values[rows, column])[np.ix_(broken, whole)]
    right = correlations(healthy[place].values[rows, column])[np.ix_(broken, whole)]
    usual = healthy[place].values[:, column, broken]
    spread = frame.kind.column("spread")[broken]

    assert np.median(right) > 0.85
    assert np.median(wrong) < 0.5
    assert (np.abs(frame.values[rows, column][:, broken] - usual.mean(axis=0)) < 5 * spread).all()


def truth(batches: list[Batch]) -> list[Fault]:
    return [fault for batch in batches for fault in batch.faults]


def test_each_fault_is_announced_once_by_the_batch_it_begins_in() -> None:
    batches = list(islice(SensorFleet(50, start=START, fault_rate=20.0).build().batches(500), 60))
    faults = truth(batches)

    assert len(faults) > 50
    assert {fault.kind for fault in faults} == set(KINDS)
    assert len({fault.fault_id for fault in faults}) == len(faults)
    for number, batch in enumerate(batches):
        assert all(0 <= fault.start - (START + number * 10_000) < 10_000 for fault in batch.faults)


def test_random_faults_come_at_the_rate_asked_for() -> None:
    # 200 devices for an hour at 1 a device and hour: 200 expected, standard deviation 14
    batches = list(islice(SensorFleet(200, interval_ms=10_000, start=START, fault_rate=1.0).build().batches(1), 360))

    assert 140 < len(truth(batches)) < 260


def test_a_device_has_one_fault_at_a_time() -> None:
    faults = truth(list(islice(SensorFleet(3, start=START, fault_rate=200.0).build().batches(300), 30)))
    for device in {fault.device_id for fault in faults}:
        mine = [fault for fault in faults if fault.device_id == device]

        assert all(earlier.end <= later.start for earlier, later in pairwise(mine))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "gremlin"}, "no fault kind 'gremlin'"),
        ({"device_id": "pump-0009"}, "no device 'pump-0009'"),
        ({"device_id": "pump-1"}, "no device 'pump-1'"),
        ({"device_id": "pump-0000"}, "no device 'pump-0000'"),
        ({"metrics": ["colour"]}, "no metric"),
        ({"metrics": []}, "no metric"),
        ({"start": START - 1}, "begins in the past"),
        ({"end": START + 1_000}, "ends before it begins"),
        ({"kind": "dropout", "metrics": list(DEVICE_TYPES[0].names)}, "leaves no reading"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    fleet = SPEC.build()
    fault = fleet.fault("pump-0001", "spike", start=START + 5_000, duration_ms=5_000)

    with pytest.raises(ConfigError, match=message):
        fleet.inject(msgspec.structs.replace(fault, **changes))


def test_a_second_fault_at_the_same_time_is_refused() -> None:
    fleet = SPEC.build()
    fleet.inject(fleet.fault("pump-0001", "spike", start=START + 5_000, duration_ms=5_000))

    with pytest.raises(ConfigError, match="already has a fault"):
        fleet.inject(fleet.fault("pump-0001", "drift", start=START + 9_999, duration_ms=5_000))


@pytest.mark.parametrize(
    "wrong",
    [{"devices": 0}, {"interval_ms": 0}, {"fault_rate": -1.0}, {"fault_rate": float("nan")}, {"fault_ms": 1_500}],
)
def test_a_fleet_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        SensorFleet(**({"devices": 1} | wrong))  # type: ignore[arg-type]  # the wrong values are the point
