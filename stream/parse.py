"""One record to a reading: what parsers are made of, and what they say of what is none."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec

from stream.contracts import Flaw, Reason

LARGEST = 1e100
"""Values beyond this cannot be squared and summed; no sensor measures them."""
BEYOND = f"a value beyond ±{LARGEST:g}"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
SHOWN = 120
"""Characters of what a record holds that a detail repeats."""


Stamp = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | str
"""Epoch milliseconds in 64 bits, or what ``epoch_ms`` makes them of."""


class Reading(msgspec.Struct, gc=False):
    """One record of ``sensor.readings``, as it travels."""

    device_id: str
    ts: Stamp
    values: dict[str, float]


Fault = tuple[Reason | Flaw, str]
"""Why a record is kept aside, and what exactly is wrong with it."""


class Refused(ValueError):  # noqa: N818 - a verdict on a record, not an error of ours
    """Carries a fault out of the depths of one record, as its ``args``."""


Parse = Callable[[bytes], Reading]
"""Bytes of one record to a reading; raises what msgspec raises."""
Judge = Callable[[bytes], Reading | Fault]
"""The same with the last word; a flood of bad records passes here, so a fault is returned and not raised."""

_SPELLED = {"nan", "inf", "infinity"}
_NUMBERS = {float, int, type(None)}
UNREADABLE = (msgspec.MsgspecError, TypeError, ValueError, RecursionError, OverflowError)


def parse_object(value: bytes) -> dict[str, Any] | Fault:
    """The JSON object in ``value``, or why there is none."""
    try:
        record = msgspec.json.decode(value)
    except UNREADABLE as error:
        return explain(error)
    if type(record) is not dict:
        return Reason.MALFORMED, f"a JSON object is expected, not {type(record).__name__}"
    return record


def explain(error: Exception) -> Fault:
    """What is wrong with what is not JSON, from what msgspec says to it."""
    told = str(error)[:SHOWN]
    if "out of range" in told:
        return Reason.NOT_FINITE, told
    return Reason.MALFORMED, told


def unfit(name: str, value: Any, wanted: str) -> Fault:
    """What is wrong with a field that is not there, null or of another type."""
    if value is None:
        return Reason.MISSING_FIELD, f"{name} is missing"
    return Reason.WRONG_TYPE, f"{name} must be {wanted}, not {type(value).__name__}"


def spelled(value: Any) -> Any:
    """A number that JSON cannot write, and a text therefore tells, as that number; all else as it is."""
    return float(value) if type(value) is str and value.strip("+- ").lower() in _SPELLED else value


def numbers(values: Mapping[str, Any], within: str = "") -> dict[str, float] | Fault:
    """Those that are not null as floats; ``within`` is what their names begin with in a fault."""
    with suppress(msgspec.ValidationError):
        return msgspec.convert(values, dict[str, float])
    for name, value in values.items():
        if type(value) not in _NUMBERS:
            return unfit(within + name[:SHOWN], value, "a number")
    try:
        return {name: float(value) for name, value in values.items() if value is not None}
    except OverflowError:
        return Reason.NOT_FINITE, BEYOND


def epoch_ms(stamp: Any) -> int | Fault:
    """Epoch milliseconds of an integer, an integral float or an ISO-8601 string with an offset."""
    if type(stamp) is int:
        # anything outside int64 is outside EARLIEST and LATEST too
        return max(-(2**63), min(stamp, 2**63 - 1))
    if type(stamp) is float and stamp.is_integer() and abs(stamp) < LARGEST:
        return epoch_ms(int(stamp))
    if type(stamp) is str:
        try:
            moment = datetime.fromisoformat(stamp)
        except ValueError:
            return Reason.BAD_TIMESTAMP, f"ts {stamp[:SHOWN]!r} is not ISO-8601"
        if moment.tzinfo is None:
            return Reason.BAD_TIMESTAMP, f"ts {stamp!r} has no offset; end it with Z or +hh:mm"
        return (moment - _EPOCH) // _MILLISECOND
    return Reason.BAD_TIMESTAMP, f"ts must be epoch milliseconds or ISO-8601, not {type(stamp).__name__}"


def made(device: str, name: str, stamp: Any, values: dict[str, float] | Fault) -> Reading | Fault:
    """A reading of its parts, unless one is a fault; ``name`` is that of the stamp."""
    if isinstance(values, tuple):
        return values
    if stamp is None:
        return unfit(name, stamp, "a moment")
    ts = epoch_ms(stamp)
    return ts if isinstance(ts, tuple) else Reading(device, ts, values)
