"""Times of the windows that models are trained on and judged by."""

from dataclasses import dataclass

Spans = tuple[tuple[int, int], ...]
"""Intervals of time, epoch ms, half-open."""


@dataclass(frozen=True, slots=True)
class Period:
    """Which windows to train on; epoch ms, half-open, by window end."""

    since: int | None = None
    until: int | None = None
    excluded: Spans = ()
    """Intervals to leave out, such as known faults."""
