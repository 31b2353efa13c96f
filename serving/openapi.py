"""The service as OpenAPI: schemas, examples of the models that are there, and the routes that are bare ASGI."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from serving import protocol
from serving.schemas import ERRORS, SCHEMAS, Document, body, shown
from serving.service import Service

NAMED = "A fleet's name, a device's, `FLEET/DEVICE`, or the forecaster's."


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
    found["paths"] |= _hot(dict(_examples(service)))
    return found


def _examples(service: Service) -> Iterator[tuple[str, tuple[Document, Any]]]:
    """By a model's name an inference request and the data of a call: a device's, and the forecaster's."""
    for hosted in service.repository.kept():
        models = [(name, hosted.device(name, name)) for name in hosted.devices[:1]] or [
            (hosted.whole.name, hosted.whole)
        ]
        for name, model in models:
            if model is not None:
                yield name, (protocol.sample(model.signature.sample), model.signature.data)


def _hot(examples: dict[str, tuple[Document, Any]]) -> Document:
    names = {name: {"value": name} for name in examples}
    requests = {name: {"value": request} for name, (request, _) in examples.items()}
    data = {name: {"value": data} for name, (_, data) in examples.items()}
    calls = {name: {"value": {"data": data}} for name, (_, data) in examples.items()}
    named = {name: {"value": {"model_name": name, "data": data}} for name, (_, data) in examples.items()}
    infer = _operation("infer", "Score tensors, in JSON or binary.", "InferenceRequest", "InferenceResponse", requests)
    binary = {"schema": {"type": "string", "format": "binary"}}
    infer["responses"]["200"]["content"]["application/octet-stream"] = binary
    infer["responses"]["200"]["headers"] = {
        "Inference-Header-Content-Length": {
            "schema": {"type": "integer"},
            "description": "Bytes of JSON before the data.",
        }
    }
    name, version = _parameter("path", "name", NAMED, names), _parameter("path", "version", "A version.")
    call = _operation("score", "Score rows, columns, windows or readings.", "Call", "Answer", named)
    service = _operation("score", "Score rows, columns, windows or readings.", "ServiceCall", "Answer", calls)
    get = _operation("score", "Score rows that stand in the query.", None, "Answer")
    get["parameters"] = [
        _parameter("query", "model_name", NAMED, names),
        {
            "name": "data", "in": "query", "required": True, "description": "JSON, as of `POST /score`.",
            "content": {"application/json": {"schema": _reference("Data")} | shown(data)},
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


def _parameter(where: str, name: str, description: str, examples: Document | None = None) -> Document:
    found: Document = {
        "name": name, "in": where, "required": True, "description": description, "schema": {"type": "string"},
    }  # fmt: skip
    return found | shown(examples)


def _refusals() -> Document:
    """What any request may be refused with."""
    return {
        str(status): {
            "description": about["description"],
            "content": {"application/json": {"schema": _reference("Error")}},
        }
        for status, about in ERRORS.items()
    }


def _operation(tag: str, summary: str, given: str | None, answer: str, examples: Document | None = None) -> Document:
    ok = {"description": "Scored.", "content": {"application/json": {"schema": _reference(answer)}}}
    found: Document = {"tags": [tag], "summary": summary, "responses": {"200": ok, **_refusals()}}
    return (
        found if given is None else found | {"requestBody": body(_reference(given), required=True, examples=examples)}
    )
