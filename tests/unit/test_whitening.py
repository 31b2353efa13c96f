import numpy as np
import pytest

from scorers.whitening import MINIMAL, Directions, nearest, shrunk, space_of


def test_a_strong_correlation_is_kept_when_windows_prove_it() -> None:
    random = np.random.default_rng(0)
    load = random.standard_normal((2000, 1))
    z = np.repeat(load, 10, axis=1) + 0.1 * random.standard_normal((2000, 10))

    few, many = (shrunk(z[:rows] / z[:rows].std(axis=0, ddof=1))[0, 5] for rows in (10, 2000))

    assert few < many
    assert many == pytest.approx(1 / 1.01 * (1 - MINIMAL), abs=0.01)


def test_independent_features_stay_independent() -> None:
    whole = shrunk(np.random.default_rng(0).standard_normal((60, 20)))

    assert np.abs(whole[~np.eye(20, dtype=bool)]).max() < 0.2
    np.testing.assert_array_equal(np.diag(whole), 1.0)


def test_the_windows_that_count_are_those_within_the_quantile() -> None:
    far = np.random.default_rng(0).exponential(size=333).round(2)  # with ties

    for share in (0.5, 0.95, 0.98):
        np.testing.assert_array_equal(nearest(far, share), far <= np.quantile(far, share))


@pytest.mark.parametrize("rows", [12, 40, 300])
def test_windows_that_stick_out_are_the_same_by_direction_and_without(rows: int) -> None:
    # few windows of many features: the correlations of one kind of feature alone may be narrower than any direction may
    random = np.random.default_rng(rows)
    shaped = random.standard_normal((rows, 5)) @ random.standard_normal((5, 20)) + 0.01 * random.standard_normal(
        (rows, 20)
    )
    shaped[3] += 50

    plain = space_of(shaped, np.ones(4), np.full(20, 0.01), 0.05, Directions())
    turned = space_of(shaped, np.ones(4), np.full(20, 0.01), 0.05, Directions(turned=True))

    np.testing.assert_array_equal(plain.center, turned.center)
    np.testing.assert_allclose(
        plain.projection.T @ plain.projection, turned.projection.T @ turned.projection, rtol=1e-9, atol=1e-9
    )
