"""The Open Inference Protocol, version 2, over HTTP: requests with JSON or binary tensors, and what answers them."""

from collections.abc import Sequence
from typing import Any

import msgspec

from serving.errors import RefusedError
from serving.signature import blank, listed
from serving.tensors import Columns, Outputs, Tensor, datatype, from_bytes, from_json, to_bytes

NAME = "tidewatch"
EXTENSIONS = ("binary_tensor_data", "model_repository", "parameters")
_NO_DATA = msgspec.Raw()
_LONGEST_ID = 1_000

Parameters = dict[str, str | int | float | bool]


class Input(msgspec.Struct):
    """An input tensor; its elements are in ``data``, or behind the JSON as ``binary_data_size`` says."""

    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters = {}
    data: msgspec.Raw = _NO_DATA


class Wanted(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: Parameters = {}


class Request(msgspec.Struct):
    """The JSON of an inference request."""

    inputs: list[Input]
    id: str = ""
    parameters: Parameters = {}
    outputs: list[Wanted] = []


_decoder = msgspec.json.Decoder(Request)
_encoder = msgspec.json.Encoder()


def parse(body: bytes, header: bytes | None = None) -> tuple[Request, Columns]:
    """An inference request and its inputs by name.

    Args:
        body: the JSON, and behind it the binary data of inputs in their order.
        header: ``Inference-Header-Content-Length``, the bytes of the JSON; None: all of them.

    Raises:
        RefusedError: it is not what the protocol asks for.
    """
    size = len(body) if header is None else _header(header, len(body))
    try:
        request = _decoder.decode(body if size == len(body) else memoryview(body)[:size])
    except RecursionError as error:
        raise RefusedError("The body is nested too deeply for a request.") from error
    except msgspec.MsgspecError as error:
        raise RefusedError(f"The body is not an inference request: {error}.") from error
    except UnicodeDecodeError as error:
        raise RefusedError("The body is not UTF-8.") from error
    if len(request.id) > _LONGEST_ID:
        raise RefusedError(f"id: expected {_LONGEST_ID} characters at most, and got {len(request.id)}.")
    return request, _columns(request.inputs, memoryview(body)[size:])


def _header(header: bytes, most: int) -> int:
    if not header.isascii() or not header.isdigit() or len(header) > 18 or int(header) > most:  # noqa: PLR2004 - of 64 bits
        told = header[:40].decode("latin-1")
        raise RefusedError(
            f"Inference-Header-Content-Length: expected the bytes of the JSON, from 0 to {most} of the body's, and "
            f"got {told!r}."
        )
    return int(header)


def _columns(inputs: Sequence[Input], binary: memoryview) -> Columns:
    found: Columns = {}
    at = 0
    for one in inputs:
        tensor = Tensor(one.name, one.datatype, tuple(one.shape))
        if one.name in found:
            raise RefusedError(f"{one.name:.80}: there are two inputs of this name.")
        size = one.parameters.get("binary_data_size")
        if size is None:
            if not memoryview(one.data):
                raise RefusedError(
                    f"{one.name:.80}.data: missing; expected the elements, or parameters.binary_data_size."
                )
            found[one.name] = from_json(tensor, one.data)
            continue
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(binary) - at:
            raise RefusedError(
                f"{one.name:.80}.parameters.binary_data_size: expected a whole number up to the {len(binary) - at} "
                f"bytes that are left, and got {size!r:.40}."
            )
        if memoryview(one.data):
            raise RefusedError(f"{one.name:.80}: expected data or binary_data_size, and got both.")
        found[one.name] = from_bytes(tensor, binary[at : at + size])
        at += size
    if at != len(binary):
        raise RefusedError(f"{len(binary) - at} bytes of binary data belong to no input; see binary_data_size.")
    return found


def chosen(columns: Outputs, wanted: Sequence[str]) -> Sequence[str]:
    """The names of the outputs asked for, in that order; all where there are none.

    Raises:
        RefusedError: there is no such output.
    """
    if not wanted:
        return list(columns)
    if unknown := [name for name in wanted if name not in columns]:
        raise RefusedError(f"outputs: there is no {listed(unknown)}; there is {', '.join(columns)}.")
    return wanted


def answer(request: Request, name: str, version: str, columns: Outputs) -> tuple[bytes, int | None]:
    """The response to a request, and where its JSON ends if binary data follow.

    Raises:
        RefusedError: an output is asked for that there is not, or in a form that there is not.
    """
    forms = {one.name: one.parameters for one in request.outputs}
    everything = _flag("parameters.binary_data_output", request.parameters, "binary_data_output", default=False)
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for output in chosen(columns, [*forms]):
        about = columns.tensor(output)
        if parameters := forms.get(output):
            binary = _flag(f"outputs.{output}", parameters, "binary_data", default=everything)
        else:
            binary = everything
        if binary:
            tail.append(to_bytes(columns[output]))
            about["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            about["data"] = columns.elements(output)
        outputs.append(about)
    response: dict[str, Any] = {"model_name": name, "model_version": version}
    if request.id:
        response["id"] = request.id
    response["outputs"] = outputs
    head = _encoder.encode(response)
    return (b"".join([head, *tail]), len(head)) if tail else (head, None)


def _flag(where: str, parameters: Parameters, name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RefusedError(f"{where}.{name}: expected true or false, and got {value!r:.40}.")
    return value


def metadata(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Tensors as a model's metadata has them."""
    return [tensor._asdict() for tensor in tensors]


def sample(columns: Columns) -> dict[str, Any]:
    """An inference request with these columns."""
    inputs = [
        {"name": name, "datatype": datatype(array), "shape": list(array.shape), "data": blank(array).ravel().tolist()}
        for name, array in columns.items()
    ]
    return {"id": "1", "inputs": inputs}
