"""What a model is here: a name, a version, a signature, and columns in, columns out.

The whole fleet is one model, with a device column; the model of each device is one too. All of them are scored by the
fleet's own functions (``scorers/fleet.py``), so that requests to many models are one call. The load forecaster is
another kind of model (``serving/forecasts.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from scorers.compiled import compiled
from scorers.features import COUNT, KINDS, MEAN, STD, inverse, names
from scorers.fleet import Fleet, Measured
from scorers.statistics import Floats, Statistics
from scorers.verdicts import Verdicts
from serving.errors import RefusedError
from serving.signature import Field, Signature, listed, short
from serving.tensors import Array, Columns, Outputs, Tensor
from stream.parse import BEYOND, LARGEST

TOP = 3
"""Contributors of a window."""
FEATURES, DEVICE, PLACE, STAMP = "features", "device", "place", "ts"
_WHOLE_UP_TO = 2.0**53


class Engine(Protocol):
    """What scores; requests of one engine are scored together, for the rows of its columns are independent."""

    def infer(self, columns: Columns) -> Columns:
        """Outputs of ``n`` rows, in their order."""


class Model(Protocol):
    """One model of the repository, in one version."""

    @property
    def name(self) -> str:
        """What requests call it."""

    @property
    def version(self) -> str:
        """Which of its versions this is."""

    @property
    def platform(self) -> str:
        """What made it."""

    @property
    def signature(self) -> Signature:
        """What it asks of a request."""

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """What it answers."""

    @property
    def engine(self) -> Engine:
        """What scores it."""

    def prepare(self, columns: Columns) -> Columns:
        """The engine's columns of a request's.

        Raises:
            RefusedError: they do not keep the signature.
        """

    def results(self, given: Columns, found: Outputs) -> list[dict[str, Any]]:
        """What a plain answer has of each row, of a request's columns and the outputs."""


OUTPUTS = (
    Tensor("decision", "FP64", (-1,)),
    Tensor("score", "FP64", (-1,)),
    Tensor("anomaly", "BOOL", (-1,)),
    Tensor("severity", "FP64", (-1,)),
    Tensor("decision_function", "FP64", (-1,)),
    Tensor("state", "BYTES", (-1,)),
    Tensor("model", "BYTES", (-1,)),
    Tensor("confidence", "FP64", (-1,)),
    Tensor("feature", "BYTES", (-1, TOP)),
    Tensor("share", "FP64", (-1, TOP)),
    Tensor("actual", "FP64", (-1, TOP)),
    Tensor("typical", "FP64", (-1, TOP)),
)
"""What a fleet says of a window; see :class:`scorers.verdicts.Verdicts`. ``decision_function`` is scikit-learn's own
value, before the calibrated threshold is taken off. The last four are its contributors, the largest share first."""


@dataclass(frozen=True, eq=False)
class FleetEngine:
    """Scores rows of features by any models of a fleet."""

    fleet: Fleet
    metrics: tuple[str, ...]

    @cached_property
    def _named(self) -> Array:
        return np.array([*self.fleet.names, ""], object)

    def infer(self, columns: Columns) -> Columns:
        """Verdicts of ``n`` windows.

        Args:
            columns: ``place``, int64 of shape (n,), as :meth:`Fleet.assign` gives it; ``features``, float64 of shape
                (n, 5 m), as :func:`scorers.features.features` has them, by ``metrics``.
        """
        windows = statistics_of(self.metrics, columns[FEATURES])
        with np.errstate(over="ignore", invalid="ignore"):  # what is far out is cut off
            measured = self.fleet.measure(columns[PLACE], windows)
            verdicts = self.fleet.judge(measured, np.ones(len(windows)), top=TOP)
            plain = self._plain(measured)
        return self._columns(verdicts, plain)

    def _plain(self, measured: Measured) -> Floats:
        """scikit-learn's decision values, NaN without a model."""
        values = np.full(len(measured.distance), np.nan)
        for part in measured.parts:
            group, own = self.fleet.groups[part.group], part.model
            near = group.total[own] - group.gamma[own] * part.distances.kernel
            values[part.rows] = np.exp(near) - group.offset[own]
        return values

    def _columns(self, verdicts: Verdicts, plain: Floats) -> Columns:
        whose = np.where(verdicts.lent, "type", "own").astype(object)
        whose[~verdicts.scored] = ""
        return {
            "decision": verdicts.decision,
            "score": verdicts.score,
            "anomaly": verdicts.anomaly,
            "severity": verdicts.severity,
            "decision_function": plain,
            "state": np.where(verdicts.scored, "scored", "learning").astype(object),
            "model": whose,
            "confidence": verdicts.confidence,
            "feature": self._named[verdicts.feature],
            "share": verdicts.share,
            "actual": verdicts.actual,
            "typical": verdicts.typical,
        }


