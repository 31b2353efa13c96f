"""A forecaster on disk: one sealed file of one row, replaced in one step."""

import hashlib
import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from scorers.errors import ForecasterFileError
from scorers.forecast.encode import HISTORY, INPUTS, Encoder
from scorers.forecast.features import FeatureSpec
from scorers.forecast.labels import CLASSES
from scorers.forecast.model import WEEK, Forecaster, Kind
from scorers.forecast.schema import FEATURES
from scorers.sealed import TRAILER, Seal, fingerprint, sha256, trailer
from scorers.trees import Forest
from scorers.whole import copied, replacing

__all__ = ["FORMAT", "dumps", "fingerprint", "install", "load", "loads", "save"]

FORMAT = 1
MANIFEST = b"tidewatch.forecaster"
SEAL = Seal(MANIFEST, "forecaster", ForecasterFileError, FORMAT)


def save(forecaster: Forecaster, path: Path) -> None:
    """Write a forecaster so that a reader sees the old file or the new one, never a part; makes the folder.

    Raises:
        ForecasterFileError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(dumps(forecaster))
    except OSError as error:
        raise ForecasterFileError(
            f"The forecaster {path} cannot be written ({error}); name a folder with room."
        ) from error


def install(source: Path, target: Path) -> None:
    """Copy a forecaster to where it is in force, if it is sound; its readers see the old one or the new one.

    Raises:
        ForecasterFileError: it is not sound, or cannot be written.
    """
    load(source)
    try:
        copied(source, target)
    except OSError as error:
        raise ForecasterFileError(
            f"The forecaster {target} cannot be written ({error}); name a folder with room."
        ) from error


def load(path: Path) -> Forecaster:
    """Read a forecaster; what was checked is what is used, for the file is read once.

    Raises:
        ForecasterFileError: it is missing, torn, tampered with, of a newer format, or something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ForecasterFileError(
            f"The forecaster {path} cannot be read ({error}); run `tidewatch load train`, or name its file."
        ) from error
    return loads(content, path)


def dumps(forecaster: Forecaster) -> bytes:
    """The bytes of a file that :func:`save` would write."""
    encoder = forecaster.encoder
    facts = {
        "format": FORMAT,
        "version": forecaster.version,
        "kind": forecaster.kind.value,
        "spec": {
            "timezone": forecaster.spec.timezone,
            "start": forecaster.spec.start,
            "country": forecaster.spec.country,
        },
        "thresholds": list(forecaster.thresholds),
        "classes": list(CLASSES),
        "seen": list(forecaster.seen),
        "features": FEATURES.names,
        "inputs": list(encoder.inputs),
        "servers": list(encoder.servers),
        "ensembles": len(forecaster.ensembles),
        "facts": dict(forecaster.facts),
    }
    flat = {"mean": encoder.mean, "std": encoder.std, "profile": forecaster.profile.ravel()}
    for number, forest in enumerate(forecaster.ensembles):
        flat |= {f"trees.{number}.{name}": array for name, array in forest.arrays().items()}
    columns = {name: _listed(values) for name, values in flat.items()}
    schema = pa.schema([(name, of.type) for name, of in columns.items()], {MANIFEST: json.dumps(facts)})
    with BytesIO() as file:
        with pa.ipc.new_stream(file, schema) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(list(columns.values()), schema=schema))
        body = file.getvalue()
    return body + trailer(hashlib.sha256(body).hexdigest())


def loads(content: bytes, path: Path) -> Forecaster:
    """A forecaster from the bytes of a file; ``path`` is where they are from, for messages.

    Raises:
        ForecasterFileError: they are torn, tampered with, of a newer format, or something else.
    """
    SEAL.verify(path, content[-TRAILER:], sha256(content))
    with SEAL.opened(path, content) as (facts, reader):
        if facts["features"] != FEATURES.names or facts["classes"] != list(CLASSES):
            raise ForecasterFileError(f"{path} was trained on other features or classes; train it again.")
        batch = reader.read_next_batch()
        batch.validate(full=True)
        return _forecaster(facts, {name: batch.column(name).flatten() for name in batch.schema.names})


def _forecaster(facts: Mapping[str, Any], flat: Mapping[str, Any]) -> Forecaster:
    """From a manifest and arrays.

    Raises:
        ValueError, KeyError, TypeError, ModelError: they do not fit together.
    """
    arrays = {name: np.asarray(flat[name], np.float64) for name in ("mean", "std", "profile")}
    inputs, seen = tuple(facts["inputs"]), tuple(facts["seen"])
    forests = tuple(_forest(flat, number) for number in range(facts["ensembles"]))
    outputs = 2 if len(forests) > 1 else len(seen)
    fine = (
        set(inputs) <= set(INPUTS)
        and set(seen) <= set(range(len(CLASSES)))
        and len(arrays["mean"]) == len(arrays["std"]) == len(HISTORY)
        and 1 <= len(forests) <= len(CLASSES) - 1
        and all(forest.width == len(inputs) for forest in forests)
        and all(forest.predict(np.zeros((1, len(inputs)))).shape[1] == outputs for forest in forests)
    )
    if not fine:
        raise ValueError("its parts do not fit together")
    low, high = facts["thresholds"]
    return Forecaster(
        version=facts["version"],
        kind=Kind(facts["kind"]),
        spec=FeatureSpec(**facts["spec"]),
        thresholds=(low, high),
        encoder=Encoder(inputs, tuple(facts["servers"]), arrays["mean"], arrays["std"]),
        profile=arrays["profile"].reshape(WEEK, len(HISTORY)),
        seen=seen,
        ensembles=forests,
        facts=facts["facts"],
    )


def _forest(flat: Mapping[str, Any], number: int) -> Forest:
    prefix = f"trees.{number}."
    own = {name.removeprefix(prefix): array for name, array in flat.items() if name.startswith(prefix)}
    return Forest.from_arrays({name: array.to_numpy(zero_copy_only=False) for name, array in own.items()})


def _listed(values: Any) -> pa.LargeListArray:
    flat = pa.array(values)
    return pa.LargeListArray.from_arrays(pa.array([0, len(flat)], pa.int64()), flat)
