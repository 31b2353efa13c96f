"""Some sixty kinds of poison: what devices, gateways, other teams and bad luck put into a topic of readings."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from stream.contracts import Reason

Make = Callable[[str, int, bytes], bytes | None]
"""Device, event time (epoch ms) and last reading of that device to a record's value."""

HOUR_MS = 3_600_000
YEAR_MS = 365 * 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of poison, and the reason it must be rejected for."""

    name: str
    reason: Reason
    make: Make
    history: bool = False
    """Whether only what the device sent before makes it bad."""


def _json(device: object, ts: object, values: object) -> bytes:
    return msgspec.json.encode({"device_id": device, "ts": ts, "values": values})


def _always(value: bytes | None) -> Make:
    return lambda *_: value


def _instead(old: bytes, new: bytes) -> Make:
    """A reading with a part of its text replaced."""
    return lambda device, ts, _: _json(device, ts, {"metric_00": 1.5}).replace(old, new)


def _values(**values: object) -> Make:
    return lambda device, ts, _: _json(device, ts, values)


def _around(before: bytes, after: bytes = b"") -> Make:
    return lambda device, ts, _: before + _json(device, ts, {"metric_00": 1.5}) + after


def _stamped(stamp: Callable[[int], object]) -> Make:
    return lambda device, ts, _: _json(device, stamp(ts), {"metric_00": 1.5})


def _packed(pack: Callable[[bytes], bytes]) -> Make:
    return lambda device, ts, _: pack(_json(device, ts, {"metric_00": 1.5}))


_SESSION = {"ServerIP": "10.0.0.1", "SessionStart": 1_700_000_000_000, "ServerType": "web", "TotalLoad": 12.5}
_PROTOBUF = b"\x0a\x09pump-0007\x10\xfb\xd0\x95\xff\xbc\x31\x1a\x0f\x0a\x04load\x11\xcd\xcc\xcc\xcc\xcc\xcc\x51\x40"
_AVRO = b"\x00\x00\x00\x00\x07\x12pump-0007\xf6\xa1\xab\xfe\xf9b"

KINDS: tuple[Kind, ...] = (
    Kind("null", Reason.EMPTY, _always(None)),
    Kind("no bytes", Reason.EMPTY, _always(b"")),
    Kind("300 kB of one letter", Reason.TOO_LARGE, _always(b"x" * 300_000)),
    Kind("300 kB reading", Reason.TOO_LARGE, _around(b" " * 300_000)),
    Kind("words", Reason.MALFORMED, _always(b"ERROR sensor bus timeout")),
    Kind("cut short", Reason.MALFORMED, _packed(lambda value: value[: len(value) // 2])),
    Kind("two in one", Reason.MALFORMED, _packed(lambda value: value + b"\n" + value)),
    Kind("two, the second cut", Reason.MALFORMED, _packed(lambda value: value + b"\n" + value[:20])),
    Kind("trailing comma", Reason.MALFORMED, _instead(b"}}", b",}}")),
    Kind("single quotes", Reason.MALFORMED, _instead(b'"', b"'")),
    Kind("comment", Reason.MALFORMED, _around(b"/* v2 */ ")),
    Kind("leading zeros", Reason.MALFORMED, _instead(b"1.5", b"001.5")),
    Kind("hexadecimal", Reason.MALFORMED, _instead(b"1.5", b"0x1F")),
    Kind("bad UTF-8", Reason.MALFORMED, _instead(b"device-", b"device\xff\xfe")),
    Kind("UTF-16", Reason.MALFORMED, _packed(lambda value: value.decode().encode("utf-16"))),
    Kind("byte order mark", Reason.MALFORMED, _around(b"\xef\xbb\xbf")),
    Kind("lone surrogate", Reason.MALFORMED, _instead(b"device-", b"\\ud800")),
    Kind("raw control character", Reason.MALFORMED, _instead(b"device-", b"device\x07")),
    Kind("10,000 arrays deep", Reason.MALFORMED, _always(b"[" * 10_000 + b"]" * 10_000)),
    Kind("10,000 objects deep", Reason.MALFORMED, _always(b'{"a":' * 10_000 + b"1" + b"}" * 10_000)),
    Kind("gzip", Reason.MALFORMED, _packed(lambda value: gzip.compress(value, 1, mtime=0))),
    Kind("protobuf", Reason.MALFORMED, _always(_PROTOBUF)),
    Kind("Avro of a schema registry", Reason.MALFORMED, _always(_AVRO)),
    Kind("MessagePack", Reason.MALFORMED, lambda device, ts, _: msgspec.msgpack.encode((device, ts, {"x": 1.5}))),
    Kind("CSV", Reason.MALFORMED, lambda device, ts, _: f"{device},{ts},1.5,2.5".encode()),
    Kind("XML", Reason.MALFORMED, lambda device, ts, _: f'<reading id="{device}" ts="{ts}"/>'.encode()),
    Kind("zeros", Reason.MALFORMED, _always(bytes(64))),
    Kind("array of readings", Reason.MALFORMED, _around(b"[", b"]")),
    Kind("reading in a string", Reason.MALFORMED, _packed(lambda value: msgspec.json.encode(value.decode()))),
    Kind("null in JSON", Reason.MALFORMED, _always(b"null")),
    Kind("no fields", Reason.MISSING_FIELD, _always(b"{}")),
    Kind("a session", Reason.MISSING_FIELD, _always(msgspec.json.encode(_SESSION))),
    Kind("no stamp", Reason.MISSING_FIELD, _instead(b'"ts"', b'"time"')),
    Kind("device null", Reason.MISSING_FIELD, lambda _, ts, __: _json(None, ts, {"metric_00": 1.5})),
    Kind("device a number", Reason.WRONG_TYPE, lambda _, ts, __: _json(7, ts, {"metric_00": 1.5})),
    Kind("device without a name", Reason.WRONG_TYPE, lambda _, ts, __: _json("", ts, {"metric_00": 1.5})),
    Kind("device of 300 letters", Reason.WRONG_TYPE, lambda _, ts, __: _json("d" * 300, ts, {"metric_00": 1.5})),
    Kind("values a list", Reason.WRONG_TYPE, lambda device, ts, _: _json(device, ts, [1.5, 2.5])),
    Kind("value a text", Reason.WRONG_TYPE, _values(metric_00="1.5")),
    Kind("value within a value", Reason.WRONG_TYPE, _values(metric_00={"value": 1.5, "unit": "bar"})),
    Kind("metric of 300 letters", Reason.WRONG_TYPE, _values(**{"m" * 300: 1.5})),
    Kind("NaN", Reason.NOT_FINITE, _instead(b"1.5", b"NaN")),
    Kind("minus infinity", Reason.NOT_FINITE, _instead(b"1.5", b"-Infinity")),
    Kind("1e999", Reason.NOT_FINITE, _instead(b"1.5", b"1e999")),
    Kind("1e120", Reason.NOT_FINITE, _instead(b"1.5", b"1e120")),
    Kind("400 digits", Reason.NOT_FINITE, _instead(b"1.5", b"9" * 400)),
    Kind("values empty", Reason.NO_VALUES, _values()),
    Kind("values all null", Reason.NO_VALUES, _values(metric_00=None, metric_01=None)),
    Kind("300 metrics", Reason.TOO_MANY_METRICS, _values(**{f"m{number}": 1 for number in range(300)})),
    Kind("stamp in seconds", Reason.BAD_TIMESTAMP, _stamped(lambda ts: ts // 1000)),
    Kind("stamp in microseconds", Reason.BAD_TIMESTAMP, _stamped(lambda ts: ts * 1000)),
    Kind("stamp of 1979", Reason.BAD_TIMESTAMP, _stamped(lambda _: "1979-12-31T23:59:59Z")),
    Kind("stamp of 2300", Reason.BAD_TIMESTAMP, _stamped(lambda _: "2300-01-01T00:00:00Z")),
    Kind("stamp in words", Reason.BAD_TIMESTAMP, _stamped(lambda _: "Tue, 14 Nov 2023 22:13:20 GMT")),
    Kind("stamp without an offset", Reason.BAD_TIMESTAMP, _stamped(lambda _: "2023-11-14T22:13:20")),
    Kind("stamp of 2150", Reason.FUTURE, _stamped(lambda _: 5_680_281_600_000)),
    Kind("a year ahead of its device", Reason.FUTURE, _stamped(lambda ts: ts + YEAR_MS), history=True),
    Kind("an hour late", Reason.LATE, _stamped(lambda ts: ts - HOUR_MS), history=True),
    Kind("sent twice", Reason.DUPLICATE, lambda _, __, last: last, history=True),
)  # fmt: skip
"""Distinct by name; large ones are to be used sparingly."""
