"""What every scorer must obey, whatever its method: a new one joins ``SCORERS`` and passes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scorers import naming, pack
from scorers.fit import Detector, TrainSpec
from scorers.fleet import Fleet
from scorers.lend import fit_type
from scorers.statistics import Ints, Statistics, concat
from scorers.train import fit_fleet
from scorers.verdicts import Verdicts
from tests.simulator import FAULTS, Device

DEVICES = 8
Maker = Callable[[dict[str, Statistics]], Fleet]


def scorer_by(detector: Detector) -> Maker:
    return lambda blocks: Fleet.of(fit_fleet(blocks, TrainSpec(detector=detector)).models, "v1")


SCORERS: dict[str, Maker] = {detector: scorer_by(detector) for detector in Detector}
COLUMNS = ("decision", "score", "severity", "share", "actual", "typical")


@pytest.fixture(scope="module")
def healthy() -> dict[str, Statistics]:
    return {f"d{seed}": Device(seed).windows(100) for seed in range(DEVICES)}


@pytest.fixture(scope="module", params=SCORERS)
def maker(request: pytest.FixtureRequest) -> Maker:
    return SCORERS[request.param]


@pytest.fixture(scope="module")
def scorer(maker: Maker, healthy: dict[str, Statistics]) -> Fleet:
    return maker(healthy)


@pytest.fixture(scope="module", params=Detector)
def lender(request: pytest.FixtureRequest, healthy: dict[str, Statistics]) -> Fleet:
    """Models of their own for ``d0`` and more, and one of type ``d``."""
    spec = TrainSpec(detector=request.param)
    of_type = fit_type({device: (block, np.arange(len(block))) for device, block in healthy.items()}, spec)
    return Fleet.of(fit_fleet(healthy, spec).models, "v1", {"d": of_type}, naming.DEFAULT)


@pytest.fixture(scope="module")
def windows() -> Statistics:
    """One healthy window and one of each fault, for each device in turn."""
    devices = [Device(seed) for seed in range(DEVICES)]
    return concat([part for device in devices for part in (device.windows(1), *(device.faulty(f, 1) for f in FAULTS))])


@pytest.fixture(scope="module")
def model(scorer: Fleet) -> Ints:
    return np.repeat(scorer.index([f"d{seed}" for seed in range(DEVICES)]), 1 + len(FAULTS))


def same(left: Verdicts, right: Verdicts, rows: slice | NDArray[np.intp] = slice(None)) -> None:
    for name in COLUMNS:
        np.testing.assert_allclose(getattr(left, name), getattr(right, name)[rows], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(left.anomaly, right.anomaly[rows])


def test_verdict_score_and_decision_agree(scorer: Fleet, model: Ints, windows: Statistics) -> None:
    verdicts = scorer.score(model, windows)

    assert verdicts.scored.all()
    np.testing.assert_array_equal(verdicts.anomaly, verdicts.decision < 0)
    np.testing.assert_array_equal(verdicts.anomaly, verdicts.score > 50)
    assert verdicts.anomaly.any()
    assert not verdicts.anomaly.all()


def test_scores_lie_between_0_and_100_and_severity_is_positive(scorer: Fleet, model: Ints, windows: Statistics) -> None:
    verdicts = scorer.score(model, windows)

    assert ((verdicts.score >= 0) & (verdicts.score <= 100)).all()
    assert (verdicts.severity >= 0).all()


def test_the_score_falls_where_the_decision_rises(scorer: Fleet, healthy: dict[str, Statistics]) -> None:
    many = concat([healthy["d0"], Device(0).faulty("drift", 100)])

    verdicts = scorer.score(np.zeros(200, np.int64), many)
    order = np.argsort(verdicts.decision)

    assert (np.diff(verdicts.score[order]) <= 1e-9).all()


def test_the_order_of_windows_does_not_matter(scorer: Fleet, model: Ints, windows: Statistics) -> None:
    shuffled = np.random.default_rng(0).permutation(len(windows))

    same(scorer.score(model[shuffled], windows.take(shuffled)), scorer.score(model, windows), shuffled)


def test_the_batching_of_windows_does_not_matter(scorer: Fleet, model: Ints, windows: Statistics) -> None:
    whole = scorer.score(model, windows)

    for rows in np.array_split(np.arange(len(windows)), 11):
        same(scorer.score(model[rows], windows.take(rows)), whole, rows)


def test_the_order_of_metrics_does_not_matter(scorer: Fleet, model: Ints, windows: Statistics) -> None:
    same(scorer.score(model, windows.align(windows.metrics[::-1])), scorer.score(model, windows))


def test_an_unknown_metric_does_not_matter(scorer: Fleet, model: Ints, windows: Statistics) -> None:
    same(scorer.score(model, windows.align(["new", *windows.metrics])), scorer.score(model, windows))


def test_nothing_passed_in_is_changed(scorer: Fleet, model: Ints, windows: Statistics) -> None:
    before = windows.take(np.arange(len(windows)))
    scorer.score(model, windows)

    for name in ("count", "mean", "std", "min", "max", "last"):
        np.testing.assert_array_equal(getattr(windows, name), getattr(before, name))


def test_training_twice_gives_the_same_scorer(
    maker: Maker, healthy: dict[str, Statistics], scorer: Fleet, model: Ints, windows: Statistics
) -> None:
    same(maker(healthy).score(model, windows), scorer.score(model, windows))


def test_a_device_does_not_depend_on_the_others(
    maker: Maker, healthy: dict[str, Statistics], scorer: Fleet, model: Ints, windows: Statistics
) -> None:
    alone = maker({"d3": healthy["d3"]})
    rows = np.flatnonzero(model == scorer.index(["d3"])[0])

    same(alone.score(np.zeros(len(rows), np.int64), windows.take(rows)), scorer.score(model, windows), rows)


def test_the_unit_of_a_metric_does_not_matter(
    maker: Maker, healthy: dict[str, Statistics], scorer: Fleet, model: Ints, windows: Statistics
) -> None:
    other = maker({device: rescaled(block) for device, block in healthy.items()})

    found, expected = other.score(model, rescaled(windows)), scorer.score(model, windows)

    np.testing.assert_allclose(found.decision, expected.decision, rtol=1e-6, atol=1e-9)


def rescaled(statistics: Statistics) -> Statistics:
    """The same windows in thousandths."""
    values = ("mean", "std", "min", "max", "last")
    scaled = {name: 1000 * getattr(statistics, name) for name in values}
    return Statistics(statistics.metrics, statistics.count, **scaled)


def test_a_device_without_a_model_is_learning(scorer: Fleet, windows: Statistics) -> None:
    verdicts = scorer.score(np.full(len(windows), -1), windows)

    assert not verdicts.scored.any()
    assert not verdicts.anomaly.any()
    assert all(np.isnan(getattr(verdicts, name)).all() for name in COLUMNS)


def test_missing_metrics_never_stop_a_verdict(scorer: Fleet, windows: Statistics) -> None:
    nothing = windows.align(["other"])

    verdicts = scorer.score(np.zeros(len(nothing), np.int64), nothing)

    assert verdicts.anomaly.all()
    assert np.isfinite(verdicts.severity).all()


def test_a_type_judges_any_of_its_devices_and_says_so(lender: Fleet, windows: Statistics) -> None:
    known, new = (lender.score(lender.assign([name]).repeat(len(windows)), windows) for name in ("d0", "d77"))

    assert known.scored.all()
    assert not known.lent.any()
    assert new.scored.all()
    assert new.lent.all()
    np.testing.assert_array_equal(new.anomaly, new.decision < 0)


def test_a_new_device_is_judged_the_same_in_any_batching(lender: Fleet, model: Ints, windows: Statistics) -> None:
    mixed = np.where(np.arange(len(windows)) % 3, model, lender.assign(["d77"])[0])
    whole = lender.score(mixed, windows)

    for rows in np.array_split(np.random.default_rng(1).permutation(len(windows)), 9):
        part = lender.score(mixed[rows], windows.take(rows))
        same(part, whole, rows)
        np.testing.assert_array_equal(part.lent, whole.lent[rows])
        np.testing.assert_array_equal(part.confidence, whole.confidence[rows])


def test_a_window_without_its_types_metrics_is_learning_beside_those_with_some(
    lender: Fleet, windows: Statistics
) -> None:
    silent = windows.align(["new", *windows.metrics])
    silent.count[::2, 1:] = 0

    verdicts = lender.score(lender.assign(["d77"]).repeat(len(silent)), silent)

    np.testing.assert_array_equal(verdicts.scored, silent.count.any(axis=1))
    assert not verdicts.scored[::2].any()


def test_an_unknown_metric_does_not_matter_to_a_type(lender: Fleet, windows: Statistics) -> None:
    new = lender.assign(["d77"]).repeat(len(windows))

    same(lender.score(new, windows.align(["new", *windows.metrics])), lender.score(new, windows))


def test_a_scorer_survives_its_file(scorer: Fleet, model: Ints, windows: Statistics, tmp_path: Path) -> None:
    pack.save(scorer, tmp_path / "current.fleet", 0)

    same(pack.load(tmp_path / "current.fleet").score(model, windows), scorer.score(model, windows))


def test_what_a_type_lends_survives_its_file(lender: Fleet, windows: Statistics, tmp_path: Path) -> None:
    pack.save(lender, tmp_path / "current.fleet", 0)
    back = pack.load(tmp_path / "current.fleet")

    new = back.assign(["d77"]).repeat(len(windows))
    same(back.score(new, windows), lender.score(lender.assign(["d77"]).repeat(len(windows)), windows))
