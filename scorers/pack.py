"""A fleet on disk: one sealed file, a row a group of models, replaced in one step."""

import hashlib
import json
import os
import tempfile
from functools import lru_cache
from io import BufferedRandom, BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scorers import naming
from scorers.errors import FleetFileError, ModelError
from scorers.features import DEFINITION, KINDS
from scorers.fleet import Fleet
from scorers.group import Group
from scorers.sealed import MAGIC, TRAILER, Seal, fingerprint, sha256, trailer
from scorers.trees import Forest, Kind
from scorers.whole import copied, replacing

__all__ = [
    "FORMAT",
    "MAGIC",
    "MANIFEST",
    "OLDEST",
    "dumps",
    "fingerprint",
    "install",
    "known",
    "load",
    "loads",
    "mapped",
    "save",
]

FORMAT = 6
OLDEST = 3
"""Without models to lend, and without confidence; 4 is without isolation forests, 5 without detectors combined."""
MANIFEST = b"tidewatch.fleet"
SEAL = Seal(MANIFEST, "fleet", FleetFileError, FORMAT, OLDEST)
_CHUNK = 8 * 2**20

SHAPES = {
    "softening": ("models", "metrics"),
    "center": ("models", "features"),
    "scale": ("models", "features"),
    "indptr": ("models + 1",),
    "stack": ("rows", "features"),
    "bias": ("rows",),
    "total": ("models",),
    "gamma": ("models",),
    "nearest": ("models",),
    "support": ("models",),
    "offset": ("models",),
    "reach": ("models",),
    "unit": ("models",),
    "windows": ("models",),
    "until": ("models",),
    "false_alarm_rate": ("models",),
    "confidence": ("models",),
    "grown": ("models + 1",),
}
"""Every array of a group, but for those of its forest."""
INTEGERS = {"indptr", "nearest", "support", "windows", "until", "grown"}
TREES = "forest."
"""Before the names of the arrays of a forest."""
BARE = {TREES + name: values for name, values in Forest.union([]).arrays().items()}
"""Those of none."""

SCHEMA = pa.schema(
    [("metrics", pa.list_(pa.string())), ("devices", pa.large_list(pa.string())), ("lent", pa.bool_())]
    + [(name, pa.large_list(pa.int64() if name in INTEGERS else pa.float64())) for name in SHAPES]
    + [(name, pa.large_list(pa.from_numpy_dtype(values.dtype))) for name, values in BARE.items()]
)


def save(fleet: Fleet, path: Path, created: int) -> None:
    """Write a fleet so that a reader sees the old file or the new one, never a part.

    Args:
        fleet: what to write.
        path: the file; its folder must exist.
        created: epoch ms, kept in the manifest.

    Raises:
        FleetFileError: the file cannot be written.
    """
    try:
        with replacing(path) as file:
            _write(file, fleet, created)
    except OSError as error:
        raise FleetFileError(f"The fleet file {path} cannot be written ({error}); name a folder with room.") from error


def dumps(fleet: Fleet, created: int) -> bytes:
    """The bytes of a file that :func:`save` would write."""
    with BytesIO() as file:
        _write(file, fleet, created)
        return file.getvalue()


def install(source: Path, target: Path) -> None:
    """Copy a fleet file to where it is in force, if it is sound; its readers see the old one or the new one.

    Raises:
        FleetFileError: it is not sound, or cannot be written.
    """
    load(source)
    try:
        copied(source, target)
    except OSError as error:
        raise FleetFileError(f"The fleet file {target} cannot be written ({error}); name another one.") from error


