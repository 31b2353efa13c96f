"""The service as OpenAPI: schemas, examples of the models that are there, and the routes that are bare ASGI."""

from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from serving import protocol
from serving.models import OUTPUTS
from serving.service import Service
from serving.tensors import DTYPES
from stream.decode import EARLIEST, LATEST

Document = dict[str, Any]


class Live(BaseModel):
    """The process answers."""

    live: bool


class Ready(BaseModel):
    """The main fleet is in memory."""

    ready: bool


class ModelReady(BaseModel):
    """A model answers."""

    name: str
    ready: bool


class Server(BaseModel):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """A tensor; -1 is a dimension of any size."""

    name: str
    datatype: str
    shape: list[int]


class About(BaseModel):
    """More about a model."""

    features: list[str]
    max_rows: int


class Metadata(BaseModel):
    """A model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: About


class Index(BaseModel):
    """A model of the repository."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class FieldSchema(BaseModel):
    """A field of a request."""

    name: str
    datatype: str
    shape: list[int]
    columns: list[str]


class Usage(BaseModel):
    """How to call a model."""

    name: str
    version: str
    score_url: str
    signature: list[FieldSchema]
    max_rows: int
    sample: dict[str, Any]
    sample_v2: dict[str, Any]


class Error(BaseModel):
    """What was wrong, and what was expected."""

    error: str


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "The request is not what the signature or the protocol asks for."},
    401: {"model": Error, "description": "No key, or one that is not in force."},
    403: {"model": Error, "description": "The key has not the scope."},
    404: {"model": Error, "description": "There is no such thing."},
    408: {"model": Error, "description": "The client took too long."},
    413: {"model": Error, "description": "More rows or bytes than are taken."},
    422: {
        "model": Error,
        "description": "A value that this route cannot take, such as no moment, or no cursor of its.",
    },
    421: {"model": Error, "description": "A request for another host."},
    429: {"model": Error, "description": "Too many requests of this caller; try again after `Retry-After` seconds."},
    503: {"model": Error, "description": "Not now; try again after `Retry-After` seconds."},
    504: {"model": Error, "description": "It took too long."},
}


def _body(schema: Document, *, required: bool, example: Any = None) -> Document:
    media: Document = {"schema": schema}
    if example is not None:
        media["example"] = example
    return {"required": required, "content": {"application/json": media}}


INDEX_BODY = {"requestBody": _body({"type": "object", "properties": {"ready": {"type": "boolean"}}}, required=False)}
LOAD_BODY = {
    "requestBody": _body(
        {
            "type": "object",
            "properties": {
                "parameters": {
                    "type": "object",
                    "propertyNames": {"not": {"pattern": "^file:"}},
                    "description": "`config` and whatever else a client sends is heard; a `file:` is refused.",
                }
            },
        },
        required=False,
    )
}
UNLOAD_BODY = {
    "requestBody": _body({"type": "object", "properties": {"parameters": {"type": "object"}}}, required=False)
}

_NUMBER: Document = {"type": ["number", "null"]}
_MOMENT: Document = {"type": "integer", "minimum": EARLIEST, "exclusiveMaximum": LATEST}
_ROWS: Document = {"type": "array", "minItems": 1, "items": {"type": "array", "minItems": 1, "items": _NUMBER}}
_PARAMETERS: Document = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
_METRIC: Document = {
    "type": "object",
    "required": ["count"],
    "additionalProperties": False,
    "properties": {
        "count": {"type": "integer", "minimum": 0, "maximum": 2**53},
        **dict.fromkeys(("mean", "std", "min", "max", "last", "sum"), _NUMBER),
    },
}
_WINDOWS: Document = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["window_end", "metrics"],
        "additionalProperties": False,
        "properties": {
            "device_id": {"type": "string"},
            "window_start": _MOMENT,
            "window_end": _MOMENT,
            "count": {"type": "integer", "minimum": 0, "maximum": 2**53},
            "metrics": {"type": "object", "minProperties": 1, "additionalProperties": _METRIC},
        },
    },
}
_READINGS: Document = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["ts", "values"],
        "additionalProperties": False,
        "properties": {
            "device_id": {"type": "string"},
            "ts": {"anyOf": [_MOMENT, {"type": "string", "format": "date-time"}]},
            "values": {"type": "object", "minProperties": 1, "additionalProperties": _NUMBER},
        },
    },
}
_COLUMNS: Document = {
    "type": "object",
    "minProperties": 1,
    "not": {"anyOf": [{"required": ["windows"]}, {"required": ["readings"]}]},
    "additionalProperties": {
        "anyOf": [
            {"type": "array", "minItems": 1, "items": _NUMBER},
            {"type": "array", "minItems": 1, "items": {"type": "string"}},
            _ROWS,
        ]
    },
}


def _only(name: str, schema: Document) -> Document:
    return {"type": "object", "required": [name], "additionalProperties": False, "properties": {name: schema}}


