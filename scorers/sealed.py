"""Sealed files: one row or more of arrays and a manifest, refused if a single byte is not what was written.

An Arrow IPC stream, its schema's metadata the manifest, followed by a trailer with the SHA-256 of everything before it.
Arrow readers stop at the end of the stream and do not mind the trailer.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from scorers.errors import ConfigError, ModelError

MAGIC = b"\nsha256:"
TRAILER = len(MAGIC) + 64


class Opened(NamedTuple):
    """What a sealed file holds."""

    facts: dict[str, Any]
    """Its manifest."""
    reader: pa.RecordBatchStreamReader


@dataclass(frozen=True, slots=True)
class Seal:
    """One kind of sealed files."""

    key: bytes
    """Of the manifest in the schema's metadata; the manifest has a ``format``, a number."""
    noun: str
    """What a file holds, for messages."""
    refusal: type[ModelError]
    newest: int
    oldest: int = 1

    def verify(self, path: Path, trailer: bytes, digest: str) -> None:
        """See that the trailer of a file fits the SHA-256 of the rest.

        Raises:
            ModelError: ``refusal``, with the fix.
        """
        if trailer[: len(MAGIC)] != MAGIC:
            raise self.refusal(f"{path} is cut short or no {self.noun}; copy it again, or train one.")
        if digest.encode() != trailer[len(MAGIC) :]:
            raise self.refusal(f"{path} was changed after it was written; copy it again, or train a {self.noun}.")

    @contextmanager
    def opened(self, path: Path, content: bytes | mmap) -> Iterator[Opened]:
        """What verified bytes hold; an error of who takes it apart is a refusal too.

        Raises:
            ModelError: ``refusal``, with the fix.
        """
        try:
            with pa.ipc.open_stream(pa.py_buffer(content)) as reader:
                yield Opened(self._manifest(path, reader.schema), reader)
        except self.refusal:
            raise
        except (pa.ArrowException, KeyError, OSError, StopIteration, TypeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            raise self.refusal(f"{path} does not hold a {self.noun} ({why}); train it again.") from error
        except (ConfigError, ModelError) as error:
            raise self.refusal(f"{path} does not hold a {self.noun} that can be used: {error}") from error

    def _manifest(self, path: Path, schema: pa.Schema) -> dict[str, Any]:
        text = (schema.metadata or {}).get(self.key)
        if text is None:
            raise self.refusal(f"{path} holds something else than a {self.noun}; name another file.")
        facts: dict[str, Any] = json.loads(text)
        found = facts["format"]
        if found > self.newest:
            raise self.refusal(f"{path} has format {found}, newer than {self.newest}; upgrade Tidewatch to read it.")
        if found < self.oldest:
            raise self.refusal(f"{path} has format {found}, older than {self.oldest}; train it again.")
        return facts


def trailer(digest: str) -> bytes:
    """What ends a file of which that is the SHA-256, in hexadecimal."""
    return MAGIC + digest.encode()


def sha256(content: bytes) -> str:
    """The SHA-256 of all of a file but its trailer, in hexadecimal."""
    return hashlib.sha256(memoryview(content)[:-TRAILER]).hexdigest()


def fingerprint(path: Path) -> str | None:
    """The SHA-256 in a file's trailer, read without the rest; None where there is no sealed file.

    Cheap enough to poll: it changes exactly when the content does.
    """
    try:
        with path.open("rb") as file:
            file.seek(-TRAILER, os.SEEK_END)
            found = file.read()
    except OSError:
        return None
    return found[len(MAGIC) :].decode("ascii", "replace") if found.startswith(MAGIC) else None
