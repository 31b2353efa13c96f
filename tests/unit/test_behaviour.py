"""What kind of behaviour windows show: each kind by its definition, and honest doubt where features do not tell."""

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scorers.behaviour import COURSE, Behaviour, Course, Evidence, Finding, Sign, tell
from scorers.fit import TrainSpec, fit_device
from scorers.fleet import Fleet
from scorers.statistics import Floats, Statistics, concat
from tests.simulator import READINGS, Device, summarise

WINDOW_MS = 10_000


def trained(device: Device) -> Fleet:
    windows = device.windows(300)
    return Fleet.of({"a": fit_device(windows, np.arange(300) + 1, TrainSpec())}, "v1")


def findings(fleet: Fleet, windows: Statistics) -> dict[int, Finding]:
    measured = fleet.measure(np.zeros(len(windows), np.int64), windows)
    verdicts = fleet.judge(measured, np.ones(len(windows)))
    return fleet.find(measured, verdicts.anomaly)


def told(found: dict[int, Finding]) -> tuple[Behaviour, str | None]:
    evidence: dict[str, Evidence] = {}
    result: tuple[Behaviour, str | None] = Behaviour.UNKNOWN, None
    for row, finding in found.items():
        result = tell(evidence, finding, row * WINDOW_MS)
    return result


def spread(size: float, values: Floats, device: Device) -> Floats:
    """The second metric's readings, so many of its spreads wider at random."""
    values[:, 1] += size * device.spread[1] * device.random.standard_normal(len(values))
    return values


def peaks(size: float, values: Floats, device: Device) -> Floats:
    """One reading of every window jumps."""
    values[4::READINGS, 1] += size * device.spread[1]
    return values


def shift(size: float, values: Floats, device: Device) -> Floats:
    values[:, 1] += size * device.spread[1]
    return values


def ramp(size: float, values: Floats, device: Device) -> Floats:
    values[:, 1] += np.linspace(0, size, len(values)) * device.spread[1]
    return values


def still(_: float, values: Floats, __: Device) -> Floats:
    values[:, 1] = values[0, 1]
    return values


def gone(share: float, values: Floats, device: Device) -> Floats:
    values[device.random.random(len(values)) < share, 1] = np.nan
    return values


def loose(size: float, values: Floats, device: Device) -> Floats:
    """Half of the metrics follow a load of their own; none leaves its usual range."""
    half = slice(0, 3)
    own = size * np.sin(np.arange(len(values)) / 40)
    load = (values[:, 3] - device.level[3]) / (device.spread[3] * device.gain[3])
    values[:, half] += device.spread[half] * device.gain[half] * (own - load)[:, None]
    return values


CASES = [
    (Behaviour.LEVEL, shift, (6.0, 12.0, -8.0)),
    (Behaviour.DRIFT, ramp, (10.0, 20.0, -15.0)),
    (Behaviour.NOISE, spread, (2.0, 4.0, 10.0)),
    (Behaviour.SPIKE, peaks, (6.0, 12.0, -40.0)),
    (Behaviour.STUCK, still, (0.0,)),
    (Behaviour.DROPOUT, gone, (0.6, 1.0)),
    (Behaviour.CORRELATION, loose, (1.0, 1.5)),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("behaviour", "harm", "size"), [(name, harm, size) for name, harm, sizes in CASES for size in sizes]
)
def test_each_kind_is_told_by_its_definition(behaviour: Behaviour, harm: object, size: float, seed: int) -> None:
    device = Device(seed)
    fleet = trained(device)
    harmed = harm(size, device.readings(20), device)  # type: ignore[operator]
    found = findings(fleet, summarise(harmed))

    assert len(found) >= 4
    assert told(found)[0] is behaviour
    if behaviour is not Behaviour.CORRELATION:
        assert told(found)[1] == "metric1"


@pytest.mark.parametrize("readings", [2, 4])
def test_noise_and_spikes_are_not_told_apart_by_a_few_readings(readings: int) -> None:
    device = Device(3)
    windows = summarise(device.readings(400), readings)
    fleet = Fleet.of({"a": fit_device(windows, np.arange(len(windows)) + 1, TrainSpec())}, "v1")
    found = findings(fleet, summarise(spread(20.0, device.readings(20), device), readings))
    only = {row: finding for row, finding in found.items() if finding.sign is Sign.SPREAD}

    assert only
    assert told(only)[0] is Behaviour.UNKNOWN


def test_more_readings_than_usual_are_nothing_with_a_name() -> None:
    device = Device(4)
    fleet = trained(device)
    found = findings(fleet, summarise(device.readings(40), 4 * READINGS))
    counted = {row: finding for row, finding in found.items() if finding.sign is Sign.UNCLEAR}

    assert counted
    assert told(counted) == (Behaviour.UNKNOWN, None)


def test_a_window_shows_the_same_in_any_company() -> None:
    device = Device(5)
    fleet = trained(device)
    blocks = [device.faulty(fault, 4) for fault in ("spike", "level_shift", "stuck", "dropout")]
    together = findings(fleet, concat(blocks))
    alone = {
        4 * place + row: finding
        for place, block in enumerate(blocks)
        for row, finding in findings(fleet, block).items()
    }

    assert together == alone


def test_only_what_is_asked_for_is_looked_at() -> None:
    device = Device(6)
    fleet = trained(device)
    windows = device.faulty("level_shift", 6)
    measured = fleet.measure(np.array([0, 0, -1, 0, 0, 0]), windows)
    wanted = np.array([True, False, True, True, False, False])

    assert sorted(fleet.find(measured, wanted)) == [0, 3]


