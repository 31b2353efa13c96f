"""Server sessions to readings: a server is a device, and its windows sum its sessions."""

from typing import Any

import msgspec

from stream.contracts import Reason
from stream.decode import Parser
from stream.parse import Reading, Refused, number, parse_object, require

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
    SessionStart: int | str
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


def read_patiently(value: bytes) -> Reading:
    """A session with blanks; an absent or null load is left out.

    Raises:
        Refused: with the reason and the field.
    """
    record: dict[str, Any] = parse_object(value)
    server = require(record, "ServerIP")
    if not isinstance(server, str):
        raise Refused(Reason.WRONG_TYPE, f"ServerIP must be a string, not {type(server).__name__}")
    loads = {name: number(record[name], name) for name in LOADS if record.get(name) is not None}
    return Reading(server, require(record, "SessionStart"), loads)


SESSIONS = Parser(read_fast, read_patiently)
"""How ``server.sessions`` is read."""
