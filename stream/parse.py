"""One record to a reading: what parsers are made of, and what they say of what is none."""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from stream.contracts import Reason

LARGEST = 1e100
"""Values beyond this cannot be squared and summed; no sensor measures them."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
SHOWN = 120
"""Characters of what a record holds that a detail repeats."""


class Reading(msgspec.Struct, gc=False):
    """One record of ``sensor.readings``, as it travels."""

    device_id: str
    ts: int | str
    values: dict[str, float]


Fault = tuple[Reason, str]
"""Why a record is kept aside, and what exactly is wrong with it."""


class Refused(ValueError):  # noqa: N818 - a verdict on a record, not an error of ours
    """Carries a fault out of the depths of one record, as its ``args``."""


Parse = Callable[[bytes], Reading]
"""Bytes of one record to a reading; raises ``Refused``, or what msgspec raises."""

_CONSTANT = re.compile(rb"(?<=[:,\[ \t\n\r])(?:NaN|-?Infinity)(?=[],} \t\n\r])")
"""What many writers of JSON put for a float that is none."""
UNREADABLE = (msgspec.MsgspecError, TypeError, ValueError, RecursionError, OverflowError)


def parse_object(value: bytes) -> dict[str, Any]:
    """The JSON object in ``value``.

    Raises:
        Refused: not JSON, not an object, or holding NaN or Infinity, which JSON lacks.
    """
    try:
        record = msgspec.json.decode(value)
    except UNREADABLE as error:
        raise Refused(*explain(value, error)) from error
    if not isinstance(record, dict):
        raise Refused(Reason.MALFORMED, f"a JSON object is expected, not {type(record).__name__}")
    return record


def explain(value: bytes, error: Exception) -> Fault:
    """What is wrong with what is not JSON; ``error`` is what msgspec says to it."""
    told = str(error)[:SHOWN]
    if "out of range" in told:
        return Reason.NOT_FINITE, told
    if b"NaN" in value or b"Infinity" in value:
        constant = _CONSTANT.search(value)
        try:
            msgspec.json.decode(_CONSTANT.sub(b"0", value))
        except UNREADABLE:
            constant = None
        if constant:
            return Reason.NOT_FINITE, f"{constant[0].decode()} is not a measurement; leave the metric out"
    return Reason.MALFORMED, told


def require(record: dict[str, Any], name: str) -> Any:
    """The field ``name``.

    Raises:
        Refused: ``missing_field`` where it is absent or null.
    """
    value = record.get(name)
    if value is None:
        raise Refused(Reason.MISSING_FIELD, f"{name} is missing")
    return value


def number(value: Any, name: str) -> float:
    """``value`` as a float.

    Raises:
        Refused: ``wrong_type`` or ``not_finite``, naming the field.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(Reason.WRONG_TYPE, f"{name} must be a number, not {type(value).__name__}")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise Refused(Reason.NOT_FINITE, f"{name} is not finite")
    return result


def epoch_ms(stamp: Any) -> int:
    """Epoch milliseconds of an integer, an integral float or an ISO-8601 string with an offset.

    Raises:
        Refused: ``bad_timestamp`` for anything else.
    """
    if isinstance(stamp, int) and not isinstance(stamp, bool):
        # anything outside int64 is outside EARLIEST and LATEST too
        return max(-(2**63), min(stamp, 2**63 - 1))
    if isinstance(stamp, float) and stamp.is_integer() and abs(stamp) < LARGEST:
        return epoch_ms(int(stamp))
    if isinstance(stamp, str):
        try:
            moment = datetime.fromisoformat(stamp)
        except ValueError:
            raise Refused(Reason.BAD_TIMESTAMP, f"ts {stamp[:SHOWN]!r} is not ISO-8601") from None
        if moment.tzinfo is None:
            raise Refused(Reason.BAD_TIMESTAMP, f"ts {stamp!r} has no offset; end it with Z or +hh:mm")
        return (moment - _EPOCH) // _MILLISECOND
    raise Refused(Reason.BAD_TIMESTAMP, f"ts must be epoch milliseconds or ISO-8601, not {type(stamp).__name__}")
