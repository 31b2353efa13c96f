"""The load forecaster as a model: rows of FEATURES in, the class of an hour's peak load and its probabilities out.

What ``hour`` says already, the calendar and the trend, is made here of it as it is in training, and may be left out of
a request; given otherwise than it is, it is refused, for a forecast of another day would look like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from scorers.forecast.calendar import calendar
from scorers.forecast.encode import HISTORY
from scorers.forecast.issue import FLEET, OWN
from scorers.forecast.labels import CLASSES, Ints
from scorers.forecast.metrics import named
from scorers.forecast.model import WEEK, Forecaster, week_hours
from scorers.forecast.schema import CALENDAR, FEATURES, HOUR_MS, UNIT
from serving.errors import RefusedError
from serving.signature import Field, Signature, listed, short
from serving.tensors import Array, Columns, Outputs, Tensor
from stream.decode import EARLIEST, LATEST

SERVER, HOUR, TREND = "server", "hour", "trend"
GIVEN = pa.schema([field for field in FEATURES if field.name != "load"])
"""What is asked of a row; ``load`` is what is to be forecast."""
OUTPUTS = (
    Tensor("load", "BYTES", (-1,)),
    *(Tensor(name, "FP64", (-1,)) for name in CLASSES),
    Tensor("basis", "BYTES", (-1,)),
)
"""The likeliest class, the probabilities of all, and whose history they rest on: ``own``, the row's, or ``fleet``."""
_SAME = 1e-6
"""Days that a trend may be off, as texts of numbers are cut."""
_MOST = 2**63 / UNIT
"""Of a load: what hours can hold."""


@dataclass(frozen=True, eq=False)
class ForecastEngine:
    """Forecasts rows of features."""

    forecaster: Forecaster

    def infer(self, columns: Columns) -> Columns:
        """Classes and probabilities of ``n`` hours.

        Args:
            columns: those of ``GIVEN``, of shape (n,) each; NaN is what is not known.
        """
        arrays = [pa.array(columns[one.name], one.type, from_pandas=True) for one in GIVEN]
        rows, strange = self.forecaster.fill(pa.table(arrays, schema=GIVEN))
        with np.errstate(over="ignore"):  # what is far out is as far as can be
            probabilities = self.forecaster.predict(rows)
        return {
            "load": np.array(CLASSES, object)[named(probabilities)],
            **dict(zip(CLASSES, probabilities.T, strict=True)),
            "basis": np.where(strange, FLEET, OWN).astype(object),
        }


@dataclass(frozen=True)
class ForecastModel:
    """The forecaster of all servers."""

    name: str
    engine: ForecastEngine
    max_rows: int
    platform: str = "tidewatch_load_forecaster"
    outputs: tuple[Tensor, ...] = field(default=OUTPUTS, repr=False)

    @property
    def version(self) -> str:
        """The forecaster's."""
        return self.engine.forecaster.version

    @cached_property
    def signature(self) -> Signature:
        """A row of features: of a server trained on, as the fleet is at that hour of the week."""
        known = self.engine.forecaster
        hour = np.array([known.spec.start // HOUR_MS * HOUR_MS + WEEK * HOUR_MS])
        told = self._told(hour)
        typical = short(known.profile[week_hours(pa.table(told))])
        history = {name: typical[:, at] for at, name in enumerate(HISTORY)}
        server = np.array([*known.servers[:1]] or ["?"], object)
        return Signature.of({SERVER: server, HOUR: hour, **told, **history}, {}, self.max_rows)

    def prepare(self, columns: Columns) -> Columns:
        """The columns of ``GIVEN``.

        The calendar may be left out, which ``hour`` says; and all of the history, of a server that has none.
        """
        if missing := [name for name in (SERVER, HOUR) if name not in columns]:
            raise RefusedError(f"{listed(missing)}: missing; expected {self.signature}.")
        hour = self._hours(columns[HOUR])
        told = self._told(hour)
        unknown = {} if any(name in columns for name in HISTORY) else dict.fromkeys(HISTORY, np.full(len(hour), np.nan))
        found = self.signature.check(told | unknown | columns)
        self._agree(found, told)
        _loads(found)
        return found

    def results(self, given: Columns, found: Outputs) -> list[dict[str, Any]]:
        """A forecast for each row, named as `tidewatch load forecast` names it."""
        columns = {name: given[name].ravel() for name in (SERVER, HOUR)} | dict(found)
        rows: Sequence[tuple[Any, ...]] = list(zip(*(array.tolist() for array in columns.values()), strict=True))
        return [dict(zip(columns, row, strict=True)) | {"model_version": self.version} for row in rows]

    def _hours(self, array: Array) -> Ints:
        """Hours that are some, not more than are taken."""
        hour = Field(HOUR, "INT64", 0).check(array)
        self.signature.count({HOUR: hour})
        wrong = (hour < EARLIEST) | (hour >= LATEST) | (hour % HOUR_MS != 0)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise RefusedError(
                f"{HOUR}: expected epoch milliseconds of a whole hour from 1980 to 2199 in row {row}, and got "
                f"{hour[row]}."
            )
        return hour

    def _told(self, hour: Ints) -> Columns:
        """Calendar and trend of hours, shape (n,) each."""
        distinct, place = np.unique(hour, return_inverse=True)
        table = calendar(distinct, self.engine.forecaster.spec)
        whole = {name: table[name].to_numpy().astype(np.int64)[place] for name in CALENDAR}
        return whole | {TREND: table[TREND].to_numpy()[place]}

    def _agree(self, found: Columns, told: Columns) -> None:
        """Refuse a calendar that is not its hour's."""
        for name, right in told.items():
            wrong = ~(np.abs(found[name] - right) <= (_SAME if name == TREND else 0))
            if wrong.any():
                row, spec = int(np.argmax(wrong)), self.engine.forecaster.spec
                why = f"days since {spec.start}" if name == TREND else f"the hour's in {spec.timezone}"
                raise RefusedError(
                    f"{name}: expected {right[row]:.12g}, {why}, in row {row}, and got {found[name][row]:.12g}; it may "
                    "be left out."
                )


def _loads(found: Columns) -> None:
    """Refuse a history that is none."""
    for name in HISTORY:
        wrong = (found[name] < 0) | (found[name] > _MOST)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise RefusedError(
                f"{name}: expected a load from 0 to {_MOST:.3g}, or null, in row {row}, and got {found[name][row]:g}."
            )
