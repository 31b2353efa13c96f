"""Two versions of the forecaster on the same recorded hours."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from scorers.errors import ConfigError, InputError
from scorers.forecast import pack
from scorers.forecast.fit import judged
from scorers.forecast.metrics import Figures
from tidewatch.console import utc
from tidewatch.forecast import store
from tidewatch.forecast.training import FEWEST, known_to
from tidewatch.registry import Registry, Version


@dataclass(frozen=True, slots=True)
class Found:
    """How they did."""

    since: int
    """Epoch ms of the first hour, and of the last one."""
    until: int
    figures: tuple[Figures, Figures]
    seen: bool
    """Whether one of them has learned from some of these hours, which flatters it."""


def between(registry: Registry, versions: tuple[Version, Version], folder: Path, since: int | None) -> Found:
    """Champion and challenger on hours whose load is known.

    Args:
        registry: where the versions are.
        versions: champion and challenger.
        folder: what ``tidewatch load etl`` wrote.
        since: epoch ms; None: from where neither has learned any more.

    Raises:
        InputError: there are no features, or too few hours to compare on.
        ConfigError: one of them knows another calendar than the features, or they part classes elsewhere.
        ForecasterFileError: a version's file is not sound.
    """
    place = store.root(folder)
    spec, rows = store.spec(place), store.features(place / "features")
    both = registry.loaded(versions[0], pack.load), registry.loaded(versions[1], pack.load)
    for version, each in zip(versions, both, strict=True):
        if (each.spec.timezone, each.spec.country) != (spec.timezone, spec.country):
            raise ConfigError(
                f"Version {version.number} was trained for {each.spec.timezone} {each.spec.country}, and the features "
                f"of {place} are for {spec.timezone} {spec.country}; give those of the same by --features."
            )
    if both[0].thresholds != both[1].thresholds:
        told = " and ".join(f"{low:g}, {high:g}" for low, high in (each.thresholds for each in both))
        raise ConfigError(f"The two part classes at other loads, {told}: they forecast something else each.")
    learned = max(each.facts["until"] for each in both)
    begins = learned if since is None else since
    chosen = rows.filter(pc.and_(pc.is_valid(rows["load"]), pc.greater_equal(rows["hour"], begins)))
    if len(pc.unique(chosen["hour"])) < FEWEST:
        raise InputError(
            f"Fewer than {FEWEST} hours are left from {utc(begins)} UTC on to compare them on; read later "
            "ones by `tidewatch load etl`, or give an earlier --since, though it flatters who has learned from them."
        )
    ends = pc.min_max(chosen["hour"]).as_py()
    first, second = (judged(each, known_to(each, chosen, spec)) for each in both)
    return Found(ends["min"], ends["max"], (first, second), ends["min"] < learned)
