"""Where data is: paths, ``file://`` and ``s3://``, through pyarrow's file systems.

Who may read and write a bucket is the environment's to say, as for every S3 client: ``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``AWS_PROFILE``, a machine's role. An address with a key is refused.
"""

import fnmatch
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from scorers.errors import ConfigError, InputError, UnavailableError
from scorers.whole import replacing

WILD = frozenset("*?[")
TIMEOUT_S = 10
CHUNK = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """A file, a folder or a pattern; ``endpoint`` is the address of an S3 server that is not Amazon's."""

    scheme: str
    path: str
    """With ``s3`` it begins with the bucket."""
    endpoint: str = ""

    @classmethod
    def of(cls, text: str, endpoint: str = "") -> "Place":
        """The place that a path or URI names.

        >>> Place.of("s3://bucket/a/b/").path
        'bucket/a/b'

        Raises:
            ConfigError: it is of another kind, or holds a secret.
        """
        if "://" not in text:
            return cls("file", str(Path(text).expanduser().absolute()))
        parts = urlsplit(text)
        if parts.username or parts.password or parts.query:
            raise ConfigError(
                f"The address {parts.scheme}://… holds a login or options; give those in the environment"
                " (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or as batch.s3_endpoint."
            )
        if parts.scheme == "file" and not parts.netloc:
            return cls("file", unquote(parts.path))
        if parts.scheme == "s3" and parts.netloc:
            return cls(
                "s3", f"{parts.netloc}/{text.removeprefix(f's3://{parts.netloc}').strip('/')}".rstrip("/"), endpoint
            )
        raise ConfigError(f"{text!r} is neither a path, nor file:///folder, nor s3://bucket/folder.")

    @property
    def local(self) -> bool:
        """Whether it is on a disk of this machine."""
        return self.scheme == "file"

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.path).name

    def __str__(self) -> str:
        return self.path if self.local else f"s3://{self.path}"

    def under(self, *names: str) -> "Place":
        """A place within."""
        return replace(self, path="/".join([self.path, *names]))

    def system(self) -> Any:
        """Pyarrow's file system for it."""
        if self.local:
            return pafs.LocalFileSystem()
        options: dict[str, Any] = {"request_timeout": TIMEOUT_S * 6, "connect_timeout": TIMEOUT_S}
        endpoint = self.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:
            scheme, _, host = endpoint.rpartition("://")
            options |= {"endpoint_override": host, "scheme": scheme or "https"}
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        return pafs.S3FileSystem(**options, **({"region": region} if region else {}))

    def exists(self) -> bool:
        """Whether there is a file or folder.

        Raises:
            UnavailableError: the disk or server does not answer.
        """
        with reported(self):
            return bool(self.system().get_file_info(self.path).type != pafs.FileType.NotFound)

    def files(self) -> list["Found"]:
        """The file itself, or those within the folder, or those that the pattern fits, by path.

        Names that begin with ``_`` or ``.`` are left out, with all that is in them.

        Raises:
            InputError: nothing is there.
            UnavailableError: the disk or server does not answer.
        """
        parts = self.path.split("/")
        fixed = next((at for at, part in enumerate(parts) if WILD & set(part)), len(parts))
        root, pattern = "/".join(parts[:fixed]) or "/", "/".join(parts[fixed:])
        with reported(self):
            system = self.system()
            info = system.get_file_info(root)
            if info.type == pafs.FileType.File:
                infos = [info]
            else:
                infos = system.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
        found = []
        for info in infos:
            within = info.path.removeprefix(root).strip("/")
            hidden = any(part.startswith(("_", ".")) for part in within.split("/"))
            fits = not pattern or _fits(within, pattern)
            if info.type == pafs.FileType.File and fits and not hidden:
                found.append(Found(replace(self, path=info.path), within or info.base_name, int(info.size)))
        if not found:
            raise InputError(f"There is nothing at {self}; name a file, a folder or a pattern.")
        return sorted(found, key=lambda file: file.place.path)


@dataclass(frozen=True, slots=True)
class Found:
    """A file: where it is, its path within what was asked for, and its bytes."""

    place: Place
    within: str
    size: int


def _fits(within: str, pattern: str) -> bool:
    """Whether a path fits a pattern part by part, or lies in a folder that does."""
    parts, wanted = within.split("/"), pattern.split("/")
    return len(parts) >= len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


@contextmanager
def reported(place: Place) -> Iterator[None]:
    """Turn what file systems raise into one sentence that names the place, and no secret."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"There is nothing at {place}; name a file, a folder or a pattern.") from error
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        hint = "see that it is there and may be used" if place.local else (
            "check the bucket, batch.s3_endpoint (or AWS_ENDPOINT_URL), AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )  # fmt: skip
        raise UnavailableError(f"{place} does not answer ({reason}); {hint}.") from error


@contextmanager
def fetched(place: Place, folder: Path) -> Iterator[Path]:
    """The file on a disk of this machine, under its own name; a copy of one from elsewhere, gone afterwards.

    Raises:
        InputError: it is not there.
        UnavailableError: the server does not answer.
    """
    if place.local:
        yield Path(place.path)
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with reported(place):
            pafs.copy_files(
                place.path, str(folder / place.name), place.system(), pafs.LocalFileSystem(), chunk_size=CHUNK
            )
        yield folder / place.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put(path: Path, place: Place) -> None:
    """Copy a file to where it is to be; it appears there whole.

    Raises:
        UnavailableError: the disk or server does not take it.
    """
    with reported(place):
        if not place.local:
            pafs.copy_files(str(path), place.path, pafs.LocalFileSystem(), place.system(), chunk_size=CHUNK)
            return
        target = Path(place.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as given, replacing(target) as file:
            shutil.copyfileobj(given, file, CHUNK)


def remove(place: Place) -> None:
    """Delete a file, if it is there."""
    with reported(place):
        if place.exists():
            place.system().delete_file(place.path)
