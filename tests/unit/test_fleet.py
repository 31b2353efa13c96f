import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import OneClassSVM

from scorers.features import features, names, transform
from scorers.fit import NEIGHBOURS, SEED, Detector, TrainSpec, fit_device
from scorers.fleet import Fleet
from scorers.group import _mean_of_largest
from scorers.model import DeviceModel, score
from scorers.statistics import Floats, Statistics, concat
from tests.simulator import Device, summarise

SPEC = TrainSpec()


def trained(seed: int, *, metrics: int = 4, windows: int = 80) -> DeviceModel:
    return fit_device(Device(seed, metrics).windows(windows), np.arange(windows), SPEC)


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    """Thirty devices of three kinds: 4, 5 and 6 metrics."""
    return Fleet.of(
        {f"device-{seed}": trained(seed, metrics=4 + seed % 3, windows=60 + seed) for seed in range(30)}, "v7"
    )


def oracle(model: DeviceModel, train: Statistics, test: Statistics) -> Floats:
    """Scikit-learn's own decision values on the same whitened features."""
    first, second = (
        model.space.whiten(transform(features(part.align(model.metrics)), model.space.softening))
        for part in (train, test)
    )
    machine = OneClassSVM(nu=SPEC.nu, gamma=SPEC.gamma / first.shape[1], tol=1e-4 * min(10, SPEC.nu * len(train)))
    decision: Floats = machine.fit(first).decision_function(second)
    return decision


def test_the_fleet_equals_scikit_learn_to_1e_9() -> None:
    trains = [Device(seed).windows(60 + 10 * seed) for seed in range(12)]
    models = [fit_device(train, np.arange(len(train)), SPEC) for train in trains]
    tests = [concat([Device(100 + seed).windows(20), Device(seed).faulty("drift", 20)]) for seed in range(12)]
    expected = np.concatenate([oracle(*case) for case in zip(models, trains, tests, strict=True)])

    fleet = Fleet.of({str(number): model for number, model in enumerate(models)}, "v1")
    owner = np.repeat([str(number) for number in range(12)], 40)
    shuffled = np.random.default_rng(0).permutation(len(owner))
    verdicts = fleet.score(fleet.index(owner[shuffled].tolist()), concat(tests).take(shuffled))
    threshold = np.repeat([model.threshold for model in models], 40)

    np.testing.assert_allclose((verdicts.decision + threshold[shuffled]), expected[shuffled], rtol=0, atol=1e-9)


def distances(model: DeviceModel, windows: Statistics) -> tuple[Floats, Floats]:
    """As the fleet sees them, and the whitened windows."""
    fleet = Fleet.of({"a": model}, "v1")
    whitened = model.space.whiten(transform(features(windows.align(model.metrics)), model.space.softening))
    return fleet.measure(np.zeros(len(windows), np.int64), windows).distance, whitened


