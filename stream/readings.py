"""Sensor readings: a device's metrics of one moment, in either shape of the contract."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from stream.contracts import Reason
from stream.decode import SHOWN, Decoded, Parse, Parser, Reading, Refused, number, parse_object, require

_MOST_UNIFORM = 512
"""Metrics beyond which no decoder is made for them: it would be large, and kept."""

read_fast: Parse = msgspec.json.Decoder(Reading).decode


def read_uniform(values: Sequence[bytes]) -> Decoded:
    """Readings that all have the metrics of the first, by a decoder made for these: half the cost of a dict each."""
    names = tuple(read_fast(values[0]).values)
    if len(names) > _MOST_UNIFORM:
        raise Refused(Reason.TOO_MANY_METRICS, "no decoder is made for so many")
    readings = list(map(_decoder(names), values))
    count, width = len(readings), len(names)
    measured = map(msgspec.structs.astuple, map(attrgetter("values"), readings))
    flat = np.fromiter(chain.from_iterable(measured), np.float64, count * width)
    ts = np.fromiter(map(attrgetter("ts"), readings), np.int64, count)
    device = list(map(attrgetter("device_id"), readings))
    whole = np.arange(count)
    return Decoded(whole, device, ts, np.zeros(count, np.int64), [names], whole * width, flat)


@lru_cache(maxsize=1024)
def _decoder(names: tuple[str, ...]) -> Callable[[bytes], Any]:
    fields = [f"c{column}" for column in range(len(names))]
    wire = dict(zip(fields, names, strict=True))
    values = msgspec.defstruct(
        "Values", [(field, float) for field in fields], rename=wire, gc=False, forbid_unknown_fields=True
    )
    reading = msgspec.defstruct("Uniform", [("device_id", str), ("ts", int), ("values", values)], gc=False)
    return msgspec.json.Decoder(reading).decode


def read_patiently(value: bytes) -> Reading:
    """A reading in either shape of the contract; null metrics are left out.

    Raises:
        Refused: with the reason and the field.
    """
    record = parse_object(value)
    if "device_id" in record or "values" in record:
        return _wide(record)
    if "Device" in record or "Value" in record:
        return _narrow(record)
    raise Refused(Reason.MISSING_FIELD, "device_id is missing")


def _wide(record: dict[str, Any]) -> Reading:
    device, values = require(record, "device_id"), require(record, "values")
    if not isinstance(device, str):
        raise Refused(Reason.WRONG_TYPE, f"device_id must be a string, not {type(device).__name__}")
    if not isinstance(values, dict):
        raise Refused(Reason.WRONG_TYPE, f"values must be an object, not {type(values).__name__}")
    present = {name: number(value, f"values.{name[:SHOWN]}") for name, value in values.items() if value is not None}
    return Reading(device, require(record, "ts"), present)


def _narrow(record: dict[str, Any]) -> Reading:
    device, sensor = require(record, "Device"), require(record, "Sensor")
    for name, value in (("Device", device), ("Sensor", sensor)):
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise Refused(Reason.WRONG_TYPE, f"{name} must be an integer or a string, not {type(value).__name__}")
    return Reading(str(device), require(record, "TS"), {str(sensor): number(require(record, "Value"), "Value")})


READINGS = Parser(read_fast, read_patiently, read_uniform)
"""How ``sensor.readings`` is read."""
