"""Windows of one device in, its calibrated model out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scorers import calibration
from scorers.calibration import Limit
from scorers.errors import ModelError, hold
from scorers.features import features, transform
from scorers.floors import floors_of
from scorers.isolate import isolate
from scorers.model import DEEPEST, DeviceModel, Kernel, Space
from scorers.statistics import Floats, Ints, Statistics
from scorers.whitening import Directions, space_of

PARTIAL = 0.5
"""A window with less than this share of the usual readings is partial ..."""
HABIT = 0.1
"""... unless this share of the windows is: then it is how the device reports."""
FAMILIAR = 30
"""A metric is modelled if half as many windows have it as are needed for a model, or as these, if there are."""
WIDENINGS = 5
"""Times that a kernel may be made wider because the threshold lies where it has no slope left."""
WIDE = DEEPEST / 2
"""Where the threshold is to lie then, as ``gamma * reach``."""
TOLERANCE = 1e-4
"""Of libsvm, relative to the sum of its coefficients."""
NEIGHBOURS = 5
"""So many of the nearest windows are asked."""


class Detector(StrEnum):
    """What tells how far a window lies from the healthy ones, all in the same whitened space."""

    ONE_CLASS_SVM = "one_class_svm"
    """Schölkopf et al. 2001."""
    NEAREST = "nearest_neighbours"
    """The mean squared distance of the five nearest (Angiulli & Pizzuti 2002)."""
    MAHALANOBIS = "mahalanobis"
    """The squared distance from the mean (Hotelling's T²)."""
    RESIDUAL = "pca_residual"
    """That in those directions alone in which features do not move together: the minor components (Hawkins 1974)."""
    FOREST = "isolation_forest"
    """How few random cuts part it from them (Liu, Ting & Zhou 2008)."""
    COMBINED = "combined"
    """The geometric mean of what the one-class SVM and the nearest neighbours say (Aggarwal & Sathe 2015)."""


class Sampling(StrEnum):
    """Which windows a model is trained on where there are more than it may have."""

    RECENT = "recent"
    """The latest: the sample slides along with time."""
    RESERVOIR = "reservoir"
    """Any, each as likely as the others (Vitter 1985): what was usual once stays usual."""


SEED = 17
"""Of what is drawn: the same windows give the same model."""


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """How a device's model is trained; the defaults hold from 60 windows up.

    Raises:
        ConfigError: a value is out of range.
    """

    detector: Detector = Detector.ONE_CLASS_SVM
    nu: float = 0.05
    """Share of training windows the one-class SVM may leave outside, in (0, 1]."""
    gamma: float = 0.1
    """Kernel width, divided by the number of features; positive. A device whose threshold would lie where such a
    kernel has no slope left gets a lower one, that is a wider kernel."""
    levels: bool = False
    """Whether means alone are compared, and not what lies around them."""
    outliers: float = 0.05
    """Share of training windows, the farthest, that scales and correlations are not taken from, in [0, 0.5)."""
    false_alarm_rate: float = 0.002
    """False alarms per healthy window, in (0, 0.5)."""
    alerts: float | None = None
    """False alerts per healthy window, in (0, 0.5), in place of false alarms: ``k`` odd windows of ``n`` are one."""
    k: int = 2
    n: int = 3
    min_windows: int = 30
    """Fewer windows: no model yet."""
    max_windows: int = 2000
    """No more are used; where windows overlap, first of those that hardly do."""
    sampling: Sampling = Sampling.RECENT
    """Which ones."""
    folds: int = 3
    """Blocks in time for calibration, at least 2."""
    gap: int = 1
    """Windows left out on both sides of a held-out block: as many as share readings, at least."""

    def __post_init__(self) -> None:
        hold("train", self, (
            ("nu", 0 < self.nu <= 1, "above 0 and at most 1"),
            ("gamma", 0 < self.gamma < np.inf, "positive"),
            ("outliers", 0 <= self.outliers < 0.5, "0 or more and below 0.5"),  # noqa: PLR2004  # said beside it
            ("false_alarm_rate", 0 < self.false_alarm_rate < 0.5, "above 0 and below 0.5"),  # noqa: PLR2004  # said beside it
            ("alerts", self.alerts is None or 0 < self.alerts < 0.5, "above 0 and below 0.5"),  # noqa: PLR2004  # said beside it
            ("k", 1 <= self.k <= self.n, "at least 1 and at most n"),
            ("folds", self.folds >= 2, "at least 2"),  # noqa: PLR2004  # said beside it
            ("gap", self.gap >= 0, "0 or more"),
            ("min_windows", self.min_windows >= least_windows(self.folds, self.gap), "at least 2 * folds + 4 * gap"),
            ("max_windows", self.max_windows >= self.min_windows, "at least min_windows"),
        ))  # fmt: skip


def least_windows(folds: int, gap: int) -> int:
    """So few windows leave something to train on beside each block that is held out, and its gaps."""
    return 2 * folds + 4 * gap


def fit_device(statistics: Statistics, window_end: Ints, spec: TrainSpec) -> DeviceModel:
    """A calibrated model of one device.

    Args:
        statistics: its healthy windows, in any order.
        window_end: shape (n,), epoch ms.
        spec: how to train.

    Raises:
        ModelError: too few windows, or what comes out is degenerate.
    """
    chosen, shaped, softening, floors = prepare(statistics, window_end, spec)
    stride = apart(len(window_end), spec)

    def trial(spec: TrainSpec) -> Trial:
        far, plain = _held_out(shaped, softening, floors, spec)
        return Trial(far, plain, held_limit(far, spec, stride))

    space = fit_space(shaped, softening, floors, spec)
    return settle(Learned(chosen.metrics, space, space.whiten(shaped), int(window_end.max())), spec, trial)


class Learned(NamedTuple):
    """What a model is made of before it has a limit."""

    metrics: tuple[str, ...]
    space: Space
    whitened: Floats
    """Shape (n, p): the windows to compare with."""
    until: int
    """End of the latest, epoch ms."""


class Trial(NamedTuple):
    """What models say of windows that they have not seen."""

    far: Floats
    """Kernel distances."""
    plain: Floats
    """Whitened distances."""
    limit: Limit


def settle(learned: Learned, spec: TrainSpec, trial: Callable[[TrainSpec], Trial]) -> DeviceModel:
    """The model, its limit calibrated by ``trial`` with a kernel wide enough for it.

    Raises:
        ModelError: what comes out is degenerate.
    """
    space, whitened = learned.space, learned.whitened
    for _ in range(WIDENINGS):
        far, plain, found = trial(spec)
        reach = max(found.distance, least(space))
        depth = spec.gamma / whitened.shape[1] * reach
        if not depth >= DEEPEST:  # or is no number, which is refused below
            break
        spec = replace(spec, gamma=spec.gamma * WIDE / depth)
    else:
        raise ModelError("The model's threshold lies where its kernel saturates, however wide; lower gamma.")
    kernel = fit_kernel(whitened, spec)
    refuse_degenerate(kernel, whitened, spec)
    return DeviceModel(
        metrics=learned.metrics,
        space=space,
        kernel=kernel,
        reach=reach,
        unit=max(float(np.median(plain)), 1.0),
        windows=len(whitened),
        until=learned.until,
        false_alarm_rate=float((far > reach).mean()),
        confidence=float(np.sqrt(max(found.ample, least(space)) / reach)),
    ).checked()


class Prepared(NamedTuple):
    """The ``n`` windows that a model is trained on, ready for it."""

    chosen: Statistics
    """Oldest first, of ``m`` metrics in order of name."""
    shaped: Floats
    """Their transformed features, shape (n, 5 m)."""
    softening: Floats
    """Shape (m,); see :func:`scorers.features.transform`."""
    floors: Floats
    """Under the scale of each feature, shape (5 m,)."""


def prepare(statistics: Statistics, window_end: Ints, spec: TrainSpec) -> Prepared:
    """Choose the windows to train on, without partial ones, and the metrics that are known.

    Raises:
        ModelError: there are too few.
    """
    chosen = _modelled(complete(statistics.take(sampled(window_end, spec))), spec)
    actual = features(chosen)
    softening, floors = floors_of(actual)
    return Prepared(chosen, transform(actual, softening), softening, floors)


def least(space: Space) -> float:
    """The lowest limit there is: the squared distance that healthy windows have in the mean, 1 a direction."""
    return float(space.projection.any(axis=1).sum())


def sampled(window_end: Ints, spec: TrainSpec) -> NDArray[np.intp]:
    """The rows of the windows that a model is trained on, oldest first."""
    latest = np.argsort(window_end, kind="stable")[:: -apart(len(window_end), spec)]
    if spec.sampling is Sampling.RESERVOIR and len(latest) > spec.max_windows:
        drawn = np.random.default_rng(SEED).choice(len(latest), spec.max_windows, replace=False)
        return latest[np.sort(drawn)][::-1]
    return latest[: spec.max_windows][::-1]


def apart(windows: int, spec: TrainSpec) -> int:
    """Of so many windows a model is trained on every how many."""
    return max(1, min(spec.gap, windows // spec.max_windows))


def fit_space(shaped: Floats, softening: Floats, floors: Floats, spec: TrainSpec) -> Space:
    """As :func:`scorers.whitening.space_of`."""
    return space_of(shaped, softening, floors, spec.outliers, directions(spec))


def directions(spec: TrainSpec) -> Directions:
    """In which windows are compared; trees cut across coordinates, and these are turned for them."""
    detector = spec.detector
    return Directions(spec.levels, minor=detector is Detector.RESIDUAL, turned=detector is Detector.FOREST)


def fit_kernel(whitened: Floats, spec: TrainSpec) -> Kernel:
    """What windows are compared with, from rows (n, p)."""
    rows, columns = whitened.shape
    gamma = spec.gamma / columns
    if spec.detector is Detector.ONE_CLASS_SVM:
        return _support(whitened, spec)
    if spec.detector is Detector.NEAREST:
        return Kernel(whitened, np.ones(rows), 0.0, gamma, min(NEIGHBOURS, rows))
    if spec.detector is Detector.FOREST:
        return isolate(whitened, gamma, SEED)
    if spec.detector is Detector.COMBINED:
        svm = _support(whitened, spec)
        vectors, coefs = np.concatenate([svm.vectors, whitened]), np.concatenate([svm.coefs, np.ones(rows)])
        return Kernel(vectors, coefs, svm.offset, gamma, min(NEIGHBOURS, rows), support=len(svm.coefs))
    return Kernel(np.zeros((1, columns)), np.ones(1), 0.0, gamma)


def _support(whitened: Floats, spec: TrainSpec) -> Kernel:
    """A one-class SVM on rows (n, p).

    Its gradients are of the size of nu n, so libsvm's default tolerance of 1e-3 stops before the first
    step when nu n is small, and the model then flags everything; the tolerance follows nu n.
    """
    from sklearn.svm import _libsvm as libsvm  # noqa: PLC0415 - a second and 95 MB, which only those who train are to pay

    rows, columns = whitened.shape
    gamma, tolerance = spec.gamma / columns, TOLERANCE * min(10.0, spec.nu * rows)
    libsvm.set_verbosity_wrap(0)  # or it tells of each fit on stdout
    # what OneClassSVM.fit does once it has looked at its arguments, which takes longer than the fit (ADR 45)
    _, vectors, _, coefs, intercept, *_ = libsvm.fit(
        np.ascontiguousarray(whitened),
        np.ones(rows),
        svm_type=2,
        kernel="rbf",
        gamma=gamma,
        nu=spec.nu,
        tol=tolerance,
        C=0.0,
    )
    return Kernel(vectors, coefs[0], -float(intercept[0]), gamma)


def refuse_degenerate(kernel: Kernel, whitened: Floats, spec: TrainSpec) -> None:
    """Hold a one-class SVM to the nu property (Schölkopf et al. 2001): no more than a share nu of its rows is outside.

    Raises:
        ModelError: more are; the solver stopped too early.
    """
    if spec.detector not in {Detector.ONE_CLASS_SVM, Detector.COMBINED}:
        return
    svm = kernel.apart()[0] if kernel.support else kernel
    rounding = TOLERANCE * svm.weight
    outside = float((svm.decision(whitened) < -rounding).mean())
    if outside > spec.nu + 2 / len(whitened):
        raise ModelError(f"The model flags {outside:.0%} of its own training windows; raise nu or add windows.")


def complete(statistics: Statistics) -> Statistics:
    """Without the partial windows that a start, a stop or a gap leaves behind."""
    total = statistics.count.sum(axis=1)
    partial = total < PARTIAL * np.median(total) if len(total) else np.zeros(0, bool)
    return statistics.take(~partial) if partial.sum() <= HABIT * len(total) else statistics


def _modelled(statistics: Statistics, spec: TrainSpec) -> Statistics:
    """Its known metrics in order of name, if there are windows enough."""
    needed = max(spec.min_windows, min(FAMILIAR, len(statistics)))
    if len(statistics) < spec.min_windows:
        raise ModelError(f"{len(statistics)} windows are too few for a model; collect {spec.min_windows}.")
    present = (statistics.count > 0).sum(axis=0)
    metrics = sorted(name for name, seen in zip(statistics.metrics, present, strict=True) if 2 * seen >= needed)
    if not metrics:
        raise ModelError(f"No metric has readings in {needed // 2} windows; collect more of them.")
    return statistics.align(metrics)


def _held_out(shaped: Floats, softening: Floats, floors: Floats, spec: TrainSpec) -> tuple[Floats, Floats]:
    """Kernel and whitened distances of every window, each from a model that has not seen it."""
    far, plain = [], []
    for train, test in folds(len(shaped), spec):
        space = fit_space(shaped[train], softening, floors, spec)
        kernel = fit_kernel(space.whiten(shaped[train]), spec)
        whitened = space.whiten(shaped[test])
        far.append(kernel.distance(whitened))
        plain.append(np.sqrt((whitened**2).sum(axis=1)))
    return np.concatenate(far), np.concatenate(plain)


def folds(rows: int, spec: TrainSpec) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Row numbers to train on and to hold out, fold by fold."""
    if spec.alerts is None:
        return calibration.blocks(rows, spec.folds, spec.gap)
    return calibration.ahead(rows, spec.gap)


def limit(far: Floats, spec: TrainSpec, stride: int) -> float:
    """Where healthy windows seldom lie; they are ``stride`` windows apart."""
    return held_limit(far, spec, stride).distance


def held_limit(far: Floats, spec: TrainSpec, stride: int) -> Limit:
    """The same, with how sure it is."""
    if spec.alerts is None:
        return calibration.limit(far, spec.false_alarm_rate)
    # what shares its readings is odd together: of windows apart each stands for an alert
    k, n = (spec.k, spec.n) if stride == 1 else (1, 1)
    return calibration.alert_limit(far, spec.alerts * stride * len(far), k, n)
