"""The routes of jobs: batch scoring asked for over HTTP, within folders that the operator has allowed.

``POST /jobs`` answers 202 with the job's address; what runs it is handed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from fastapi import APIRouter, HTTPException, Query, Response
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from scorers.errors import ConfigError, InputError, TidewatchError, UnavailableError
from serving.formats import moment

_PATTERN = "*?["

T = TypeVar("T")

JobId = Annotated[str, InPath(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Its id.")]
Fields = dict[str, Any]
"""A job's status: ``id``, ``state``, ``arguments``, ``done``, ``total``, ``counts`` and more."""


class Asked(BaseModel):
    """What a job is to do."""

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        json_schema_extra={
            "examples": [
                {"in": "/data/october", "out": "/data/scored", "devices": ["pump-*"], "from": "2026-10-01T00:00:00Z"}
            ]
        },
    )

    source: str = Field(
        alias="in", min_length=1, max_length=1000, description="File, folder, pattern or s3:// address."
    )
    target: str = Field(alias="out", min_length=1, max_length=1000, description="Folder or s3://.")
    devices: list[Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^@]")]] = Field(
        default=[], max_length=10_000, description="Names and patterns; all by default."
    )
    since: str | int | None = Field(default=None, alias="from", description="Windows ending at or after this time.")
    until: str | int | None = Field(default=None, alias="to", description="Windows ending before this time.")
    id: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="Name of the job; the same again goes on where it stopped.",
    )


@dataclass(frozen=True, slots=True)
class Order:
    """A job that may be run: addresses within the roots, times in epoch ms."""

    source: str
    target: str
    devices: tuple[str, ...]
    since: int | None
    until: int | None
    id: str | None


class Work(Protocol):
    """What runs jobs. Every method may block, and may raise the errors of ``scorers.errors``."""

    def submit(self, order: Order) -> Fields:
        """Take a job on; its status."""

    def list(self) -> list[Fields]:
        """All jobs, the oldest first."""

    def get(self, name: str) -> Fields:
        """One job; InputError where there is none."""

    def cancel(self, name: str) -> Fields:
        """Ask a job to stop; ConfigError where it is over."""


@dataclass(frozen=True, slots=True)
class Roots:
    """Where jobs may read and write: absolute folders, and ``s3://bucket/prefix``."""

    read: tuple[str, ...]
    write: tuple[str, ...]

    def check(self, asked: Asked) -> tuple[str, str]:
        """Both addresses, without links and dots.

        Raises:
            HTTPException: 403, one lies elsewhere; 422, it is none.
        """
        return _within(asked.source, self.read, "in", "batch_in"), _within(asked.target, self.write, "out", "batch_out")


def _within(address: str, roots: Sequence[str], field: str, setting: str) -> str:
    """The address, resolved, if it lies in one of ``roots``."""
    parts = urlsplit(address) if "://" in address else None
    if "\0" in address or (parts and parts.scheme not in {"s3", "file"}):
        raise HTTPException(422, f"{field}: it is a path, or begins with file:// or s3://.")
    found = _s3(address) if parts and parts.scheme == "s3" else _local(unquote(parts.path) if parts else address)
    if found is None or not any(_under(found, root) for root in roots):
        raise HTTPException(403, f"{field}: it lies outside what serving.{setting} allows.")
    return found


def _under(address: str, root: str) -> bool:
    root = root.rstrip("/") if root.startswith("s3://") else str(Path(root).expanduser().resolve())
    return address == root or address.startswith(f"{root.rstrip('/')}/")


def _s3(address: str) -> str | None:
    steps = address.removeprefix("s3://").split("/")
    return None if {".", ".."} & set(steps) or "" in steps[:-1] else address


def _local(path: str) -> str | None:
    """The path without links; behind a pattern's first mark nothing leads up."""
    if not path.startswith("/"):
        return None
    steps = Path(path).parts
    fixed = next((at for at, step in enumerate(steps) if any(mark in step for mark in _PATTERN)), len(steps))
    if ".." in steps[fixed:]:
        return None
    try:
        return str(Path(*steps[:fixed]).resolve().joinpath(*steps[fixed:]))
    except (OSError, RuntimeError):
        return None


def router(work: Work, roots: Roots) -> APIRouter:
    """The routes, to be put into an app."""
    routes = APIRouter(prefix="/jobs", tags=["jobs"])
    unknown: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such job."}}

    @routes.post(
        "",
        status_code=202,
        summary="Score recordings in batch",
        responses={
            403: {"description": "Outside what is allowed."},
            409: {"description": "The id is taken."},
        },
    )
    async def submit(asked: Asked, response: Response) -> Fields:
        source, target = roots.check(asked)
        since, until = _moment(asked.since, "from"), _moment(asked.until, "to")
        if since is not None and until is not None and since >= until:
            raise HTTPException(422, "to: it must be later than from.")
        order = Order(source, target, tuple(asked.devices), since, until, asked.id)
        status = await _done(lambda: work.submit(order), {ConfigError: 409, InputError: 422})
        response.headers["location"] = f"/jobs/{status['id']}"
        return status

    @routes.get("", summary="Jobs, the newest first")
    async def jobs(
        state: Annotated[str | None, Query(description="Only those in this state.", max_length=20)] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
        before: Annotated[str | None, Query(description="`next` of the page before.", max_length=100)] = None,
    ) -> Fields:
        found = [job for job in reversed(await _done(work.list, {})) if state is None or job["state"] == state]
        names = [job["id"] for job in found]
        if before is not None and before not in names:
            raise HTTPException(422, "before: there is no such job any more; leave it out to begin.")
        begin = 0 if before is None else names.index(before) + 1
        page = found[begin : begin + limit]
        return {"jobs": page, "next": page[-1]["id"] if page and begin + limit < len(found) else None}

    @routes.get("/{job}", summary="How a job is", responses=unknown)
    async def job(job: JobId) -> Fields:
        return await _done(lambda: work.get(job), {InputError: 404})

    @routes.post(
        "/{job}/cancel",
        status_code=202,
        summary="Stop a job",
        responses=unknown | {409: {"description": "It is over."}},
    )
    async def cancel(job: JobId) -> Fields:
        return await _done(lambda: work.cancel(job), {InputError: 404, ConfigError: 409})

    return routes


async def _done(call: Callable[[], T], codes: dict[type[TidewatchError], int]) -> T:
    """What a call gives, its errors as answers."""
    try:
        return await run_in_threadpool(call)
    except UnavailableError as error:
        raise HTTPException(503, str(error), {"Retry-After": "5"}) from error
    except TidewatchError as error:
        code = next((code for kind, code in codes.items() if isinstance(error, kind)), None)
        if code is None:
            raise
        raise HTTPException(code, str(error)) from error


def _moment(given: str | int | None, field: str) -> int | None:
    return moment(None if given is None else str(given), field)
