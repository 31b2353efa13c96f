"""The routes that tell of the service and its models: health, metadata, the repository, schemas."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response

from serving import protocol
from serving.errors import OverloadedError, RefusedError
from serving.http import read
from serving.models import Model
from serving.openapi import NAMED
from serving.schemas import (
    ERRORS,
    INDEX_BODY,
    LOAD_BODY,
    UNLOAD_BODY,
    Index,
    Live,
    Metadata,
    ModelReady,
    Ready,
    Server,
    Usage,
)
from serving.service import Service
from serving.signature import Signature

Name = Annotated[str, Path(description=NAMED)]
Version = Annotated[str, Path(description="A version that the model's metadata list.")]
_BODY = 65_536
"""Bytes that these routes take."""


class IndexBody(msgspec.Struct):
    """Which models to list."""

    ready: bool = False


class LoadBody(msgspec.Struct):
    """How to load."""

    parameters: dict[str, Any] = {}


def router(service: Service, version: str) -> APIRouter:
    """Every route of this kind; ``version`` is the server's own."""
    found = APIRouter(responses=ERRORS)
    _health(found, service)
    _metadata(found, service, version)
    _repository(found, service)
    return found


def _health(found: APIRouter, service: Service) -> None:
    @found.get("/v2/health/live", tags=["health"], response_model=Live)
    async def live() -> Response:
        """Whether the process answers."""
        return JSONResponse({"live": True})

    @found.get("/v2/health/ready", tags=["health"], response_model=Ready)
    async def ready() -> Response:
        """Whether the main fleet is in memory; where there is none, the forecaster."""
        if not service.repository.ready:
            raise OverloadedError(f"Not ready: {service.repository.main.reason}.")
        return JSONResponse({"ready": True})

    @found.get("/v2/models/{name:path}/versions/{version}/ready", tags=["health"], response_model=ModelReady)
    async def version_ready(name: Name, version: Version) -> Response:
        """Whether a version of a model answers."""
        await service.repository.get(name, version)
        return JSONResponse({"name": name, "ready": True})

    @found.get("/v2/models/{name:path}/ready", tags=["health"], response_model=ModelReady)
    async def model_ready(name: Name) -> Response:
        """Whether a model answers."""
        await service.repository.get(name)
        return JSONResponse({"name": name, "ready": True})


def _metadata(found: APIRouter, service: Service, version: str) -> None:
    @found.get("/v2", tags=["metadata"], response_model=Server)
    async def server() -> Response:
        """The server, its version and the protocol's extensions that it has."""
        return JSONResponse({"name": protocol.NAME, "version": version, "extensions": list(protocol.EXTENSIONS)})

    @found.get("/v2/models/{name:path}/versions/{version}", tags=["metadata"], response_model=Metadata)
    async def version_metadata(name: Name, version: Version) -> Response:
        """A version of a model: its inputs and outputs."""
        return JSONResponse(metadata(service, await service.repository.get(name, version), name))

    @found.get("/v2/models/{name:path}", tags=["metadata"], response_model=Metadata)
    async def model_metadata(name: Name) -> Response:
        """A model: its versions, inputs and outputs, and what the columns of its features are."""
        return JSONResponse(metadata(service, await service.repository.get(name), name))

    @found.get("/api/v1/service/{name:path}", tags=["score"], response_model=Usage)
    async def usage(name: Name, request: Request) -> Response:
        """A model's score URL, its schema, and a sample call."""
        model = await service.repository.get(name)
        url = str(request.url_for("usage", name=name)) + "/score"
        return Response(msgspec.json.encode(described(model, name, url)), media_type="application/json")


def _repository(found: APIRouter, service: Service) -> None:
    repository = service.repository

    @found.post("/v2/repository/index", tags=["repository"], response_model=list[Index], openapi_extra=INDEX_BODY)
    async def index(request: Request) -> Response:
        """Every model, its version and state; with `{"ready": true}` those that answer."""
        body = await _body(request, IndexBody)
        await repository.scan()
        return Response(msgspec.json.encode(repository.index(ready=body.ready)), media_type="application/json")

    @found.post("/v2/repository/models/{name:path}/load", tags=["repository"], openapi_extra=LOAD_BODY)
    async def load(name: Name, request: Request) -> dict[str, str]:
        """Load a fleet or the forecaster anew from its file, or let a device's model be asked for again."""
        await repository.load(name, (await _body(request, LoadBody)).parameters)
        return {}

    @found.post("/v2/repository/models/{name:path}/unload", tags=["repository"], openapi_extra=UNLOAD_BODY)
    async def unload(name: Name, request: Request) -> dict[str, str]:
        """Let a fleet go from memory, or another model from being asked for."""
        await _body(request, LoadBody)
        await repository.unload(name)
        return {}


def metadata(service: Service, model: Model, name: str) -> dict[str, Any]:
    """What the protocol tells of a model."""
    return {
        "name": name,
        "versions": service.repository.versions(name),
        "platform": model.platform,
        "inputs": protocol.metadata([field.tensor for field in model.signature.fields]),
        "outputs": protocol.metadata(model.outputs),
        "parameters": {"features": _parts(model.signature), "max_rows": model.signature.max_rows},
    }


def described(model: Model, name: str, url: str) -> dict[str, Any]:
    """What a person needs to call a model."""
    signature: Signature = model.signature
    return {
        "name": name,
        "version": model.version,
        "score_url": url,
        "signature": [
            {"name": field.name, "datatype": field.datatype, "shape": field.tensor.shape, "columns": field.parts}
            for field in signature.fields
        ],
        "max_rows": signature.max_rows,
        "sample": {"data": signature.data},
        "sample_v2": protocol.sample(signature.sample),
    }


def _parts(signature: Signature) -> list[str]:
    """What the columns of its tensors are."""
    return [part for field in signature.fields for part in field.parts]


async def _body(request: Request, kind: Any) -> Any:
    """The body of a request, which may be empty.

    Raises:
        RefusedError: it is not what the route takes.
    """
    body = await read(dict(request.scope["headers"]), request.receive, _BODY)
    if not body:
        return kind()
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RefusedError(f"The body is not what is taken here: {error}.") from error
