"""Isolation forests in whitened space: few random cuts part a window that is odd from healthy ones.

Beyond their outermost cuts all places look alike to trees, so that their score says nothing of how far out a window is.
What they cannot see is added: the squared distance from the range of the healthy windows.
"""

import numpy as np

from scorers.model import Kernel
from scorers.statistics import Floats
from scorers.trees import Forest

TREES = 100
"""Path lengths have converged by then (Liu, Ting & Zhou 2008)."""


def isolate(whitened: Floats, gamma: float, seed: int) -> Kernel:
    """An isolation forest of 100 trees, each grown on 256 rows of (n, p) or on all there are, without its pickle."""
    from sklearn.ensemble import IsolationForest  # noqa: PLC0415 - a second and 95 MB, which only those who train are to pay

    forest = Forest.of(IsolationForest(n_estimators=TREES, random_state=seed).fit(whitened))
    spread = np.stack([whitened.min(axis=0), whitened.max(axis=0)])
    return Kernel(spread, np.ones(2), 0.0, gamma, forest=forest)
