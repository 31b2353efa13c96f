"""Bytes of a batch to records, for every sink; what is no record stays beside them with its reason."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import Meta

from sinks.base import Batch
from stream.contracts import Alert, Forecast, ForecastHour, MetricStatistics, Score

log = logging.getLogger(__name__)

Record = TypeVar("Record", Score, Alert, Forecast)
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Time = Annotated[int, Meta(ge=-2_208_988_800_000, lt=7_258_118_400_000)]
"""Epoch ms of the years 1900 to 2199: a hopping window of the first readings may begin before 1970."""

BROKEN = (ValueError, RecursionError)
"""What msgspec raises: its own errors, bad UTF-8, and JSON nested too deep."""
SHOWN = 5
"""Rejects of one batch that are logged one by one."""


class _Metric(MetricStatistics, frozen=True, gc=False, omit_defaults=True):
    count: Count


class _Score(Score, frozen=True, gc=False):
    """A score whose integers fit 64 bits and whose times are dates."""

    window_start: Time
    window_end: Time
    count: Count
    metrics: dict[str, _Metric]  # type: ignore[assignment]  # dict is invariant, but records are only read


class _Alert(Alert, frozen=True, gc=False):
    since: Time
    at: Time


class _ForecastHour(ForecastHour, frozen=True, gc=False):
    hour: Time


class _Forecast(Forecast, frozen=True, gc=False):
    issued: Time
    hours: list[_ForecastHour]  # type: ignore[assignment]  # as above


SCORES: msgspec.json.Decoder[Score] = msgspec.json.Decoder(_Score)
ALERTS: msgspec.json.Decoder[Alert] = msgspec.json.Decoder(_Alert)
FORECASTS: msgspec.json.Decoder[Forecast] = msgspec.json.Decoder(_Forecast)


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that keeps no contract: its offset, original bytes and what is wrong."""

    offset: int
    value: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Decoded(Generic[Record]):
    """A batch taken apart: ``offsets`` has one entry per record."""

    records: Sequence[Record]
    offsets: Sequence[int]
    rejects: Sequence[Reject] = ()


def decode(batch: Batch, decoder: msgspec.json.Decoder[Record]) -> Decoded[Record]:
    """Every record that ``decoder`` takes, in order, and the others as rejects, which are logged."""
    try:
        return Decoded([decoder.decode(value) for value in batch.values], batch.offsets)
    except BROKEN:
        decoded = _one_by_one(batch, decoder)
        _report(batch, decoded.rejects)
        return decoded


def _one_by_one(batch: Batch, decoder: msgspec.json.Decoder[Record]) -> Decoded[Record]:
    records, offsets, rejects = [], [], []
    for offset, value in zip(batch.offsets, batch.values, strict=True):
        try:
            records.append(decoder.decode(value))
        except BROKEN as error:
            rejects.append(Reject(offset, value, str(error)))
        else:
            offsets.append(offset)
    return Decoded(records, offsets, rejects)


def _report(batch: Batch, rejects: Sequence[Reject]) -> None:
    for reject in rejects[:SHOWN]:
        log.warning("%s offset %d keeps no contract: %s", batch.source, reject.offset, reject.reason)
    if len(rejects) > SHOWN:
        last = rejects[-1].offset
        log.warning("%s: %d more records up to offset %d keep none", batch.source, len(rejects) - SHOWN, last)
