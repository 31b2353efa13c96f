"""Server sessions to readings: a server is a device, and its windows sum its sessions."""

from collections.abc import Mapping
from typing import Any

import msgspec

from stream.decode import Parser
from stream.parse import Fault, Reading, Stamp, made, numbers, parse_object, spelled, unfit

LOADS = (
    "ConcurrentConnectionCounts",
    "MbytesTransferred",
    "SubService_1_Load",
    "SubService_2_Load",
    "SubService_3_Load",
    "SubService_4_Load",
    "SubService_5_Load",
    "SecureBytes_Load",
    "TotalLoad",
)
"""The columns of a session that are measured; the rest describe it."""


class Session(msgspec.Struct, gc=False):
    """What a window needs of one record of ``server.sessions``; other columns are left alone."""

    ServerIP: str
    SessionStart: Stamp
    ConcurrentConnectionCounts: float
    MbytesTransferred: float
    SubService_1_Load: float
    SubService_2_Load: float
    SubService_3_Load: float
    SubService_4_Load: float
    SubService_5_Load: float
    SecureBytes_Load: float
    TotalLoad: float


_decode = msgspec.json.Decoder(Session).decode


def read_fast(value: bytes) -> Reading:
    """A complete session."""
    server, start, *loads = msgspec.structs.astuple(_decode(value))
    return Reading(server, start, dict(zip(LOADS, loads, strict=True)))


def read_patiently(value: bytes) -> Reading | Fault:
    """A session with blanks; an absent or null load is left out."""
    record = parse_object(value)
    if isinstance(record, tuple):
        return record
    server = record.get("ServerIP")
    if not isinstance(server, str):
        return unfit("ServerIP", server, "a string")
    return made(server, "SessionStart", record.get("SessionStart"), numbers(cells(record)))


def cells(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of each load, None where nothing."""
    return {name: spelled(record.get(name)) for name in LOADS}


SESSIONS = Parser(read_fast, read_patiently)
"""How ``server.sessions`` is read."""
