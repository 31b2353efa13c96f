"""What can be set of the service's keys, limits, state, jobs and collection: a part of the group ``serving``."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Folder = Annotated[Path, AfterValidator(Path.expanduser)]
Seconds = Annotated[float, Field(ge=0.001, le=31_536_000)]


class Guarded(BaseModel):
    """Who may call the service, how much, and what it keeps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: Folder = Field(
        default=Path("var/keys.json"),
        description="File with the hashes of keys; `tidewatch keys` makes it. Calls need a key where there is one in "
        "force, and wherever the service listens beyond loopback.",
    )
    tls_cert: Folder | None = Field(default=None, description="File with the TLS certificate and its chain, PEM.")
    tls_key: Folder | None = Field(default=None, description="File with the certificate's private key, PEM.")
    hosts: str = Field(
        default="",
        pattern=r"^[^\s]*$",
        description="Host names that requests may be for, separated by commas; empty: any, and on loopback without "
        "keys only this machine's own names.",
    )
    proxies: str = Field(
        default="",
        pattern=r"^[^\s]*$",
        description="Addresses of proxies whose `X-Forwarded-For` and `-Proto` are believed, separated by commas.",
    )
    cors: str = Field(
        default="",
        pattern=r"^[^\s]*$",
        description="Origins whose pages may call, such as `https://ops.example`, separated by commas; empty: none.",
    )
    body_mb: float = Field(default=8.0, gt=0, le=1024, description="Larger bodies are refused with 413, in megabytes.")
    header_s: Seconds = Field(default=10.0, description="A client that takes longer to send its headers is cut off.")
    body_s: Seconds = Field(default=30.0, description="The same for a body; 408.")
    request_s: Seconds = Field(default=60.0, description="What takes longer to answer ends with 504.")
    write_s: Seconds = Field(default=30.0, description="A client that takes no more of its answer so long is let go.")
    concurrency: int = Field(default=256, ge=1, description="Requests at work at a time; more get 503.")
    streams: int = Field(default=64, ge=1, description="Readers of `/stream` at a time; more get 503.")
    rate: float = Field(
        default=0.0, ge=0, description="Requests a second of one key, or address; more get 429. 0: any."
    )
    burst: int = Field(default=100, ge=1, description="So many may come at once before `rate` counts.")
    notice_s: float = Field(
        default=2.0,
        ge=0,
        le=300,
        description="On SIGTERM it goes on so long while `/v2/health/ready` says 503 and connections are given back.",
    )
    drain_s: Seconds = Field(default=30.0, description="Requests in flight have so long to finish after that.")
    batch_in: str = Field(
        default="",
        description="Folders and `s3://` prefixes that jobs may read, separated by commas; empty: no jobs over HTTP.",
    )
    batch_out: str = Field(default="", description="The same for what jobs may write.")
    batch_parallel: int = Field(default=1, ge=1, le=64, description="Jobs at work at a time; others wait.")
    collect: Literal["off", "jsonl", "parquet", "kafka"] = Field(
        default="off", description="Where inputs and predictions are collected."
    )
    collect_folder: Folder = Field(
        default=Path("var/collected"), description="Folder for `jsonl` and `parquet`, a folder a day in it."
    )
    collect_topic: str = Field(
        default="service.predictions", pattern=r"^[A-Za-z0-9._-]{1,200}$", description="Topic for `kafka`."
    )
    collect_share: float = Field(default=1.0, ge=0, le=1, description="Share of requests that is collected.")
    collect_queue: int = Field(
        default=10_000, ge=1, description="Requests that may wait; more are dropped, and counted."
    )
