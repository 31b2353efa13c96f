"""What goes in and comes out of the service, as JSON Schema."""

from typing import Any, Literal

from pydantic import BaseModel

from scorers.forecast.labels import CLASSES
from serving import forecasts
from serving.models import OUTPUTS
from serving.tensors import DTYPES
from stream.decode import EARLIEST, LATEST

Document = dict[str, Any]


class Live(BaseModel):
    """The process answers."""

    live: bool


class Ready(BaseModel):
    """The main fleet is in memory, or where there is none the forecaster."""

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


def body(schema: Document, *, required: bool, examples: Document | None = None) -> Document:
    """A request's body in JSON."""
    return {"required": required, "content": {"application/json": {"schema": schema} | shown(examples)}}


def shown(examples: Document | None) -> Document:
    """Examples by name, if there are any."""
    return {"examples": examples} if examples else {}


INDEX_BODY = {"requestBody": body({"type": "object", "properties": {"ready": {"type": "boolean"}}}, required=False)}
LOAD_BODY = {
    "requestBody": body(
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
    "requestBody": body({"type": "object", "properties": {"parameters": {"type": "object"}}}, required=False)
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
    "HourForecast": {
        "type": "object",
        "required": ["server", "hour", "load", *CLASSES, "basis", "model_version"],
        "properties": {
            "server": {"type": "string"},
            "hour": {"type": "integer", "description": "Epoch ms at which the hour begins."},
            "load": {"enum": list(CLASSES), "description": "The likeliest class of the hour's peak load."},
            **{name: {"type": "number", "minimum": 0, "maximum": 1} for name in CLASSES},
            "basis": {
                "enum": ["own", "fleet"],
                "description": "`fleet` where the row had no history, and got the fleet's at that hour of the week.",
            },
            "model_version": {"type": "string"},
        },
    },
    "Answer": {
        "type": "object",
        "required": ["model_name", "model_version", "results"],
        "properties": {
            "id": {"type": "string"},
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "results": {
                "type": "array",
                "items": {
                    "anyOf": [{"$ref": "#/components/schemas/Result"}, {"$ref": "#/components/schemas/HourForecast"}]
                },
            },
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
                        "name": {"enum": [tensor.name for tensor in (*OUTPUTS, *forecasts.OUTPUTS)]},
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
