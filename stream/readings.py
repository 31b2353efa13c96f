"""Sensor readings: a device's metrics of one moment, in either shape of the contract."""

from typing import Any

import msgspec

from stream.arrow import unpack
from stream.decode import Parser
from stream.parse import Fault, Parse, Reading, made, numbers, parse_object, unfit
from stream.template import Templates

read_fast: Parse = msgspec.json.Decoder(Reading).decode


def metrics(value: bytes) -> list[str]:
    """The metrics of a reading in the wide shape, in its order."""
    return list(read_fast(value).values)


def read_patiently(value: bytes) -> Reading | Fault:
    """A reading in either shape of the contract; null metrics are left out."""
    record = parse_object(value)
    if isinstance(record, tuple):
        return record
    if "device_id" in record or "values" in record:
        return _wide(record)
    if "Device" in record or "Value" in record:
        return _narrow(record)
    return unfit("device_id", None, "a string")


def _wide(record: dict[str, Any]) -> Reading | Fault:
    device, values = record.get("device_id"), record.get("values")
    if not isinstance(device, str):
        return unfit("device_id", device, "a string")
    if not isinstance(values, dict):
        return unfit("values", values, "an object")
    return made(device, "ts", record.get("ts"), numbers(values, "values."))


def _narrow(record: dict[str, Any]) -> Reading | Fault:
    device, sensor, value = record.get("Device"), record.get("Sensor"), record.get("Value")
    for name, part in (("Device", device), ("Sensor", sensor)):
        if isinstance(part, bool) or not isinstance(part, int | str):
            return unfit(name, part, "an integer or a string")
    if value is None:
        return unfit("Value", value, "a number")
    return made(str(device), "TS", record.get("TS"), numbers({str(sensor): value}, "Value of "))


READINGS = Parser(read_fast, read_patiently, Templates(metrics), unpack)
"""How ``sensor.readings`` is read."""