def load(path: Path) -> Fleet:
    """Read a fleet; what was checked is what is used, for the file is read once.

    Raises:
        FleetFileError: it is missing, torn, tampered with, of a newer format or made from other features.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FleetFileError(
            f"The fleet file {path} cannot be read ({error}); train a fleet, or name its file."
        ) from error
    return loads(content, path)


def mapped(path: Path) -> Fleet:
    """Read a fleet such that memory holds of it what is used: it is mapped from a copy that nobody else can reach.

    The copy lies beside the file without a name, so that what was checked is what is used whatever becomes of the file;
    where there is no room for one the fleet is read as by :func:`load`.

    Raises:
        FleetFileError: as of :func:`load`.
    """
    try:
        with path.open("rb") as given, tempfile.TemporaryFile(dir=path.parent) as copy:
            digest = _copied(given, copy)
            content = mmap(copy.fileno(), 0, access=ACCESS_READ)
    except (OSError, ValueError):  # read-only, full, or empty, which is no fleet either
        return load(path)
    SEAL.verify(path, content[-TRAILER:], digest)
    return _opened(content, path)


def _copied(given: BinaryIO, copy: IO[bytes]) -> str:
    """The SHA-256 of all but the trailer of what is copied."""
    left, digest = os.fstat(given.fileno()).st_size - TRAILER, hashlib.sha256()
    while left > 0 and (part := given.read(min(left, _CHUNK))):
        digest.update(part)
        copy.write(part)
        left -= len(part)
    copy.write(given.read(TRAILER))
    copy.flush()
    return digest.hexdigest()


def known(path: Path) -> Fleet:
    """What :func:`load` gives; the file last asked for is read again only if it has changed since."""
    return _known(path, fingerprint(path))


@lru_cache(maxsize=1)
def _known(path: Path, _: str | None) -> Fleet:
    return load(path)


def loads(content: bytes, path: Path) -> Fleet:
    """A fleet from the bytes of a file; ``path`` is where they are from, for messages.

    Raises:
        FleetFileError: they are torn, tampered with, of a newer format or made from other features.
    """
    SEAL.verify(path, content[-TRAILER:], sha256(content))
    return _opened(content, path)


def _opened(content: bytes | mmap, path: Path) -> Fleet:
    """A fleet from bytes that are what was written."""
    with SEAL.opened(path, content) as (facts, reader):
        _accept(path, facts)
        return Fleet(facts["version"], tuple(_group(batch) for batch in reader), facts.get("rule", ""))


def _write(file: BufferedRandom | BytesIO, fleet: Fleet, created: int) -> None:
    facts = {
        "format": FORMAT,
        "version": fleet.version,
        "created": created,
        "models": len(fleet),
        "types": len(fleet.types),
        "rule": fleet.rule,
        "features": DEFINITION,
    }
    schema = SCHEMA.with_metadata({MANIFEST: json.dumps(facts)})
    with pa.ipc.new_stream(file, schema) as writer:
        for group in fleet.groups:
            writer.write_batch(_row(group, schema))
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0, os.SEEK_END)
    file.write(trailer(digest))


def _accept(path: Path, facts: dict[str, Any]) -> None:
    if facts["features"] != DEFINITION:
        raise FleetFileError(f"The fleet file {path} was trained on other features; train it again.")
    if why := naming.flaw(facts.get("rule", "")):
        raise FleetFileError(f"The fleet file {path} has a rule of types that {why}; train it again.")


def _row(group: Group, schema: pa.Schema) -> pa.RecordBatch:
    names = [pa.array([list(getattr(group, name))], schema.field(name).type) for name in ("metrics", "devices")]
    names.append(pa.array([group.lent]))
    arrays = [getattr(group, name) for name in SHAPES] + list(group.forest.arrays().values())
    return pa.RecordBatch.from_arrays(names + [_packed(values) for values in arrays], schema=schema)


def _packed(values: NDArray[Any]) -> pa.LargeListArray:
    flat = pa.array(values.ravel())
    return pa.LargeListArray.from_arrays(pa.array([0, len(flat)], pa.int64()), flat)


def _group(batch: pa.RecordBatch) -> Group:
    """The group of one row; its arrays share the batch's memory.

    Raises:
        ValueError: arrays do not fit together.
    """
    batch.validate(full=True)
    metrics, devices = (tuple(batch.column(name)[0].as_py()) for name in ("metrics", "devices"))
    names = batch.schema.names
    flat = {name: batch.column(name).flatten().to_numpy(zero_copy_only=True) for name in SHAPES if name in names}
    flat.setdefault("confidence", np.full(len(devices), np.nan))
    flat.setdefault("grown", np.zeros(len(devices) + 1, np.int64))
    flat.setdefault("support", np.zeros(len(devices), np.int64))
    lent = "lent" in names and batch.column("lent")[0].as_py()
    sizes = {"metrics": len(metrics), "features": len(KINDS) * len(metrics), "models": len(devices)}
    sizes |= {"models + 1": len(devices) + 1, "rows": len(flat["bias"])}
    arrays = {name: flat[name].reshape([sizes[side] for side in SHAPES[name]]) for name in SHAPES}
    group = Group(metrics, devices, **arrays, forest=_forest(batch), lent=lent)
    lengths = np.diff(group.indptr)
    inside = group.indptr[0] == 0 and group.indptr[-1] + lengths.max(initial=0) <= sizes["rows"]
    if not devices or not inside or lengths.min() <= sizes["features"]:
        raise ValueError("its models do not fit its rows")
    if group.nearest.min() < 0:
        raise ValueError("a model asks for fewer neighbours than none")
    both = group.support != 0
    vectors = lengths - sizes["features"]
    if (both & ((group.support < 0) | (group.support >= vectors) | (group.nearest == 0))).any():
        raise ValueError("a model combines a detector with none")
    trees = np.diff(group.grown)
    ours = group.grown[0] == 0 and trees.min() >= 0 and group.grown[-1] == len(group.forest.output)
    if not ours or (lengths[trees > 0] != sizes["features"] + 2).any():
        raise ValueError("its models do not fit its trees")
    return group


def _forest(batch: pa.RecordBatch) -> Forest:
    """The trees of one row; none where the file is older than they are.

    Raises:
        ValueError: they are not what they should be.
    """
    names = batch.schema.names
    arrays = {
        name.removeprefix(TREES): batch.column(name).flatten().to_numpy(zero_copy_only=False) if name in names else bare
        for name, bare in BARE.items()
    }
    try:
        forest = Forest.from_arrays(arrays)
    except ModelError as error:
        raise ValueError(str(error).rstrip(".")) from error
    wide = len(KINDS) * len(batch.column("metrics")[0])
    if len(forest.output) and (forest.width != wide or forest.kind is not Kind.ISOLATION_FOREST):
        raise ValueError("its trees are not of its features")
    return forest
