"""Which request a log line belongs to: request ids, W3C trace context, and logs as JSON lines.

``traceparent`` follows Trace Context (W3C recommendation, level 1): what is malformed is ignored and a new trace begun.
"""

import json
import logging
import random
import re
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:@=+-]{0,127}")
"""Ids of callers that are taken over; any other is replaced."""
PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

_RANDOM = random.Random()  # noqa: S311 - ids are no secrets, and the system's source costs a call each


def _hex(bits: int) -> str:
    return _RANDOM.randbytes(bits // 8).hex()


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in a trace: ``span_id`` is this request's own."""

    trace_id: str
    span_id: str = field(default_factory=lambda: _hex(64))
    flags: str = "00"

    def header(self) -> str:
        """``traceparent`` for whatever this request calls."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


@dataclass(slots=True)
class Context:
    """A request under way, as logs tell of it."""

    request_id: str
    trace: Trace
    key: str | None = None
    """The name of the key it came with."""

    @classmethod
    def of(cls, request: bytes | None, parent: bytes | None) -> "Context":
        """Of the headers ``x-request-id`` and ``traceparent``."""
        if request is None and parent is None:
            ids = _hex(256)
            return cls(ids[:16], Trace(ids[16:48], ids[48:]))
        return cls(request_id(request), trace(parent))


current: ContextVar[Context | None] = ContextVar("request", default=None)
"""The request that is being answered."""


def request_id(given: bytes | None) -> str:
    """The caller's id where it is sane, else a new one.

    >>> request_id(b"order-66"), len(request_id(b"a b")), len(request_id(None))
    ('order-66', 16, 16)
    """
    return given.decode() if given and REQUEST_ID.fullmatch(given) else _hex(64)


def trace(given: bytes | None) -> Trace:
    """The trace that ``traceparent`` continues, or a new one.

    >>> trace(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").header()[:36]
    '00-0af7651916cd43dd8448eb211c80319c-'
    """
    found = PARENT.fullmatch(given) if given else None
    if found:
        version, trace_id, span_id, flags, rest = found.groups()
        if version != b"ff" and not (version == b"00" and rest) and trace_id.strip(b"0") and span_id.strip(b"0"):
            return Trace(trace_id.decode(), flags=flags.decode())
    return Trace(_hex(128))


_RECORD = vars(logging.LogRecord("", logging.INFO, "", 0, "", (), None))


class _Told(logging.LogRecord):
    """A record of a request, which does not find out anew what is the same for all."""

    def __init__(self, name: str, message: str, fields: Mapping[str, Any], context: Context) -> None:
        now = time.time()
        self.__dict__.update(
            _RECORD, name=name, msg=message, created=now, msecs=1000 * (now % 1), fields=fields, context=context
        )


def tell(logger: logging.Logger, message: str, fields: Mapping[str, Any], context: Context) -> None:
    """Log what has become of a request, without what costs most of a record: to find out who logs it."""
    logger.handle(_Told(logger.name, message, fields, context))


@lru_cache(maxsize=2)
def _second(epoch: int) -> str:
    """A second of UTC."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, fields, and the request it belongs to.

    A record's fields are its ``fields`` (``extra={"fields": {…}}``).
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": f"{_second(int(record.created))}.{int(record.created % 1 * 1000):03}+00:00",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        context = getattr(record, "context", None) or current.get()
        if context:
            line |= {"request_id": context.request_id, "trace_id": context.trace.trace_id}
            line["span_id"] = context.trace.span_id
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        line |= fields
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(line, enc_hook=str).decode()
        except (TypeError, ValueError):  # such as half of a surrogate pair, of a file's name
            return json.dumps(line, default=str)
