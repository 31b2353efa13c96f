"""librdkafka's producer by its C interface: messages by the thousand, off the interpreter's lock (ADR 25).

The library is the one that confluent-kafka brings; names and numbers are those of its ``rdkafka.h``.
"""

import ctypes
import weakref
from collections.abc import Callable, Iterable, Mapping
from ctypes import c_char_p, c_int, c_size_t, c_void_p
from typing import Any

import llvmlite.binding
import numpy as np
from confluent_kafka import KafkaError, KafkaException, cimpl
from numba import types
from numpy.typing import NDArray

from scorers.compiled import compiled
from scorers.statistics import Ints
from stream.message import Bulk, Output, bulks
from stream.texts import Texts

_library = ctypes.CDLL(cimpl.__file__)
_PRODUCER = 0
_PURGE_ALL = 3
_REASON_BYTES = 512
_QUEUE_FULL: int = KafkaError._QUEUE_FULL  # noqa: SLF001 - librdkafka's own codes carry the underscore

# rd_kafka_vu_t: eight bytes of what it is, 64 of its value
_WORDS = 9
_TOPIC, _PARTITION, _VALUE, _KEY, _OPAQUE, _FLAGS, _TIMESTAMP, _HEADER = 1, 3, 4, 5, 6, 7, 8, 9
_COPY = 2
_FIXED = 7
"""What is told of a message besides its headers."""
_SIZES = 6
"""Bytes of ``stream.message``'s sizes before each header."""


_Texts = tuple[NDArray[np.uint8], Ints, Ints]
"""Those of ``Texts``."""
_Columns = tuple[Ints, Ints, Ints, _Texts, _Texts, _Texts, _Texts, _Texts, Ints]
"""By row the number of the topic, partition, timestamp; the topics; by row key, value, own headers;
common headers, and by row the number of those."""


class _Delivered(ctypes.Structure):
    """The beginning and the end of rd_kafka_message_t."""

    _fields_ = (
        ("err", c_int), ("topic", c_void_p), ("partition", ctypes.c_int32), ("payload", c_void_p), ("len", c_size_t),
        ("key", c_void_p), ("key_len", c_size_t), ("offset", ctypes.c_int64), ("opaque", ctypes.c_int64),
    )  # fmt: skip


_Report = ctypes.CFUNCTYPE(None, c_void_p, ctypes.POINTER(_Delivered), c_void_p)
_Told = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_char_p, c_void_p)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    found = getattr(_library, f"rd_kafka_{name}")
    found.restype, found.argtypes = result, arguments
    return found


_conf_new = _function("conf_new", c_void_p)
_conf_set = _function("conf_set", c_int, c_void_p, c_char_p, c_char_p, c_char_p, c_size_t)
_conf_destroy = _function("conf_destroy", None, c_void_p)
_conf_error = _function("conf_set_error_cb", None, c_void_p, _Told)
_conf_report = _function("conf_set_dr_msg_cb", None, c_void_p, _Report)
_new = _function("new", c_void_p, c_int, c_void_p, c_char_p, c_size_t)
_destroy = _function("destroy", None, c_void_p)
_init = _function("init_transactions", c_void_p, c_void_p, c_int)
_begin = _function("begin_transaction", c_void_p, c_void_p)
_commit = _function("commit_transaction", c_void_p, c_void_p, c_int)
_abort = _function("abort_transaction", c_void_p, c_void_p, c_int)
_purge = _function("purge", c_int, c_void_p, c_int)
_flush = _function("flush", c_int, c_void_p, c_int)
_poll = _function("poll", c_int, c_void_p, c_int)
_waiting = _function("outq_len", c_int, c_void_p)
_error_code = _function("error_code", c_int, c_void_p)
_error_string = _function("error_string", c_char_p, c_void_p)
_error_fatal = _function("error_is_fatal", c_int, c_void_p)
_error_retriable = _function("error_is_retriable", c_int, c_void_p)
_error_aborts = _function("error_txn_requires_abort", c_int, c_void_p)
_error_destroy = _function("error_destroy", None, c_void_p)