SCHEMAS: Document = {
    "Data": {"anyOf": [_ROWS, _COLUMNS, _only("windows", _WINDOWS), _only("readings", _READINGS)]},
    "Call": {
        "type": "object",
        "required": ["model_name", "data"],
        "properties": {
            "model_name": {"type": "string"},
            "id": {"type": "string", "maxLength": 1000},
            "data": {"$ref": "#/components/schemas/Data"},
        },
    },
    "ServiceCall": {
        "type": "object",
        "required": ["data"],
        "properties": {"id": {"type": "string", "maxLength": 1000}, "data": {"$ref": "#/components/schemas/Data"}},
    },
    "Result": {
        "type": "object",
        "required": ["device_id", "state", "decision", "score", "anomaly", "contributors", "model_version"],
        "properties": {
            "device_id": {"type": ["string", "null"]},
            "state": {"enum": ["scored", "learning"]},
            "decision": _NUMBER,
            "score": {"type": ["number", "null"], "minimum": 0, "maximum": 100},
            "severity": _NUMBER,
            "anomaly": {"type": "boolean"},
            "contributors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["feature", "share", "actual", "typical"],
                    "properties": {
                        "feature": {"type": "string"},
                        "share": {"type": "number"},
                        "actual": _NUMBER,
                        "typical": _NUMBER,
                    },
                },
            },
            "model_version": {"type": ["string", "null"]},
        },
    },
    "Answer": {
        "type": "object",
        "required": ["model_name", "model_version", "results"],
        "properties": {
            "id": {"type": "string"},
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "results": {"type": "array", "items": {"$ref": "#/components/schemas/Result"}},
        },
    },
    "InferenceRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "maxLength": 1000},
            "parameters": _PARAMETERS,
            "inputs": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["name", "datatype", "shape", "data"],
                    "properties": {
                        "name": {"type": "string"},
                        "datatype": {"enum": list(DTYPES)},
                        "shape": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
                        },
                        "parameters": _PARAMETERS,
                        "data": {"type": "array"},
                    },
                },
            },
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": {"enum": [tensor.name for tensor in OUTPUTS]},
                        "parameters": _PARAMETERS,
                    },
                },
            },
        },
    },
    "InferenceResponse": {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "id": {"type": "string"},
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name", "datatype", "shape"],
                    "properties": {
                        "name": {"type": "string"},
                        "datatype": {"enum": list(DTYPES)},
                        "shape": {"type": "array", "items": {"type": "integer"}},
                        "data": {"type": "array"},
                        "parameters": _PARAMETERS,
                    },
                },
            },
        },
    },
}


def document(app: FastAPI, service: Service) -> Document:
    """The OpenAPI document; its examples are of models that are there."""
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path in found["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)  # FastAPI's own, which is 400 here
            operation["responses"] = _refusals() | operation["responses"]
    schemas |= SCHEMAS
    found["paths"] |= _hot(_example(service))
    return found


def _example(service: Service) -> tuple[str, Document, Any]:
    """A model's name, an inference request and the data of a call."""
    hosted = service.repository.main.hosted
    if hosted is None or not len(hosted.fleet):
        return (
            "pump-0001",
            {"inputs": [{"name": "features", "datatype": "FP64", "shape": [1, 5], "data": [1, 0.1, 0.9, 1.1, 10]}]},
            [[1, 0.1, 0.9, 1.1, 10]],
        )
    device = hosted.fleet.devices[0]
    model = hosted.device(device, device)
    sample = (model or hosted.whole).signature.sample
    return device, protocol.sample(sample), sample["features"].tolist()


def _hot(example: tuple[str, Document, Any]) -> Document:
    device, request, data = example
    infer = _operation(
        "metadata", "Score tensors, in JSON or binary.", _reference("InferenceRequest"), "InferenceResponse", request
    )
    infer["tags"] = ["infer"]
    binary = {"schema": {"type": "string", "format": "binary"}}
    infer["responses"]["200"]["content"]["application/octet-stream"] = binary
    infer["responses"]["200"]["headers"] = {
        "Inference-Header-Content-Length": {
            "schema": {"type": "integer"},
            "description": "Bytes of JSON before the data.",
        }
    }
    name, version = (
        _path("name", "A fleet's name, a device's, or `FLEET/DEVICE`.", device),
        _path("version", "A version."),
    )
    call = _operation(
        "score",
        "Score rows, columns, windows or readings.",
        _reference("Call"),
        "Answer",
        {"model_name": device, "data": data},
    )
    service = _operation(
        "score", "Score rows, columns, windows or readings.", _reference("ServiceCall"), "Answer", {"data": data}
    )
    get = _operation("score", "Score rows that stand in the query.", None, "Answer", None)
    get["parameters"] = [
        {"name": "model_name", "in": "query", "required": True, "schema": {"type": "string"}, "example": device},
        {
            "name": "data", "in": "query", "required": True, "description": "JSON, as of `POST /score`.",
            "content": {"application/json": {"schema": _reference("Data"), "example": data}},
        },
    ]  # fmt: skip
    return {
        "/v2/models/{name}/infer": {"post": infer | {"operationId": "infer", "parameters": [name]}},
        "/v2/models/{name}/versions/{version}/infer": {
            "post": infer | {"operationId": "infer_version", "parameters": [name, version]}
        },
        "/api/v1/service/{name}/score": {"post": service | {"operationId": "service_score", "parameters": [name]}},
        "/score": {"post": call | {"operationId": "score"}, "get": get | {"operationId": "score_query"}},
    }


def _reference(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _path(name: str, description: str, example: str | None = None) -> Document:
    found: Document = {
        "name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"},
    }  # fmt: skip
    return found if example is None else found | {"example": example}


def _refusals() -> Document:
    """What any request may be refused with."""
    return {
        str(status): {
            "description": about["description"],
            "content": {"application/json": {"schema": _reference("Error")}},
        }
        for status, about in ERRORS.items()
    }


def _operation(tag: str, summary: str, body: Document | None, answer: str, example: Any) -> Document:
    ok = {"description": "Scored.", "content": {"application/json": {"schema": _reference(answer)}}}
    found: Document = {"tags": [tag], "summary": summary, "responses": {"200": ok, **_refusals()}}
    return found if body is None else found | {"requestBody": _body(body, required=True, example=example)}
