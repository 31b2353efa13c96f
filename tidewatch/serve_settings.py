"""What a person can set about `tidewatch serve`."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from tidewatch.serve_guard_settings import Guarded

_Folder = Annotated[Path, AfterValidator(Path.expanduser)]
_Port = Annotated[int, Field(ge=0, le=65_535)]
_Share = Annotated[float, Field(ge=0, le=1)]


class Serving(Guarded):
    """Scores over HTTP and gRPC: `tidewatch serve`. The main fleet is `worker.fleet`."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on; `0.0.0.0` is all of them.")
    port: _Port = Field(default=8000, description="Port of HTTP.")
    grpc_port: _Port = Field(default=8001, description="Port of gRPC; 0: none.")
    name: str = Field(default="fleet", pattern=r"^[A-Za-z0-9._-]{1,100}$", description="What the main fleet is called.")
    forecaster: str = Field(
        default="load",
        pattern=r"^[A-Za-z0-9._-]{0,100}$",
        description="What the load forecaster is called, `models/forecaster.twf` in `load.folder`; empty: it is not "
        "served.",
    )
    folder: _Folder = Field(
        default=Path("var/fleets"),
        description="Other fleets, each a file `NAME.arrow`; one is loaded when it is first asked for.",
    )
    memory_mb: int = Field(
        default=1024, ge=0, description="Megabytes those may take; the one that was asked for longest ago leaves."
    )
    look_s: float = Field(
        default=1.0, ge=0.001, le=3600, description="How often the files are looked at; a new one takes over at once."
    )
    max_rows: int = Field(default=100_000, ge=1, description="Rows, windows or readings that a request may have.")
    delay_ms: float = Field(
        default=1.0,
        ge=0,
        le=1000,
        description="The longest that a request waits for others to be scored with; alone it does not wait.",
    )
    challenger: _Folder = Field(
        default=Path("var/challenger.arrow"),
        description="File of a fleet that competes with the main one, if there is one.",
    )
    canary: _Share = Field(
        default=0.0,
        description="Share of requests, 0 to 1, that the challenger answers; those that name a version are not.",
    )
    shadow: _Share = Field(
        default=0.0,
        description="Share of requests, 0 to 1, that it scores too without answering; differences are logged.",
    )
