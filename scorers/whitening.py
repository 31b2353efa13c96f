"""Where windows are compared: their features standardised, and whitened with shrunk correlations."""

from functools import cache
from typing import NamedTuple

import numpy as np

from scorers.features import KINDS, MEAN
from scorers.model import Space, standardise
from scorers.statistics import Flags, Floats

MINIMAL = 0.02
"""Least shrinkage, and least variance of a direction before it is whitened."""
STEPS = 2
"""In so many, the windows that scales and correlations are not taken from are told apart."""
COMMON = 1.02
"""Variance of a direction of standardised features above which they move together in it (Kaiser 1960, with slack)."""


class Directions(NamedTuple):
    """In which directions windows are compared; in all of them by default."""

    levels: bool = False
    """Of means alone, and not of what lies around them."""
    minor: bool = False
    """In those alone in which features do not move together."""
    turned: bool = False
    """Turned to where each is next to its feature (Kessy et al. 2018, ZCA-cor)."""


def space_of(shaped: Floats, softening: Floats, floors: Floats, outliers: float, directions: Directions) -> Space:
    """Standardisation and whitening from the windows that do not stick out among those given.

    What sticks out, a fault that nobody noticed or a restart, would widen the scales and bend the correlations by which
    it is to be found: the farthest do not count (concentration steps; Rousseeuw & Van Driessen 1999).

    A floor under each scale acts as independent measurement noise: it widens the scale and fills the
    diagonal of the correlation matrix, so that a feature which never moved neither explodes on rounding
    nor vanishes. Correlations are shrunk (see :func:`shrunk`), so that no direction of the whitened space is
    narrower than the windows can prove.

    Args:
        shaped: transformed features, shape (n, p), NaN where missing.
        softening: shape (m,), that ``shaped`` was transformed with.
        floors: shape (p,).
        outliers: share of the windows that stick out, in [0, 0.5).
        directions: in which they are compared.
    """
    center, scale, correlation = _standard(shaped, floors)
    for _ in range(STEPS if outliers else 0):
        far = _far(standardise(shaped, center, scale), correlation, directions)
        center, scale, correlation = _standard(shaped[nearest(far, 1 - outliers)], floors)
    return Space(softening, center, scale, whitening(correlation, directions))


def _standard(shaped: Floats, floors: Floats) -> tuple[Floats, Floats, Floats]:
    """Centres, scales and shrunk correlations of transformed features."""
    known = np.isfinite(shaped)
    heard, whole = known.sum(axis=0), known.all()
    filled = shaped if whole else np.where(known, shaped, 0.0)
    center = filled.sum(axis=0) / np.maximum(heard, 1)
    off = filled - center if whole else np.where(known, filled - center, 0.0)
    scale = np.sqrt((off**2).sum(axis=0) / np.maximum(heard - 1, 1) + floors**2)
    return center, scale, shrunk(off / scale)


def _far(z: Floats, correlation: Floats, directions: Directions) -> Floats:
    """Squared whitened distances of standardised rows (n, p), shape (n,)."""
    if not (directions.levels or directions.minor):
        try:
            np.linalg.cholesky(correlation - MINIMAL * _diagonal(len(correlation)))
        except np.linalg.LinAlgError:
            pass
        else:  # no direction is too narrow, so that there is no need to know each
            return np.asarray(((z @ np.linalg.inv(correlation)) * z).sum(axis=1))
    return np.asarray(((z @ whitening(correlation, directions).T) ** 2).sum(axis=1))


def nearest(far: Floats, share: float) -> Flags:
    """Whether each of the distances (n,) is at most their quantile ``share``."""
    rank = int((len(far) - 1) * share)
    return np.asarray(far <= np.partition(far, rank)[rank])


def whitening(correlation: Floats, directions: Directions) -> Floats:
    """The projection that whitens standardised features of that correlation, both (p, p)."""
    width = len(correlation)
    compared = np.arange(MEAN, width, len(KINDS)) if directions.levels else np.arange(width)
    values, vectors = np.linalg.eigh(correlation[np.ix_(compared, compared)])
    if directions.minor:
        vectors[:, values > COMMON] = 0.0
    projection = np.zeros((width, width))
    found = (vectors / np.sqrt(np.maximum(values, MINIMAL))).T
    projection[: len(compared), compared] = vectors @ found if directions.turned else found
    return projection


def shrunk(z: Floats) -> Floats:
    """The correlation matrix of standardised rows (n, p), each correlation shrunk towards 0.

    Schäfer & Strimmer (2005), eq. 10: intensity = sum of the correlations' variances over the sum of
    their squares, here for each pair of feature kinds by itself. Means that follow one load keep their
    strong correlations while the chance ones, of a mean with another metric's spread, vanish; with one
    intensity for all, 60 windows find a third fewer broken correlations.
    """
    n, p = z.shape
    product, squares = z.T @ z, z * z
    spread = (squares.T @ squares - product**2 / n) * n / (n - 1) ** 3
    correlation = product / (n - 1)
    diagonal = _diagonal(p)
    apart, metrics = 1 - diagonal, p // len(KINDS)
    intensity = _by_kinds(spread * apart) / np.maximum(_by_kinds(correlation**2 * apart), np.finfo(np.float64).tiny)
    kept = 1 - np.minimum(np.maximum(intensity, MINIMAL), 1.0)
    by_kinds = correlation.reshape(metrics, len(KINDS), metrics, len(KINDS)) * kept[None, :, None, :]
    return np.asarray(by_kinds.reshape(p, p) * apart + diagonal)


@cache
def _diagonal(width: int) -> Floats:
    """The identity matrix (width, width), not to be written to."""
    found = np.eye(width)
    found.flags.writeable = False
    return found


def _by_kinds(matrix: Floats) -> Floats:
    """Sums of a (p, p) matrix for each pair of feature kinds, shape (5, 5)."""
    metrics = len(matrix) // len(KINDS)
    return np.asarray(matrix.reshape(metrics, len(KINDS), metrics, len(KINDS)).sum(axis=(0, 2)))