@dataclass(frozen=True)
class FleetModel:
    """A fleet, or one device's model of it."""

    name: str
    fleet: Fleet
    engine: FleetEngine
    max_rows: int
    device: str | None = None
    """None: the whole fleet, by a device column."""
    platform: str = "tidewatch_one_class"
    outputs: tuple[Tensor, ...] = field(default=OUTPUTS, repr=False)

    @property
    def version(self) -> str:
        """The fleet's."""
        return self.fleet.version

    @cached_property
    def _features(self) -> tuple[str, ...]:
        """Names of the columns of ``features``."""
        return names(self.engine.metrics)

    @cached_property
    def _place(self) -> int:
        return int(self.fleet.index([self.device])[0]) if self.device is not None else -1

    @cached_property
    def signature(self) -> Signature:
        """A row of features; of the whole fleet, with the device that each is of."""
        sample: Columns = (
            {} if self.device is not None else {DEVICE: np.array([*self.fleet.devices[:1]] or ["?"], object)}
        )
        sample[FEATURES] = self._typical()
        return Signature.of(sample, {FEATURES: self._features}, self.max_rows)

    def _typical(self) -> Floats:
        """A typical window of the device, or of the fleet's first, shape (1, 5 m)."""
        cube = np.full((1, len(self.engine.metrics), len(KINDS)), np.nan)
        cube[..., COUNT] = 0.0
        if len(self.fleet):
            group, own = self.fleet.locate(max(self._place, 0))
            known = short(inverse(group.center[[own]], group.softening[[own]])).reshape(1, -1, len(KINDS))
            known[..., COUNT] = np.maximum(known[..., COUNT].round(), 2)
            known[..., STD] = np.maximum(known[..., STD], 0)
            cube[:, [self.engine.metrics.index(name) for name in group.metrics]] = known
        return cube.reshape(1, -1)

    def prepare(self, columns: Columns) -> Columns:
        """``place`` and ``features``, from those of the signature or from a column for each feature."""
        found = self.signature.check(columns if FEATURES in columns else self._gathered(columns))
        rows = whole(found[FEATURES], self._features)
        if self.device is None:
            place = self.fleet.assign(found[DEVICE].tolist())
        else:
            place = np.full(len(rows), self._place, np.int64)
        return {PLACE: place, FEATURES: rows}

    def _gathered(self, columns: Columns) -> Columns:
        """``features`` from a column for each of them; of the whole fleet, all of a metric's or none."""
        given = [name for name in columns if name in self._numbers]
        if not given:
            return columns
        wanted = self._features
        if self.device is None:
            metrics = {name.rpartition(".")[0] for name in given}
            wanted = names([metric for metric in self.engine.metrics if metric in metrics])
        if missing := [name for name in wanted if name not in columns]:
            raise RefusedError(f"{listed(missing)}: missing; expected a column FP64 [n] for each of {listed(wanted)}.")
        checked = {name: Field(name, "FP64", 0).check(columns[name]) for name in wanted}
        rows = self.signature.count(checked)
        cube = np.full((rows, len(self._features)), np.nan)
        cube[:, COUNT :: len(KINDS)] = 0.0
        for name, column in checked.items():
            cube[:, self._numbers[name]] = column
        return {FEATURES: cube, **{name: array for name, array in columns.items() if name not in checked}}

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self._features)}

    def results(self, given: Columns, found: Outputs) -> list[dict[str, Any]]:
        """A verdict for each row, named as ``device.scores`` names it."""
        plain = {name: array.tolist() for name, array in found.items()}
        devices = plain[DEVICE] if DEVICE in plain else given[DEVICE].ravel().tolist() if DEVICE in given else None
        told = []
        for row, state in enumerate(plain["state"]):
            one: dict[str, Any] = {"device_id": devices[row] if devices else self.device, "state": state}
            for name in ("window_start", "window_end", "decision", "decision_function", "score", "severity", "anomaly"):
                if name in plain:
                    one[name] = plain[name][row]
            one["contributors"] = [
                {"feature": feature, "share": share, "actual": actual, "typical": typical}
                for feature, share, actual, typical in zip(
                    *(plain[name][row] for name in ("feature", "share", "actual", "typical")), strict=True
                )
                if feature
            ]
            one["model_version"] = self.version if state == "scored" else None
            one["model"] = plain["model"][row] or None
            one["confidence"] = plain["confidence"][row]
            told.append(one)
        return told