@pytest.mark.parametrize("metrics", [2, 6])
def test_nearest_neighbours_are_those_of_scikit_learn(metrics: int) -> None:
    windows, device = 800, Device(3, metrics)
    train, fresh = device.windows(windows), concat([device.windows(50), device.faulty("drift", 20)])
    model = fit_device(train, np.arange(windows), TrainSpec(detector=Detector.NEAREST))
    found, whitened = distances(model, fresh)
    crowd = model.space.whiten(transform(features(train.align(model.metrics)), model.space.softening))
    away, _ = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(crowd).kneighbors(whitened)

    np.testing.assert_allclose(found, (away**2).mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(model.kernel.distance(whitened), found, rtol=1e-9)


def test_detectors_combined_are_the_geometric_mean_of_both() -> None:
    windows = 800
    train, fresh = Device(3).windows(windows), concat([Device(3).windows(50), Device(3).faulty("drift", 20)])
    of = {
        detector: fit_device(train, np.arange(windows), TrainSpec(detector=detector))
        for detector in (Detector.ONE_CLASS_SVM, Detector.NEAREST, Detector.COMBINED)
    }
    found, whitened = distances(of[Detector.COMBINED], fresh)
    svm, near = (distances(of[detector], fresh)[0] for detector in (Detector.ONE_CLASS_SVM, Detector.NEAREST))

    np.testing.assert_allclose(found, np.sqrt(svm * near), rtol=1e-9)
    np.testing.assert_allclose(of[Detector.COMBINED].kernel.distance(whitened), found, rtol=1e-9)


def test_an_isolation_forest_is_that_of_scikit_learn_and_the_distance_from_what_it_knows() -> None:
    train, fresh = Device(3).windows(400), concat([Device(3).windows(50), Device(3).faulty("drift", 20)])
    model = fit_device(train, np.arange(400), TrainSpec(detector=Detector.FOREST))
    found, whitened = distances(model, fresh)
    crowd = model.space.whiten(transform(features(train.align(model.metrics)), model.space.softening))
    paths = -np.log2(-IsolationForest(random_state=SEED).fit(crowd).score_samples(whitened))
    beyond = whitened - np.clip(whitened, crowd.min(axis=0), crowd.max(axis=0))
    expected = (np.ptp(crowd, axis=0) > 0).sum() / paths**2 + (beyond**2).sum(axis=1)

    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(model.kernel.distance(whitened), expected, rtol=1e-9)


def test_coordinates_of_an_isolation_forest_are_next_to_their_features() -> None:
    other, forest = (
        fit_device(Device(3).windows(200), np.arange(200), TrainSpec(detector=detector, outliers=0)).space.projection
        for detector in (Detector.MAHALANOBIS, Detector.FOREST)
    )

    np.testing.assert_allclose(forest, forest.T, atol=1e-9)
    np.testing.assert_allclose(forest.T @ forest, other.T @ other, rtol=1e-9, atol=1e-9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.integers(1, 12))
def test_the_mean_of_the_largest(terms: list[float], count: int) -> None:
    largest = sorted(terms)[-count:]

    assert _mean_of_largest(np.array(terms), count) == pytest.approx(sum(largest) / len(largest), abs=1e-6)


def test_mahalanobis_is_the_squared_distance_from_the_mean() -> None:
    model = fit_device(Device(3).windows(80), np.arange(80), TrainSpec(detector=Detector.MAHALANOBIS))
    found, whitened = distances(model, Device(3).windows(50))

    np.testing.assert_allclose(found, (whitened**2).sum(axis=1), rtol=1e-9)


def test_the_residual_is_blind_to_the_leading_directions_alone() -> None:
    whole, residual = (
        fit_device(Device(3).windows(200), np.arange(200), TrainSpec(detector=detector, outliers=0))
        for detector in (Detector.MAHALANOBIS, Detector.RESIDUAL)
    )
    kept = np.asarray(residual.space.projection.any(axis=1))
    leading = whole.space.projection[~kept]

    assert 0 < kept.sum() < len(kept)
    np.testing.assert_array_equal(residual.space.projection[kept], whole.space.projection[kept])
    # of whitening directions the short ones are those of the largest variance
    assert np.linalg.norm(leading, axis=1).max() <= np.linalg.norm(whole.space.projection[kept], axis=1).min()


@pytest.mark.parametrize("run", [1, 7, 300])
def test_windows_score_the_same_alone_and_together(fleet: Fleet, run: int) -> None:
    windows = Device(3, metrics=6).windows(300)
    model = np.arange(len(windows)) // run % len(fleet)

    together = fleet.score(model, windows)
    alone = [fleet.score(model[[row]], windows.take(np.array([row]))) for row in range(len(windows))]

    for name in ("decision", "score", "severity", "share", "typical", "actual"):
        expected = np.concatenate([getattr(one, name) for one in alone])
        np.testing.assert_array_equal(getattr(together, name), expected)


def test_index_knows_who_has_a_model(fleet: Fleet) -> None:
    places = fleet.index(["device-29", "stranger", "device-0"])

    assert places[1] == -1
    assert [fleet.devices[place] for place in places[[0, 2]]] == ["device-29", "device-0"]


def test_a_device_without_a_model_is_learning(fleet: Fleet) -> None:
    verdicts = fleet.score(np.array([-1, 0, -1]), Device(0).windows(3))

    np.testing.assert_array_equal(verdicts.scored, [False, True, False])
    assert np.isnan(verdicts.decision[[0, 2]]).all()
    assert not verdicts.anomaly[[0, 2]].any()
    assert (verdicts.feature[[0, 2]] == -1).all()


def test_an_empty_fleet_scores_nothing() -> None:
    fleet = Fleet.empty()

    verdicts = fleet.score(fleet.index(["a", "b"]), Device(0).windows(2))

    assert len(fleet) == 0
    assert not verdicts.scored.any()


def test_no_windows_give_no_verdicts(fleet: Fleet) -> None:
    assert len(fleet.score(fleet.index([]), Device(0).windows(0))) == 0


def test_a_metric_the_model_does_not_know_is_ignored(fleet: Fleet) -> None:
    windows = Device(0).windows(5)
    wider = windows.align([*windows.metrics, "humidity"])

    np.testing.assert_array_equal(
        fleet.score(np.zeros(5, np.int64), wider).decision, fleet.score(np.zeros(5, np.int64), windows).decision
    )


def test_a_metric_that_never_came_counts_as_absent(fleet: Fleet) -> None:
    windows = Device(0).windows(5)

    verdicts = fleet.score(np.zeros(5, np.int64), windows.align(windows.metrics[1:]))

    assert verdicts.anomaly.all()
    assert {verdicts.names[place] for place in verdicts.feature[:, 0]} == {"metric0.count"}
    np.testing.assert_array_equal(verdicts.actual[:, 0], 0)
    np.testing.assert_allclose(verdicts.typical[:, 0], 10)


@pytest.mark.parametrize(
    ("fault", "kind"), [("spike", "max"), ("level_shift", "mean"), ("stuck", "std"), ("dropout", "count")]
)
def test_the_first_contributor_tells_the_fault(fault: str, kind: str) -> None:
    device = Device(5)
    fleet = Fleet.of({"d": fit_device(device.windows(200), np.arange(200), SPEC)}, "v1")

    verdicts = fleet.score(np.zeros(20, np.int64), device.faulty(fault, 20))
    first = [verdicts.names[place].split(".")[1] for place in verdicts.feature[:, 0]]

    assert first.count(kind) >= 15


def test_contributors_carry_actual_and_typical_values_in_the_metrics_unit() -> None:
    device = Device(5)
    healthy, faulty = device.windows(200), device.faulty("level_shift", 1)
    fleet = Fleet.of({"d": fit_device(healthy, np.arange(200), SPEC)}, "v1")

    verdicts = fleet.score(np.array([0]), faulty, top=4)

    for feature, actual, typical in zip(verdicts.feature[0], verdicts.actual[0], verdicts.typical[0], strict=True):
        column = names(healthy.metrics).index(verdicts.names[feature])
        usual = features(healthy)[:, column]
        assert actual == features(faulty)[0, column]
        assert usual.min() <= typical <= usual.max()


def test_shares_fall_and_all_of_them_sum_to_one(fleet: Fleet) -> None:
    share = fleet.score(np.zeros(6, np.int64), Device(0).windows(6), top=20).share

    assert (np.diff(share, axis=1) <= 0).all()
    np.testing.assert_allclose(share.sum(axis=1), 1)


def test_more_contributors_than_features_leave_the_rest_blank(fleet: Fleet) -> None:
    verdicts = fleet.score(np.zeros(2, np.int64), Device(0).windows(2), top=25)

    assert (verdicts.feature[:, 20:] == -1).all()
    assert np.isnan(verdicts.share[:, 20:]).all()


@pytest.mark.parametrize("size", [1e3, 1e6, 1e12, 1e300])
def test_a_far_out_window_is_always_flagged(fleet: Fleet, size: float) -> None:
    away = summarise(Device(0).readings(4) * size)

    verdicts = fleet.score(np.zeros(4, np.int64), away)

    assert verdicts.anomaly.all()
    assert (verdicts.decision < 0).all()
    assert (verdicts.score > 99).all()
    assert np.isfinite(verdicts.severity).all()


def test_severity_goes_on_where_the_kernel_saturates(fleet: Fleet) -> None:
    readings = Device(0).readings(1)
    away = concat([summarise(readings + step) for step in (1e3, 1e4, 1e5)])

    verdicts = fleet.score(np.zeros(3, np.int64), away)

    assert (np.diff(verdicts.severity) > 0).all()
    assert (np.diff(verdicts.score) >= 0).all()


def test_the_score_is_0_at_no_distance_and_50_at_the_threshold() -> None:
    np.testing.assert_allclose(score(np.array([0.0, 70.0, 140.0]), np.full(3, 70.0)), [0, 50, 100 * 8 / 9])