for _name in ("produceva", "error_code", "error_destroy"):
    _address = ctypes.cast(getattr(_library, f"rd_kafka_{_name}"), c_void_p).value
    llvmlite.binding.add_symbol(f"rd_kafka_{_name}", _address)
# by name, so that what is compiled can be kept on disk
_produceva: Any = types.ExternalFunction("rd_kafka_produceva", types.int64(types.int64, types.int64, types.int64))
_code_of: Any = types.ExternalFunction("rd_kafka_error_code", types.int32(types.int64))
_forget: Any = types.ExternalFunction("rd_kafka_error_destroy", types.void(types.int64))


class Load:
    """Messages in columns, to be enqueued from the first to the last."""

    def __init__(self, outputs: Iterable[Output], tag: int = 0) -> None:
        """``tag``, below 2**31, is reported with each."""
        self.tag = tag
        self.parts: list[_Columns] = []
        self.starts = [0]
        """The row each part begins with, and the end."""
        for bulk in bulks(outputs):
            self.parts.append(_columns(bulk))
            self.starts.append(self.starts[-1] + len(bulk))

    def __len__(self) -> int:
        return self.starts[-1]


def _columns(bulk: Bulk) -> _Columns:
    return (
        bulk.topic, bulk.partition, bulk.timestamp, _texts(Texts.of([name.encode() + b"\0" for name in bulk.topics])),
        _texts(bulk.keys), _texts(bulk.values), _texts(bulk.heads), _texts(Texts.of(bulk.commons)), bulk.common,
    )  # fmt: skip


def _texts(texts: Texts) -> _Texts:
    return np.frombuffer(texts.buffer, np.uint8), texts.begin, texts.size


class BatchProducer:
    """A producer of librdkafka; calls block, and wait outside the interpreter's lock. Times in seconds."""

    def __init__(
        self,
        config: Mapping[str, str | int | float | bool],
        told: Callable[[KafkaError], None],
        report: Callable[[int, int, KafkaError | None], None] | None = None,
    ) -> None:
        """``told`` hears of librdkafka's own troubles; ``report`` of each message: its load's tag, its row, its fate.

        Raises:
            KafkaException: a setting is not known, or not as it should be.
        """
        reason = ctypes.create_string_buffer(_REASON_BYTES)
        conf = _conf_new()
        for name, value in config.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if _conf_set(conf, name.encode(), text.encode(), reason, _REASON_BYTES):
                _conf_destroy(conf)
                raise _unfit(reason.value)
        # librdkafka keeps no reference to what it is to call
        callbacks: list[Any] = [_Told(lambda _, code, why, __: told(KafkaError(code, (why or b"").decode())))]
        _conf_error(conf, callbacks[0])
        if report:
            callbacks.append(_Report(lambda _, message, __: report(*_fate(message.contents))))
            _conf_report(conf, callbacks[1])
        self._client: int = _new(_PRODUCER, conf, reason, _REASON_BYTES)
        if not self._client:
            _conf_destroy(conf)
            raise _unfit(reason.value)
        end = weakref.finalize(self, _end, self._client, callbacks)
        end.atexit = False

    def enqueue(self, load: Load, begin: int = 0) -> int:
        """Hand over messages of a load from a row on, as many as there is room for; the first row left.

        Raises:
            KafkaException: the message of that row is refused.
        """
        for start, end, columns in zip(load.starts, load.starts[1:], load.parts, strict=False):
            if begin < end:
                rows, code = _enqueue(self._client, columns, load.tag << 32 | start, begin - start)
                begin = start + rows
                if code == _QUEUE_FULL:
                    break
                if code:
                    raise RefusedMessage(begin, KafkaError(code))
        return begin

    def init_transactions(self, timeout: float) -> None:
        """As the functions of these names.

        Raises:
            KafkaException: what librdkafka says, likewise below.
        """
        _check(_init(self._client, _ms(timeout)))

    def begin_transaction(self) -> None:
        """See above."""
        _check(_begin(self._client))

    def commit_transaction(self, timeout: float) -> None:
        """See above."""
        _check(_commit(self._client, _ms(timeout)))

    def abort_transaction(self, timeout: float) -> None:
        """See above."""
        _check(_abort(self._client, _ms(timeout)))

    def purge(self) -> None:
        """Forget what is unsent or unanswered."""
        _purge(self._client, _PURGE_ALL)

    def flush(self, timeout: float) -> int:
        """Wait until all is answered; how many messages are not yet."""
        _flush(self._client, _ms(timeout))
        return int(_waiting(self._client))

    def poll(self, timeout: float) -> None:
        """Wait for reports."""
        _poll(self._client, _ms(timeout))


