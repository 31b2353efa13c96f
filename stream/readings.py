"""Sensor readings: a device's metrics of one moment, in either shape of the contract."""

from typing import Any

import msgspec

from stream.arrow import unpack
from stream.contracts import Reason
from stream.decode import Parser
from stream.parse import SHOWN, Parse, Reading, Refused, number, parse_object, require
from stream.template import Templates

read_fast: Parse = msgspec.json.Decoder(Reading).decode


def metrics(value: bytes) -> list[str]:
    """The metrics of a reading in the wide shape, in its order."""
    return list(read_fast(value).values)


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


READINGS = Parser(read_fast, read_patiently, Templates(metrics), unpack)
"""How ``sensor.readings`` is read."""