def test_a_feature_explains_what_the_distance_loses_without_it() -> None:
    device = Device(7)
    group = trained(device).groups[0]
    z = np.random.default_rng(0).standard_normal((5, group.center.shape[1]))
    model = np.zeros(5, np.intp)
    contribution = group.reconstruct(model, z) ** 2
    projection = group.stack[: z.shape[1]]
    for feature in range(z.shape[1]):
        direction = projection[:, feature]
        whole = z @ projection.T
        best = whole - np.outer(whole @ direction, direction) / (direction @ direction)
        lost = (whole**2).sum(axis=1) - (best**2).sum(axis=1)

        assert contribution[:, feature] == pytest.approx(lost, rel=1e-9, abs=1e-9)


# --- what windows come to ----------------------------------------------------------------------


def window(sign: Sign, metric: str = "x", **about: object) -> Finding:
    known: dict[str, object] = {"level": 5.0, "sides": None, "courses": {}} | about
    return Finding(metric, sign, **known)  # type: ignore[arg-type]


def judged(*found: Finding) -> tuple[Behaviour, str | None]:
    return told(dict(enumerate(found)))


def moved(values: Floats) -> tuple[Behaviour, str | None]:
    return judged(*(window(Sign.MOVED, level=value, courses={"x": value}) for value in values.tolist()))


def test_of_two_halves_the_latest_counts() -> None:
    stuck, gone = window(Sign.STUCK), window(Sign.DROPOUT, "y")

    assert judged(stuck, gone) == (Behaviour.DROPOUT, "y")
    assert judged(gone, stuck) == (Behaviour.STUCK, "x")


def test_what_less_than_half_of_the_windows_show_has_no_name() -> None:
    signs = window(Sign.STUCK), window(Sign.DROPOUT), window(Sign.MOVED)

    assert judged(*signs) == (Behaviour.UNKNOWN, None)


def test_the_metric_is_the_one_that_shows_it_in_most_windows() -> None:
    assert judged(*(window(Sign.STUCK, name) for name in "xyyx"), window(Sign.DROPOUT, "z"))[1] == "x"
    assert judged(*(window(Sign.STUCK, name) for name in "xyxyy"))[1] == "y"


@given(place=st.integers(0, 20), more=st.integers(0, 20), first=st.floats(4, 50), then=st.floats(4, 50))
def test_a_step_is_no_drift_wherever_it_is(place: int, more: int, first: float, then: float) -> None:
    values = np.r_[np.full(place, first), np.full(more + COURSE, then)]

    assert moved(values)[0] is not Behaviour.DRIFT


@given(windows=st.integers(2, 60), at=st.floats(6, 100), noise=st.integers(0, 2**32 - 1))
def test_what_moved_and_stays_is_a_level(windows: int, at: float, noise: int) -> None:
    values = at + 0.5 * np.random.default_rng(noise).standard_normal(windows)

    assert moved(values)[0] is Behaviour.LEVEL


@given(
    windows=st.integers(6, 60), end=st.floats(12, 500), sign=st.sampled_from([-1, 1]), noise=st.integers(0, 2**32 - 1)
)
def test_a_ramp_is_a_drift_up_or_down(windows: int, end: float, sign: int, noise: int) -> None:
    values = np.linspace(3, end, windows) + 0.5 * np.random.default_rng(noise).standard_normal(windows)

    assert moved(sign * values)[0] is Behaviour.DRIFT


def test_what_is_now_here_now_there_is_no_level() -> None:
    assert moved(np.array([6.0, -7.0, 5.0, 6.0, -8.0]))[0] is Behaviour.CORRELATION


def test_what_is_not_far_out_by_itself_is_a_broken_correlation() -> None:
    found = (window(Sign.MOVED, level=1.0, courses={"x": 9.0 + number % 2}) for number in range(6))

    assert judged(*found)[0] is Behaviour.CORRELATION


VALUES = st.lists(st.tuples(st.integers(1, 10_000), st.floats(-1e3, 1e3)), min_size=2, max_size=30)


@given(values=VALUES)
def test_a_course_has_the_moments_of_all_its_windows(values: list[tuple[int, float]]) -> None:
    course = Course()
    times = np.cumsum([step for step, _ in values])
    aparts = np.array([apart for _, apart in values])
    assume(np.ptp(aparts) > 1e-3)
    for at, apart in zip(times.tolist(), aparts.tolist(), strict=True):
        course.add(at, apart)
    expected = np.cov(times, aparts, ddof=0) * len(values)

    assert (course.windows, course.first, course.last) == (len(values), times[0], times[-1])
    assert [course.time, course.apart] == pytest.approx([times.mean(), aparts.mean()])
    assert [course.times, course.aparts] == pytest.approx([expected[0, 0], expected[1, 1]])
    assert course.both == pytest.approx(expected[0, 1], abs=1e-9 * float(np.sqrt(expected[0, 0] * expected[1, 1])))


def test_evidence_stays_as_small_however_long_an_alert_is() -> None:
    sizes = []
    for windows in (100, 10_000):
        evidence: dict[str, Evidence] = {}
        for number in range(windows):
            tell(evidence, window(Sign.MOVED, level=5.0, courses={"x": 5.0 + number % 3}), number)
        sizes.append(len(msgspec.json.encode(evidence)))

    assert sizes[1] < 1.5 * sizes[0] < 600
