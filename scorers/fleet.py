"""Every device's model in one object: a batch of windows from any devices in, verdicts out."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scorers import naming
from scorers.behaviour import Finding, find
from scorers.features import features, names
from scorers.group import Distances, Group
from scorers.model import DeviceModel, Rows, score
from scorers.statistics import Flags, Floats, Ints, Statistics
from scorers.verdicts import Verdicts


class _Part(NamedTuple):
    """Windows that one group has models for."""

    group: int
    rows: Rows
    model: Rows
    """Within the group."""
    actual: Floats
    distances: Distances


@dataclass(frozen=True, slots=True)
class Measured:
    """How far ``n`` windows lie, before anything is said of them."""

    distance: Floats
    """Kernel distance, shape (n,); NaN without a model."""
    reach: Floats
    """The trained limit, shape (n,); NaN without a model."""
    until: Ints
    """End of the last window the model was trained on, epoch ms, shape (n,); 0 without a model."""
    parts: list[_Part]


@dataclass(frozen=True, slots=True)
class Fleet:
    """The models of all devices, grouped by the metrics they know; immutable, safe to share and to swap.

    Behind those of devices are groups of models that types lend to devices without one.
    """

    version: str
    groups: tuple[Group, ...] = field(repr=False)
    rule: str = ""
    """What tells a device's type by its id, see :mod:`scorers.naming`."""
    devices: tuple[str, ...] = field(init=False, repr=False)
    """Device of each model; a position in it is what :meth:`index` gives."""
    names: tuple[str, ...] = field(init=False, repr=False)
    """Every feature name of the fleet."""
    types: tuple[str, ...] = field(init=False, repr=False)
    """Type of each model that is lent."""
    _place: dict[str, int] = field(init=False, repr=False)
    _lent: dict[str, int] = field(init=False, repr=False)
    _starts: Ints = field(init=False, repr=False)
    _columns: tuple[Ints, ...] = field(init=False, repr=False)
    _typical: tuple[Floats, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        devices, types = (
            tuple(name for group in self.groups if group.lent == lent for name in group.devices)
            for lent in (False, True)
        )
        ordered = tuple(sorted(self.groups, key=lambda group: group.lent))
        metrics = dict.fromkeys(metric for group in self.groups for metric in group.metrics)
        everything = names(tuple(metrics))
        column = {name: place for place, name in enumerate(everything)}
        sizes = [len(group.devices) for group in ordered]
        for name, value in (
            ("groups", ordered),
            ("devices", devices),
            ("names", everything),
            ("types", types),
            ("_place", {device: place for place, device in enumerate(devices)}),
            ("_lent", {name: place for place, name in enumerate(types, len(devices))}),
            ("_columns", tuple(np.array([column[name] for name in names(group.metrics)]) for group in ordered)),
            ("_typical", tuple(group.typical() for group in ordered)),
            ("_starts", np.cumsum([0, *sizes], dtype=np.int64)),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.devices)

    @classmethod
    def of(
        cls,
        models: Mapping[str, DeviceModel],
        version: str,
        types: Mapping[str, DeviceModel] | None = None,
        rule: str = "",
    ) -> "Fleet":
        """Pack models by device id, and those to lend by type."""
        return cls(version, (*_grouped(models, lent=False), *_grouped(types or {}, lent=True)), rule)

    @classmethod
    def union(cls, fleets: Iterable["Fleet"], version: str) -> "Fleet":
        """The models of fleets that share no device and no type, whose types all have one rule, if they have any."""
        kin: dict[tuple[tuple[str, ...], bool], list[Group]] = defaultdict(list)
        rule = ""
        for fleet in fleets:
            rule = rule or fleet.rule
            for group in fleet.groups:
                kin[group.metrics, group.lent].append(group)
        return cls(version, tuple(Group.union(alike) for alike in kin.values()), rule)

    def only(self, devices: Collection[str], types: Collection[str] = ()) -> "Fleet":
        """The models that some devices have of their own, and that some types lend; what has none is passed over."""
        chosen = []
        for group in self.groups:
            wanted = types if group.lent else devices
            rows = np.flatnonzero([name in wanted for name in group.devices])
            if len(rows):
                chosen.append(group.take(rows))
        return Fleet(self.version, tuple(chosen), self.rule if any(group.lent for group in chosen) else "")

    @classmethod
    def empty(cls) -> "Fleet":
        """A fleet without models: every device is still learning."""
        return cls("none", ())

    def index(self, devices: Sequence[str]) -> Ints:
        """Position of each device's own model, shape (n,); -1 where it has none."""
        find = self._place.get
        return np.fromiter((find(device, -1) for device in devices), np.int64, len(devices))

    def assign(self, devices: Sequence[str]) -> Ints:
        """Position of each device's own model, or else of its type's, shape (n,); -1 where it has neither."""
        found = self.index(devices)
        new = np.flatnonzero(found < 0)
        if self._lent and len(new):
            types = naming.types([devices[at] for at in new.tolist()], self.rule)
            found[new] = [self._lent.get(name or "", -1) for name in types]
        return found

    def until(self, device: str) -> int:
        """End of the last window that a device's model was trained on, epoch ms; 0 without a model."""
        place = self._place.get(device)
        if place is None:
            return 0
        group, own = self.locate(place)
        return int(group.until[own])

    def locate(self, place: int) -> tuple[Group, int]:
        """The group that holds a model, and its place in it."""
        number = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self.groups[number], place - int(self._starts[number])

    def score(self, model: Ints, statistics: Statistics, *, top: int = 3) -> Verdicts:
        """Verdicts of ``n`` windows by the trained limits.

        Args:
            model: shape (n,), from :meth:`assign` or :meth:`index`; -1 gives no verdict.
            statistics: the windows. Metrics a model does not know are ignored, those it misses count as absent; where
                it misses all, a type's model gives no verdict.
            top: contributors to report for each window.
        """
        return self.judge(self.measure(model, statistics), np.ones(len(statistics)), top=top)

    def measure(self, model: Ints, statistics: Statistics) -> Measured:
        """How far ``n`` windows lie; arguments as of :meth:`score`."""
        measured = Measured(
            np.full(len(model), np.nan), np.full(len(model), np.nan), np.zeros(len(model), np.int64), []
        )
        order = np.argsort(model, kind="stable")
        edges = np.searchsorted(model[order], self._starts)
        for number in np.flatnonzero(np.diff(edges)).tolist():
            rows = order[edges[number] : edges[number + 1]]
            group, own = self.groups[number], model[rows] - self._starts[number]
            windows = statistics.take(rows).align(group.metrics)
            if group.lent:
                heard = np.flatnonzero((windows.count > 0).any(axis=1))
                rows, own, windows = rows[heard], own[heard], windows.take(heard)
                if not len(rows):
                    continue
            actual = features(windows)
            distances = group.measure(own, group.standardise(own, actual))
            measured.distance[rows], measured.reach[rows] = distances.kernel, group.reach[own]
            measured.until[rows] = group.until[own]
            measured.parts.append(_Part(number, rows, own, actual, distances))
        return measured

    def judge(self, measured: Measured, share: Floats, *, top: int = 3) -> Verdicts:
        """Verdicts by ``share`` of the trained limits, shape (n,), positive."""
        verdicts = Verdicts.learning(len(share), top, self.names)
        for part in measured.parts:
            self._judge(verdicts, part, share[part.rows])
        return verdicts

    def find(self, measured: Measured, wanted: Flags) -> dict[int, Finding]:
        """What chosen windows show, by row; ``wanted`` has shape (n,). Costs nothing for the others."""
        found: dict[int, Finding] = {}
        for number, rows, model, actual, _ in measured.parts:
            chosen = np.flatnonzero(wanted[rows])
            if len(chosen):
                group, own, seen = self.groups[number], model[chosen], actual[chosen]
                z = group.standardise(own, seen)
                findings = find(group.metrics, z, group.reconstruct(own, z), seen, self._typical[number][own])
                found.update(zip(rows[chosen].tolist(), findings, strict=True))
        return found

    def _judge(self, verdicts: Verdicts, part: _Part, share: Floats) -> None:
        """Fill in the verdicts of a part."""
        number, rows, model, actual, distances = part
        group = self.groups[number]
        reach, gamma = group.reach[model] * share, group.gamma[model]
        verdicts.scored[rows] = True
        verdicts.lent[rows] = group.lent
        verdicts.confidence[rows] = group.confidence[model]
        verdicts.anomaly[rows] = distances.kernel > reach
        verdicts.score[rows] = score(distances.kernel, reach)
        verdicts.severity[rows] = distances.whitened / group.unit[model]
        verdicts.decision[rows] = np.exp(group.total[model] - gamma * reach) * np.expm1(
            gamma * (reach - distances.kernel)
        )
        feature, share = _largest(distances.parts, verdicts.feature.shape[1])
        wide = np.s_[rows, : feature.shape[1]]
        verdicts.feature[wide] = self._columns[number][feature]
        verdicts.share[wide] = share
        verdicts.actual[wide] = np.take_along_axis(actual, feature, axis=1)
        verdicts.typical[wide] = self._typical[number][model[:, None], feature]


def _grouped(models: Mapping[str, DeviceModel], *, lent: bool) -> list[Group]:
    """Models that know the same metrics side by side."""
    kin: dict[tuple[str, ...], dict[str, DeviceModel]] = defaultdict(dict)
    for name, model in models.items():
        kin[model.metrics][name] = model
    return [Group.of(alike, lent=lent) for alike in kin.values()]


def _largest(parts: Floats, top: int) -> tuple[NDArray[np.intp], Floats]:
    """Columns and shares of the largest positive parts of each row (n, p), both of shape (n, min(top, p))."""
    left = np.maximum(parts, 0.0)
    whole = np.maximum(left.sum(axis=1), np.finfo(np.float64).tiny)
    row = np.arange(len(parts))
    columns, shares = [], []
    for _ in range(min(top, parts.shape[1])):
        column = left.argmax(axis=1)
        columns.append(column)
        shares.append(left[row, column] / whole)
        left[row, column] = -1.0
    return np.stack(columns, axis=1), np.stack(shares, axis=1)
