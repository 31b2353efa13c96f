"""Two registered fleets on the same recorded windows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.dataset as ds

from scorers import pack
from scorers.contest import Ballot, Contest, ballot, contest
from scorers.period import Period, Spans
from scorers.source import devices, extent, tables, windows
from scorers.train import within
from tidewatch.console import progress
from tidewatch.registry import Registry, Version


@dataclass(frozen=True, slots=True)
class Found:
    """How two fleets did."""

    contests: list[tuple[str, Contest]]
    """By device."""
    ballot: Ballot
    seen: int
    """Devices one of whose models was trained on some of the windows."""


def between(
    registry: Registry,
    versions: tuple[Version, Version],
    source: ds.Dataset,
    when: tuple[Period, int | None],
    labels: Mapping[str, Spans],
) -> Found:
    """Champion and challenger on the windows of a period.

    Args:
        registry: where the versions are.
        versions: champion and challenger.
        source: statistics.
        when: which windows, and within how many ms of the last of them.
        labels: when devices are known to have been faulty; without, faults are planted.
    """
    period, length = when
    if length is not None and (last := extent(source, period).until) is not None:
        period = replace(period, since=last - length + 1)
    fleets = registry.loaded(versions[0], pack.load), registry.loaded(versions[1], pack.load)
    contests: list[tuple[str, Contest]] = []
    with tables(source, period) as (total, found), progress("comparing") as show:
        for table in found:
            for device, rows in devices(table):
                statistics, ends = windows(rows)
                fault = within(ends, labels.get(device, ()))
                latest = max(fleet.until(device) for fleet in fleets)
                faulty = statistics.take(fault) if fault.any() else None
                seen = bool((ends <= latest).any())
                if not fault.all():
                    one = contest(fleets, device, statistics.take(~fault), faulty, seen=seen)
                    contests.append((device, one))
            show(len(contests), total)
    return Found(contests, ballot([one for _, one in contests]), int(np.sum([one.seen for _, one in contests])))