def whole(rows: Floats, called: Sequence[str]) -> Floats:
    """Features, shape (n, 5 m), with NaN where a window of so few readings has no such value.

    Raises:
        RefusedError: a count is not whole and from 0 up, or a value is missing, absurd or a negative spread.
    """
    found = np.array(rows, np.float64).reshape(len(rows), -1, len(KINDS))
    wrong = int(_first_wrong(found))
    if wrong >= 0:
        row, metric, kind = (int(number) for number in np.unravel_index(wrong, found.shape))
        value, count = found[row, metric, kind], found[row, metric, COUNT]
        told = "null" if np.isnan(value) else f"{value:g}"
        rule = {COUNT: "a whole number from 0 up", STD: "a number from 0 up"}.get(kind, "a number")
        many = "" if kind == COUNT or np.isnan(count) else f" of {count:g} readings"
        huge = f" ({BEYOND} is none)" if abs(value) > LARGEST else ""
        raise RefusedError(
            f"{called[metric * len(KINDS) + kind]}: expected {rule}{huge} in row {row}{many}, and got {told}."
        )
    return found.reshape(rows.shape)


@compiled
def _first_wrong(cube: Floats) -> Any:
    """Blank what windows of few readings do not have; the first value, in order, that is none, or -1."""
    wide = cube.shape[1] * cube.shape[2]
    for row in range(cube.shape[0]):
        for metric in range(cube.shape[1]):
            count = cube[row, metric, COUNT]
            at = row * wide + metric * cube.shape[2]
            if not (0.0 <= count <= _WHOLE_UP_TO and count == np.floor(count)):
                return at + COUNT
            for kind in range(COUNT):
                if count == 0 or (kind == STD and count < 2):  # noqa: PLR2004 - a spread needs two
                    cube[row, metric, kind] = np.nan
                elif not abs(cube[row, metric, kind]) <= LARGEST or (kind == STD and cube[row, metric, kind] < 0):
                    return at + kind
    return -1


def statistics_of(metrics: tuple[str, ...], rows: Floats) -> Statistics:
    """Features, shape (n, 5 m), as the statistics they are of; what was last is not known, and not scored."""
    blocks: Any = rows.reshape(len(rows), len(metrics), len(KINDS))
    mean, std, low, high, count = (np.ascontiguousarray(blocks[..., kind]) for kind in range(len(KINDS)))
    return Statistics(metrics, count.astype(np.int64), mean, std, low, high, blocks[..., MEAN])
