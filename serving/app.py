"""The service as one FastAPI application: its routes, its documents, and what runs beside them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import fastapi_offline
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.routing import Match

from serving import http, openapi, rest
from serving.errors import OverloadedError, RefusedError
from serving.http import fault
from serving.service import Service

log = logging.getLogger(__name__)

ASSETS = Path(fastapi_offline.__file__).parent / "static"
"""Swagger UI and ReDoc, so that the documents need no network."""
PAGE = Path(__file__).parent / "documents.html"
"""Shows one of them, and asks for a key where the document needs one."""

Beside = Callable[[Service], AbstractAsyncContextManager[object]]
"""What runs while the application does, such as the gRPC server; the list may grow until it starts."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What an application is built of."""

    service: Service
    version: str
    """The server's."""
    max_bytes: int = 64 * 2**20
    """Bytes of a request's body."""
    look_s: float = 1.0
    """How often files of fleets are looked at."""
    routers: Sequence[APIRouter] = ()
    beside: Sequence[Beside] = ()


def build(parts: Parts) -> FastAPI:
    """The application; nothing is opened before it starts."""
    app = FastAPI(
        title="Tidewatch",
        version=parts.version,
        description="Scores of devices' windows: the Open Inference Protocol, version 2, and plain JSON.",
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # asks for a provider at every request
        lifespan=lambda _: _running(parts),
    )
    app.add_middleware(http.Fast, service=parts.service, max_bytes=parts.max_bytes)
    for router in (rest.router(parts.service, parts.version), *parts.routers):
        app.include_router(router)
    _documents(app, parts.service)
    _errors(app)
    return app


@asynccontextmanager
async def _running(parts: Parts) -> AsyncIterator[None]:
    service = parts.service
    await service.repository.look()
    await service.warm()
    async with AsyncExitStack() as stack:
        for beside in parts.beside:
            await stack.enter_async_context(beside(service))
        watch = asyncio.create_task(_watch(service, parts.look_s))
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
    await service.settled()
    service.batcher.close()


async def _watch(service: Service, look_s: float) -> None:
    while True:
        await asyncio.sleep(look_s)
        try:
            await service.repository.look()
        except Exception:
            log.exception("the fleets' files cannot be looked at")


def _documents(app: FastAPI, service: Service) -> None:
    app.mount("/assets", StaticFiles(directory=ASSETS), name="assets")
    app.openapi = lambda: openapi.document(app, service)  # type: ignore[method-assign]

    page = PAGE.read_text("utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page.replace("{script}", "swagger-ui-bundle.js"))

    @app.get("/redoc", include_in_schema=False)
    async def redoc() -> HTMLResponse:
        return HTMLResponse(page.replace("{script}", "redoc.standalone.js"))


def _errors(app: FastAPI) -> None:
    """Every error as the protocol's object."""

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        headers = {"retry-after": http.RETRY_S.decode()} if isinstance(error, OverloadedError) else None
        return _fault(str(error), error.status, headers)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == 405:  # noqa: PLR2004 - of HTTP
            headers["Allow"] = _allowed(app, request)
        return _fault(str(error.detail), error.status_code, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        told = "; ".join(f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg']}" for one in error.errors())
        return _fault(told, RefusedError.status)

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> Response:
        log.error("a request was not answered", exc_info=error)
        return _fault("The service is at fault; its log says how.", 500)


def _allowed(app: FastAPI, request: Request) -> str:
    """The methods of every route of a path; the router knows those of the first alone."""
    fitting = [route for route in app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in fitting for method in getattr(route, "methods", None) or ()}))


def _fault(said: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(fault(said), status, headers, media_type="application/json")
