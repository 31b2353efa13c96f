"""The wire contracts: topic names, record shapes, reason codes. Timestamps are epoch milliseconds UTC."""

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Literal

import msgspec

from scorers.behaviour import Behaviour


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one Tidewatch installation."""

    readings: str = "sensor.readings"
    sessions: str = "server.sessions"
    scores: str = "device.scores"
    alerts: str = "device.alerts"
    rejects: str = "rejects"
    state: str = "device.state"
    truth: str = "fault.truth"
    forecasts: str = "server.forecasts"
    load: str = "load.state"

    @classmethod
    def prefixed(cls, prefix: str) -> "Topics":
        """The same topics under ``prefix``, so that two installations can share a broker."""
        return cls(**{field.name: prefix + str(field.default) for field in fields(cls)})

    def names(self) -> tuple[str, ...]:
        """Every topic name."""
        return tuple(getattr(self, field.name) for field in fields(self))


class Reason(StrEnum):
    """Why a record went to ``rejects``; travels in the header ``tw_reason``."""

    __hash__ = str.__hash__  # the enum's own is many times slower

    EMPTY = "empty"
    """No value at all."""
    TOO_LARGE = "too_large"
    """More bytes than ``max_bytes``, or more readings in a record than can be dealt with."""
    MALFORMED = "malformed"
    """Not JSON, or not an object; or an Arrow stream that is broken or holds what is not taken."""
    MISSING_FIELD = "missing_field"
    """A required field is absent."""
    WRONG_TYPE = "wrong_type"
    """A field holds another type than the contract says."""
    NOT_FINITE = "not_finite"
    """A number too large for a double, or not a number."""
    NO_VALUES = "no_values"
    """A reading without a single metric."""
    BAD_TIMESTAMP = "bad_timestamp"
    """Unreadable, before 1980 or after 2199."""
    FUTURE = "future"
    """Further ahead than the device's clock or the broker's allows."""
    LATE = "late"
    """Every window it belongs to is closed."""
    DUPLICATE = "duplicate"
    """The same device and timestamp, once more."""
    TOO_MANY_METRICS = "too_many_metrics"
    """More metrics than ``max_metrics`` allows, in a reading or for a device."""
    NOT_ACCEPTED = "not_accepted"
    """An acceptance of what cannot be accepted."""


class Flaw(StrEnum):
    """Why a session is none to the forecaster, live as in a log, where no ``Reason`` tells.

    Live it is counted and no more, for whoever scores takes it in.
    """

    SWAPPED = "swapped"
    """It ends before it starts."""
    OUT_OF_RANGE = "out_of_range"
    """A load below 0 or above 10^9."""


class MetricStatistics(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One metric over one window; ``std`` is the sample standard deviation, null below two readings.

    ``sum`` is present where a window sums its events, as with server sessions.
    """

    count: int
    mean: float
    std: float | None
    min: float
    max: float
    last: float
    sum: float | None = None


class Contributor(msgspec.Struct, frozen=True, gc=False):
    """One feature's part in a verdict: share of the distance (0 to 1), what was seen, what is typical."""

    feature: str
    share: float
    actual: float | None
    typical: float


class Score(msgspec.Struct, frozen=True, gc=False):
    """One closed window and its verdict; the record of ``device.scores``, key = device id.

    ``decision`` is the one-class SVM's decision value minus its calibrated threshold (negative =
    anomaly), ``score`` 0 to 100 (50 at the threshold), ``severity`` the unbounded distance in units of
    the typical one. ``model`` says whose model judged, the device's own or its type's, and ``confidence``
    (0 to 1, in hundredths) how near its limit is to that of a model which knew enough: what is to be found must lie
    1 / ``confidence`` times as far out. All null while ``state`` is ``learning``.
    """

    device_id: str
    source: str
    window_start: int
    window_end: int
    count: int
    metrics: dict[str, MetricStatistics]
    state: Literal["learning", "scored"]
    decision: float | None = None
    score: float | None = None
    severity: float | None = None
    anomaly: bool = False
    contributors: list[Contributor] = []
    model_version: str | None = None
    model: Literal["own", "type"] | None = None
    confidence: float | None = None


class Level(msgspec.Struct, frozen=True, gc=False):
    """What was typical of a metric's mean when a shift of it was accepted, and what is since then."""

    before: float
    now: float


class Accepted(msgspec.Struct, frozen=True, omit_defaults=True):
    """Shifts of a device's levels that an operator has accepted, by metric."""

    levels: dict[str, Level]
    at: int
    """The device's windows that end later are judged by these levels."""
    note: str | None = None


class Acceptance(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """An operator's word that a device is well where it is now; JSON in the header ``tw_accept`` of an empty record.

    The record is one of the input topic with the device's id as its key, in the device's partition.
    """

    metrics: list[str] = []
    """The only ones that shift; without any, those that have moved."""
    levels: dict[str, float] = {}
    """Means of the windows to accept, by metric; without any, those of the open alert."""
    note: str | None = None
    """Why, for whoever reads the alert."""
    revoke: bool = False
    """Take back what was accepted before instead."""


class Alert(msgspec.Struct, frozen=True, gc=False):
    """One change of an alert's state; the record of ``device.alerts``, key = device id."""

    alert_id: str
    device_id: str
    source: str
    state: Literal["firing", "resolved"]
    since: int
    """Start of the first anomalous window of this alert."""
    at: int
    """End of the window that changed the state."""
    score: float
    """Highest score since the alert began."""
    severity: float
    contributors: list[Contributor]
    model_version: str | None = None
    behaviour: Behaviour | None = None
    """What the alert's windows show: those up to now while it fires, all of them once it is resolved."""
    metric: str | None = None
    """Which metric shows it most."""
    accepted: Accepted | None = None
    """Why it is resolved, where an operator has accepted what it told of."""


LoadClass = Literal["low", "medium", "high"]
Basis = Literal["own", "fleet"]


class ForecastHour(msgspec.Struct, frozen=True, gc=False):
    """One hour ahead: when it begins (epoch ms), its likeliest load, and how likely low, medium and high are."""

    hour: int
    load: LoadClass
    probabilities: tuple[float, float, float]


class Forecast(msgspec.Struct, frozen=True, gc=False):
    """A server's next 48 hours; the record of ``server.forecasts``, key = server.

    ``issued`` is the end of the last hour that is known, and the first hour forecast. ``basis`` says whether all hours
    rest on what the server itself did, or any of them on the fleet's average, as where it is new.
    """

    server: str
    issued: int
    basis: Basis
    model_version: str
    hours: list[ForecastHour]


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """Says which rejects were sent back, in the transaction that sent them; a record of ``rejects`` itself.

    It lies behind them in their own partition: as long as Kafka keeps a reject, it keeps the receipt.
    """

    offsets: list[int]
    """Of the rejects, in this partition of ``rejects``."""


class Fault(msgspec.Struct, frozen=True, gc=False):
    """One injected fault; the record of ``fault.truth``, key = device id. Half-open ``[start, end)``."""

    fault_id: str
    device_id: str
    kind: str
    metrics: list[str]
    start: int
    end: int
    magnitude: float
