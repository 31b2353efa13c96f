"""The Open Inference Protocol over gRPC, in the event loop of the rest.

The messages are made from ``inference.binpb`` in a pool of their own: the protocol's clients register the same names in
protobuf's common one, and both may be in one process.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from serving import protocol
from serving.errors import RefusedError
from serving.rest import metadata
from serving.service import Service
from serving.tensors import Array, Columns, Tensor, datatype, from_bytes, from_items, to_bytes

log = logging.getLogger(__name__)

SERVICE = "inference.GRPCInferenceService"
CALLS = (
    "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "RepositoryIndex",
    "RepositoryModelLoad", "RepositoryModelUnload",
)  # fmt: skip
"""Every call of the protocol."""
_CODES = {404: grpc.StatusCode.NOT_FOUND, 413: grpc.StatusCode.RESOURCE_EXHAUSTED, 503: grpc.StatusCode.UNAVAILABLE}
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
"""Where elements are that are not raw."""

Reply = dict[str, Any]
Answer = Callable[[Any], Awaitable[Reply]]


def messages() -> dict[str, Any]:
    """The classes of the protocol's messages, by name."""
    files = descriptor_pb2.FileDescriptorSet.FromString((Path(__file__).parent / "inference.binpb").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    names = [message.name for file in files.file for message in file.message_type]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}")) for name in names}


@dataclass(frozen=True, slots=True)
class Listener:
    """Where to listen; TLS by the bytes of a key and of a chain of certificates."""

    address: str
    key: bytes | None = None
    chain: bytes | None = None
    max_bytes: int = 64 * 2**20
    streams: int = 256
    """Calls of one connection at a time; more wait."""
    header_s: float = 10.0
    """A client that takes longer to begin is cut off."""
    drain_s: float = 10.0
    """Calls under way have so long to end."""
    interceptors: tuple[Any, ...] = ()


@asynccontextmanager
async def listening(service: Service, listener: Listener, version: str) -> AsyncIterator[int]:
    """The port that answers while the context lasts; then requests under way are ended, and no others taken.

    Raises:
        OSError: the address is taken.
    """
    options = [
        ("grpc.max_receive_message_length", listener.max_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", listener.streams),
        ("grpc.server_handshake_timeout_ms", round(1000 * listener.header_s)),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(options=options, interceptors=listener.interceptors)
    server.add_generic_rpc_handlers((_handler(Calls(service, version)),))
    try:
        if listener.key is not None and listener.chain is not None:
            secret = grpc.ssl_server_credentials([(listener.key, listener.chain)])
            port = server.add_secure_port(listener.address, secret)
        else:
            port = server.add_insecure_port(listener.address)
    except RuntimeError as error:
        raise OSError(f"gRPC cannot listen on {listener.address} ({error})") from error
    await server.start()
    try:
        yield port
    finally:
        await server.stop(listener.drain_s)


def _handler(calls: "Calls") -> Any:
    known = messages()
    methods = {}
    for name in CALLS:
        request, response = known[f"{name}Request"], known[f"{name}Response"]
        methods[name] = grpc.unary_unary_rpc_method_handler(
            _answering(getattr(calls, name), response), request.FromString, response.SerializeToString
        )
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def _answering(answer: Answer, response: Any) -> Callable[[Any, Any], Awaitable[Any]]:
    async def handle(request: Any, context: Any) -> Any:
        try:
            return response(**await answer(request))
        except RefusedError as error:
            await context.abort(_CODES.get(error.status, grpc.StatusCode.INVALID_ARGUMENT), str(error))
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("a call was not answered")
            await context.abort(grpc.StatusCode.INTERNAL, "The service is at fault; its log says how.")

    return handle


class Calls:
    """The protocol's calls, under its own names; a message in, the fields of a message out."""

    def __init__(self, service: Service, version: str) -> None:
        self._service = service
        self._version = version

    async def ServerLive(self, _: Any) -> Reply:  # noqa: N802 - the protocol's name, as those below
        """Whether the process answers."""
        return {"live": True}

    async def ServerReady(self, _: Any) -> Reply:  # noqa: N802
        """Whether the main fleet is in memory, and the service stays."""
        return {"ready": self._service.repository.ready and not self._service.leaving}

    async def ModelReady(self, request: Any) -> Reply:  # noqa: N802
        """Whether a model answers."""
        await self._service.repository.get(request.name, request.version)
        return {"ready": True}

    async def ServerMetadata(self, _: Any) -> Reply:  # noqa: N802
        """The server."""
        return {"name": protocol.NAME, "version": self._version, "extensions": protocol.EXTENSIONS}

    async def ModelMetadata(self, request: Any) -> Reply:  # noqa: N802
        """A model's inputs and outputs."""
        model = await self._service.repository.get(request.name, request.version)
        found = metadata(self._service, model, request.name)
        return {name: found[name] for name in ("name", "versions", "platform", "inputs", "outputs")}

    async def ModelInfer(self, request: Any) -> Reply:  # noqa: N802
        """Score tensors; raw ones are answered raw."""
        model = await self._service.model(request.model_name, request.model_version)
        found = await self._service.infer(model, inputs(request))
        wanted = [one.name for one in request.outputs]
        raw = bool(request.raw_input_contents)
        outputs, contents = [], []
        for name in protocol.chosen(found, wanted):
            array = found[name]
            about: dict[str, Any] = {"name": name, "datatype": datatype(array), "shape": array.shape}
            if raw:
                contents.append(to_bytes(array))
            else:
                about["contents"] = _contents(array)
            outputs.append(about)
        reply: Reply = {"model_name": request.model_name, "model_version": model.version, "id": request.id}
        return reply | {"outputs": outputs, "raw_output_contents": contents}

    async def RepositoryIndex(self, request: Any) -> Reply:  # noqa: N802
        """Every model, or those that answer."""
        await self._service.repository.scan()
        return {"models": self._service.repository.index(ready=request.ready)}

    async def RepositoryModelLoad(self, request: Any) -> Reply:  # noqa: N802
        """Load a model."""
        await self._service.repository.load(request.model_name, dict.fromkeys(request.parameters))
        return {}

    async def RepositoryModelUnload(self, request: Any) -> Reply:  # noqa: N802
        """Unload a model."""
        await self._service.repository.unload(request.model_name)
        return {}


def inputs(request: Any) -> Columns:
    """The tensors of a request.

    Raises:
        RefusedError: they are not what the protocol asks for.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise RefusedError(
            f"raw_input_contents: expected {len(request.inputs)}, one for each input, and got {len(raw)}."
        )
    found: Columns = {}
    for at, one in enumerate(request.inputs):
        tensor = Tensor(one.name, one.datatype, tuple(one.shape))
        if one.name in found:
            raise RefusedError(f"{one.name:.80}: there are two inputs of this name.")
        if raw and one.HasField("contents"):
            raise RefusedError(f"{one.name:.80}: expected contents or raw_input_contents, and got both.")
        found[one.name] = from_bytes(tensor, raw[at]) if raw else _items(tensor, one.contents)
    return found


def _items(tensor: Tensor, contents: Any) -> Array:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        return from_items(tensor, ())
    return from_items(tensor, getattr(contents, field))


def _contents(array: Array) -> dict[str, Any]:
    flat = array.ravel().tolist()
    kind = datatype(array)
    return {_CONTENTS[kind]: [item.encode() for item in flat] if kind == "BYTES" else flat}