class RefusedMessage(KafkaException):  # type: ignore[misc]  # without types
    """Carries the row of a message that librdkafka does not take."""

    def __init__(self, row: int, error: KafkaError) -> None:
        super().__init__(error)
        self.row = row


def _unfit(reason: bytes) -> KafkaException:
    return KafkaException(KafkaError(KafkaError._INVALID_ARG, reason.decode()))  # noqa: SLF001 - librdkafka's name


def _end(client: int, _: list[Any]) -> None:
    """The callbacks live as long as the client."""
    _destroy(client)


def _fate(message: Any) -> tuple[int, int, KafkaError | None]:
    return message.opaque >> 32, message.opaque & 0xFFFFFFFF, KafkaError(message.err) if message.err else None


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _check(error: int | None) -> None:
    if error is None:
        return
    flags = _error_fatal(error), _error_retriable(error), _error_aborts(error)
    told = KafkaError(_error_code(error), _error_string(error).decode(), *map(bool, flags))
    _error_destroy(error)
    raise KafkaException(told)


@compiled
def _enqueue(client: int, columns: _Columns, tag: int, begin: int) -> tuple[int, int]:
    """The first row that is not taken, and Kafka's code of why."""
    topic, partition, timestamp, topics, keys, values, heads, commons, common = columns
    most = (commons[2].max() + heads[2].max()) // _SIZES if len(topic) else 0
    parts = np.zeros((_FIXED + most, _WORDS), np.int64)
    parts[:, 0] = _HEADER
    for row in range(begin, len(topic)):
        parts[0, :2] = _TOPIC, topics[0].ctypes.data + topics[1][topic[row]]
        parts[1, :2] = _PARTITION, partition[row]
        for place, kind, texts in ((2, _VALUE, values), (3, _KEY, keys)):
            null = texts[2][row] < 0
            parts[place, 0] = kind
            parts[place, 1] = 0 if null else texts[0].ctypes.data + texts[1][row]
            parts[place, 2] = 0 if null else texts[2][row]
        parts[4, :2] = _OPAQUE, tag + row
        parts[5, :2] = _FLAGS, _COPY
        parts[6, :2] = _TIMESTAMP, timestamp[row]
        count = _point(parts, _FIXED, commons, common[row])
        count = _point(parts, count, heads, row)
        error = _produceva(client, parts.ctypes.data, count)
        if error:
            code = _code_of(error)
            _forget(error)
            return row, code
    return len(topic), 0


@compiled
def _point(parts: Ints, count: int, heads: _Texts, row: int) -> int:
    """Let parts from ``count`` on point to the headers of a row; how many there are now."""
    texts, starts, sizes = heads
    at, end = starts[row], starts[row] + sizes[row]
    while at < end:
        name = _number(texts, at, 2)
        size = _number(texts, at + 2, 4)
        address = texts.ctypes.data + at + _SIZES
        parts[count, 1], parts[count, 2], parts[count, 3] = address, address + name, size
        at += _SIZES + name + size
        count += 1
    return count


@compiled
def _number(texts: NDArray[np.uint8], at: int, size: int) -> int:
    """Of so many bytes, the lowest first."""
    number = 0
    for byte in range(size):
        number |= int(texts[at + byte]) << 8 * byte
    return number
