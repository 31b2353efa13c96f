"""Which of several ways to train a device's model tells its faults apart best, judged on windows held out.

Every candidate's limit is set for the same false-alarm rate on the same held-out windows; the best is the one beyond
whose limit most faulty windows lie. Faulty are windows that somebody has labelled, where there are some, else the
held-out ones with a fault planted in each.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scorers import fit
from scorers.errors import ModelError
from scorers.features import features, transform
from scorers.fit import Detector, Prepared, TrainSpec
from scorers.model import DEEPEST, Space
from scorers.plant import plant
from scorers.statistics import Floats, Ints, Statistics

FEWEST = 5
"""So many labelled windows say more than planted faults do."""
MARGIN = 0.02
"""Another candidate than the first must find so much more: what is nearly as good is taken as it is."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to train; the rest is as the spec says."""

    detector: Detector
    nu: float = 0.05
    gamma: float = 0.1
    levels: bool = False
    """Whether the means alone are compared, and not what lies around them."""

    def spec(self, spec: TrainSpec) -> TrainSpec:
        """How to train it."""
        return replace(spec, detector=self.detector, nu=self.nu, gamma=self.gamma, levels=self.levels)


@dataclass(frozen=True, slots=True)
class Tried:
    """How one candidate did."""

    candidate: Candidate
    detection: float | None
    """Share of the faulty windows beyond its limit; None where it gives no sound model."""


def grid(spec: TrainSpec) -> tuple[Candidate, ...]:
    """Every candidate, that of the spec first."""
    first = Candidate(spec.detector, spec.nu, spec.gamma, spec.levels)
    svm = Detector.ONE_CLASS_SVM
    every = [Candidate(svm, nu, gamma) for nu in (0.05, 0.01) for gamma in (0.1, 0.03, 1.0)]
    every += [Candidate(svm, levels=True)]
    every += [Candidate(detector) for detector in Detector if detector is not svm]
    return tuple(dict.fromkeys([first, *every]))


def choose(
    statistics: Statistics,
    window_end: Ints,
    spec: TrainSpec,
    candidates: Sequence[Candidate],
    faulty: Statistics | None = None,
) -> tuple[TrainSpec, tuple[Tried, ...]]:
    """The spec of the best candidate, and how all of them did.

    Args:
        statistics: healthy windows, in any order.
        window_end: shape (n,), epoch ms.
        spec: what candidates have in common.
        candidates: at least one; the first is taken unless another is better by more than ``MARGIN``.
        faulty: windows that are known to be faulty.

    Raises:
        ModelError: too few windows, or no candidate gives a sound model.
    """
    prepared = fit.prepare(statistics, window_end, spec)
    known = faulty if faulty is not None and len(faulty) >= FEWEST else None
    stride = fit.apart(len(window_end), spec)
    tried = tuple(Tried(one, _detection(prepared, one.spec(spec), known, stride)) for one in candidates)
    sound = [one for one in tried if one.detection is not None]
    if not sound:
        raise ModelError("No candidate gives a sound model; record more windows, or lower gamma.")
    best = max(sound, key=lambda one: one.detection or 0.0)
    first = sound[0]
    chosen = best if (best.detection or 0.0) > (first.detection or 0.0) + MARGIN else first
    return chosen.candidate.spec(spec), tried


def _detection(prepared: Prepared, spec: TrainSpec, faulty: Statistics | None, stride: int) -> float | None:
    """Share of faulty windows beyond the limit that healthy ones held out give."""
    far, odd, floor = [], [], 0.0
    for train, test in fit.folds(len(prepared.shaped), spec):
        space = fit.fit_space(prepared.shaped[train], prepared.softening, prepared.floors, spec)
        kernel = fit.fit_kernel(space.whiten(prepared.shaped[train]), spec)
        far.append(kernel.distance(space.whiten(prepared.shaped[test])))
        odd.append(kernel.distance(_odd(prepared, space, test, faulty)))
        floor = max(floor, fit.least(space))
    limit = max(fit.limit(np.concatenate(far), spec, stride), floor)
    if not np.isfinite(limit) or spec.gamma / len(prepared.floors) * limit >= DEEPEST:
        return None
    return float((np.concatenate(odd) > limit).mean())


def _odd(prepared: Prepared, space: Space, test: Ints, faulty: Statistics | None) -> Floats:
    """Whitened faulty windows."""
    windows = plant(prepared.chosen.take(test))[0] if faulty is None else faulty.align(prepared.chosen.metrics)
    return space.whiten(transform(features(windows), prepared.softening))


def told(tried: Iterable[Tried]) -> list[dict[str, object]]:
    """For whoever keeps it: plain values."""
    return [
        {
            "detector": one.candidate.detector.value,
            "nu": one.candidate.nu,
            "gamma": one.candidate.gamma,
            "levels": one.candidate.levels,
            "detection": one.detection,
        }
        for one in tried
    ]
