"""The plain form of a request, ``{"model_name": …, "data": …}``, and its answer: one object for each window.

``data`` is rows of features, columns by name, ``{"windows": […]}`` or ``{"readings": […]}``.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeGuard

import msgspec
import numpy as np

from serving.errors import RefusedError
from serving.models import FEATURES, Model
from serving.replay import Reading, Window
from serving.service import Service
from serving.signature import listed
from serving.tensors import Array, Columns

_LONGEST_ID = 1_000
Id = str | msgspec.UnsetType
"""What a client calls its request."""


class Call(msgspec.Struct):
    """The body of ``POST /score``; the service form has the model's name in its path."""

    data: msgspec.Raw
    model_name: str | msgspec.UnsetType = msgspec.UNSET
    id: Id = msgspec.UNSET


_call = msgspec.json.Decoder(Call)
_rows = msgspec.json.Decoder(list[list[float | None]])
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_readings = msgspec.json.Decoder(list[Reading])
_windows = msgspec.json.Decoder(list[Window])
_column: tuple[tuple[Any, str], ...] = (
    (msgspec.json.Decoder(list[int]), "<i8"),
    (msgspec.json.Decoder(list[float | None]), "<f8"),
    (msgspec.json.Decoder(list[str]), "O"),
    (msgspec.json.Decoder(list[list[float | None]]), "<f8"),
)
_encoder = msgspec.json.Encoder()


def parse(body: bytes) -> Call:
    """The call of a body.

    Raises:
        RefusedError: it is none.
    """
    call: Call = _decoded(_call, body, "The body is not a call")
    if isinstance(call.id, str) and len(call.id) > _LONGEST_ID:
        raise RefusedError(f"id: expected {_LONGEST_ID} characters at most, and got {len(call.id)}.")
    return call


async def score(service: Service, name: str, data: bytes | msgspec.Raw, request: Id = msgspec.UNSET) -> bytes:
    """The answer to a call, as JSON.

    Raises:
        RefusedError: there is no such model, or the data do not keep its signature.
    """
    model = await service.model(name)
    fields = _fields(data)
    if _recording(fields):
        results: Sequence[Any] = await _recorded(service, model, fields)
    else:
        given = _columns(data, fields)
        results = model.results(given, await service.infer(model, given))
    return answer(name, model, results, request)


def columns(data: msgspec.Raw) -> Columns | None:
    """The columns of a call; None where it has readings or windows.

    Raises:
        RefusedError: its data are nothing of the kind.
    """
    fields = _fields(data)
    return None if _recording(fields) else _columns(data, fields)


def answer(name: str, model: Model, results: Sequence[Any], request: Id) -> bytes:
    """The answer to the call of a request, as JSON."""
    told = {"model_name": name, "model_version": model.version, "results": results}
    return _encoder.encode(told if request is msgspec.UNSET else {"id": request, **told})


def _fields(data: bytes | msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    """The fields of an object; None where there is none."""
    if bytes(data).lstrip(b" \t\r\n")[:1] != b"{":
        return None
    fields: dict[str, msgspec.Raw] = _decoded(_object, data, "data is no object")
    return fields


def _recording(fields: dict[str, msgspec.Raw] | None) -> TypeGuard[dict[str, msgspec.Raw]]:
    """Whether they are readings or windows."""
    return fields is not None and ("readings" in fields or "windows" in fields)


def _columns(data: bytes | msgspec.Raw, fields: dict[str, msgspec.Raw] | None) -> Columns:
    if fields is not None:
        return {key: column(key, raw) for key, raw in fields.items()}
    rows = _decoded(_rows, data, "data must be rows of numbers, or an object of columns, windows or readings")
    return {FEATURES: _square(rows)}


async def _recorded(service: Service, model: Model, fields: dict[str, msgspec.Raw]) -> list[msgspec.Raw]:
    if len(fields) > 1:
        raise RefusedError(f"data: expected readings or windows alone, and got {listed(list(fields))}.")
    if "readings" in fields:
        return await service.replay(model, _decoded(_readings, fields["readings"], "data.readings"))
    return await service.judge(model, _decoded(_windows, fields["windows"], "data.windows"))


def column(name: str, raw: msgspec.Raw) -> Array:
    """A column of numbers or texts, or rows of numbers.

    Raises:
        RefusedError: it is none.
    """
    for decoder, kind in _column:
        with suppress(msgspec.MsgspecError, OverflowError, RecursionError):
            found = decoder.decode(raw)
            return _square(found) if found and isinstance(found[0], list) else np.array(found, kind)
    raise RefusedError(f"data.{name:.80}: expected an array of numbers, of texts, or of rows of numbers.")


def _square(rows: list[list[float | None]]) -> Array:
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        first = next(at for at, row in enumerate(rows) if len(row) != len(rows[0]))
        raise RefusedError(f"data: row {first} has {len(rows[first])} values, and row 0 has {len(rows[0])}.")
    return np.array(rows, np.float64).reshape(len(rows), max(widths, default=0))


def _decoded(decoder: Any, data: bytes | msgspec.Raw, what: str) -> Any:
    try:
        return decoder.decode(data)
    except RecursionError as error:
        raise RefusedError(f"{what}: nested too deeply.") from error
    except UnicodeDecodeError as error:
        raise RefusedError(f"{what}: not UTF-8.") from error
    except msgspec.MsgspecError as error:
        raise RefusedError(f"{what}: {error}.") from error
