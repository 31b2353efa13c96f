import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers import naming, pack
from scorers.errors import FleetFileError
from scorers.fit import Detector, TrainSpec, fit_device
from scorers.fleet import Fleet
from tests.simulator import Device

CREATED = 1_700_000_000_000


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    detectors = [Detector.ONE_CLASS_SVM, Detector.FOREST, Detector.FOREST, Detector.COMBINED]
    models = {
        f"pump-{seed}": fit_device(Device(seed, 2 + seed % 2).windows(60), np.arange(60), TrainSpec(detector=detector))
        for seed, detector in enumerate(detectors)
    }
    types = {"pump": replace(models["pump-0"], confidence=0.5)}
    return Fleet.of(models, "2024-01-01", types, naming.DEFAULT)


@pytest.fixture(scope="module")
def file(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fleet") / "current.fleet"
    pack.save(fleet, path, CREATED)
    return path


def resealed(content: bytes) -> bytes:
    """The content with a trailer that fits it, as someone who knows the format would write it."""
    return content + pack.MAGIC + hashlib.sha256(content).hexdigest().encode()


def with_manifest(file: Path, **changes: object) -> bytes:
    """The file's content with facts of its manifest replaced."""
    with pa.ipc.open_stream(file.read_bytes()) as reader:
        table = reader.read_all()
    facts = json.loads(table.schema.metadata[pack.MANIFEST]) | changes
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.with_metadata({pack.MANIFEST: json.dumps(facts)})) as writer:
        writer.write_table(table)
    return resealed(sink.getvalue().to_pybytes())


def test_a_fleet_comes_back_as_it_was(fleet: Fleet, file: Path) -> None:
    back = pack.load(file)

    for name in ("version", "devices", "types", "names", "rule"):
        assert getattr(back, name) == getattr(fleet, name)
    for saved, loaded in zip(fleet.groups, back.groups, strict=True):
        for field in fields(saved):
            if field.name != "forest":
                np.testing.assert_array_equal(getattr(loaded, field.name), getattr(saved, field.name))
        for name, values in saved.forest.arrays().items():
            np.testing.assert_array_equal(loaded.forest.arrays()[name], values)


def test_a_file_of_format_5_is_read_without_detectors_combined(fleet: Fleet, file: Path, tmp_path: Path) -> None:
    with pa.ipc.open_stream(file.read_bytes()) as reader:
        table = reader.read_all().drop_columns(["support"])
    facts = json.loads(table.schema.metadata[pack.MANIFEST]) | {"format": 5}
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.with_metadata({pack.MANIFEST: json.dumps(facts)})) as writer:
        writer.write_table(table)
    (tmp_path / "old.fleet").write_bytes(resealed(sink.getvalue().to_pybytes()))
    back, windows = pack.load(tmp_path / "old.fleet"), Device(0, 2).windows(5)

    for device in ("pump-0", "pump-2"):
        found, expected = (one.score(one.index([device] * 5), windows).score for one in (back, fleet))
        np.testing.assert_array_equal(found, expected)


def test_a_file_of_format_3_is_read_without_confidence_types_and_trees(
    fleet: Fleet, file: Path, tmp_path: Path
) -> None:
    with pa.ipc.open_stream(file.read_bytes()) as reader:
        table = reader.read_all()
    younger = ["lent", "confidence", "grown", "support", *pack.BARE]
    own = table.filter(pc.invert(table["lent"])).drop_columns(younger)
    facts = json.loads(table.schema.metadata[pack.MANIFEST]) | {"format": 3}
    for unknown in ("types", "rule"):
        del facts[unknown]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, own.schema.with_metadata({pack.MANIFEST: json.dumps(facts)})) as writer:
        for batch in own.to_batches():
            writer.write_batch(batch)
    (tmp_path / "old.fleet").write_bytes(resealed(sink.getvalue().to_pybytes()))

    back = pack.load(tmp_path / "old.fleet")
    verdicts = back.score(back.index(["pump-0"]), Device(0, 2).windows(1))

    assert (back.devices, back.types, back.rule) == (fleet.devices, (), "")
    assert back.assign(["pump-9"]).tolist() == [-1]
    assert verdicts.scored.all()
    assert np.isnan(verdicts.confidence).all()


def test_an_empty_fleet_comes_back_too(tmp_path: Path) -> None:
    pack.save(Fleet.empty(), tmp_path / "none.fleet", CREATED)

    assert len(pack.load(tmp_path / "none.fleet")) == 0


def test_arrow_reads_the_file_and_its_manifest(file: Path) -> None:
    with pa.ipc.open_stream(file.read_bytes()) as reader:
        facts = json.loads(reader.schema.metadata[pack.MANIFEST])

    assert facts["version"] == "2024-01-01"
    assert facts["created"] == CREATED
    assert facts["models"] == 4


def test_the_same_fleet_has_the_same_fingerprint(fleet: Fleet, file: Path, tmp_path: Path) -> None:
    pack.save(fleet, tmp_path / "again.fleet", CREATED)
    pack.save(fleet, tmp_path / "later.fleet", CREATED + 1)

    assert pack.fingerprint(tmp_path / "again.fleet") == pack.fingerprint(file)
    assert pack.fingerprint(tmp_path / "later.fleet") != pack.fingerprint(file)


@pytest.mark.parametrize("content", [b"", b"not a fleet", b"x" * 500])
def test_what_is_no_fleet_file_has_no_fingerprint(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)

    assert pack.fingerprint(tmp_path / "f") is None
    assert pack.fingerprint(tmp_path / "missing") is None


@given(place=st.integers(min_value=0), flip=st.integers(1, 255))
def test_any_changed_byte_is_refused(file: Path, place: int, flip: int) -> None:
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= flip
    torn = file.with_name("torn.fleet")
    torn.write_bytes(content)

    with pytest.raises(FleetFileError, match=r"torn\.fleet"):
        pack.load(torn)


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(file: Path, share: float) -> None:
    content = file.read_bytes()
    cut = file.with_name("cut.fleet")
    cut.write_bytes(content[: int(share * len(content))])

    with pytest.raises(FleetFileError, match=r"cut short|changed after"):
        pack.load(cut)


def test_a_missing_file_is_refused_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(FleetFileError, match="train a fleet"):
        pack.load(tmp_path / "none.fleet")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": pack.FORMAT + 1}, "upgrade"),
        ({"format": pack.OLDEST - 1}, "train it again"),
        ({"features": "others"}, "train it again"),
        ({"rule": "("}, "rule of types"),
        ({"rule": None}, "train it again"),
        ({"format": None}, "train it again"),
    ],
)
def test_another_format_is_refused_with_the_fix(
    changes: dict[str, object], message: str, file: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.fleet").write_bytes(with_manifest(file, **changes))

    with pytest.raises(FleetFileError, match=message):
        pack.load(tmp_path / "other.fleet")


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 64], ids=["nothing", "short", "long"])
def test_well_sealed_junk_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "junk.fleet").write_bytes(resealed(content))

    with pytest.raises(FleetFileError, match="does not hold a fleet"):
        pack.load(tmp_path / "junk.fleet")


@pytest.mark.parametrize("changes", [{"reach": np.ones(1)}, {"nearest": np.array([0, -1])}], ids=str)
def test_arrays_that_do_not_fit_are_refused(changes: dict[str, Any], fleet: Fleet, tmp_path: Path) -> None:
    broken = replace(fleet.groups[0], **changes)
    pack.save(Fleet(fleet.version, (broken,)), tmp_path / "broken.fleet", CREATED)

    with pytest.raises(FleetFileError, match="does not hold a fleet"):
        pack.load(tmp_path / "broken.fleet")


@pytest.mark.parametrize("changes", [{"support": -1}, {"support": 10_000}, {"nearest": 0}], ids=str)
def test_detectors_combined_with_none_are_refused(changes: dict[str, int], fleet: Fleet, tmp_path: Path) -> None:
    alone = fleet.only(["pump-3"]).groups[0]
    arrays: dict[str, Any] = {name: np.array([value]) for name, value in changes.items()}
    broken = replace(alone, **arrays)
    pack.save(Fleet(fleet.version, (broken,)), tmp_path / "broken.fleet", CREATED)

    with pytest.raises(FleetFileError, match="a model combines a detector with none"):
        pack.load(tmp_path / "broken.fleet")


@pytest.mark.parametrize(
    ("name", "value"), [("left", 0), ("right", 10_000), ("feature", 10), ("value", -1.0), ("threshold", np.nan)]
)
def test_trees_that_lead_astray_are_refused(name: str, value: float, fleet: Fleet, tmp_path: Path) -> None:
    group = next(group for group in fleet.groups if len(group.forest.output))
    array = getattr(group.forest, name).copy()
    array[-1 if name == "value" else 0] = value
    broken = replace(group, forest=replace(group.forest, **{name: array}))
    pack.save(Fleet(fleet.version, (broken,)), tmp_path / "broken.fleet", CREATED)

    with pytest.raises(FleetFileError, match="does not hold a fleet"):
        pack.load(tmp_path / "broken.fleet")


@pytest.mark.parametrize("grown", [[0, 100, 200], [0, -1, 100], [1, 1, 100], [0, 50, 100]], ids=str)
def test_trees_that_belong_to_no_model_are_refused(grown: list[int], fleet: Fleet, tmp_path: Path) -> None:
    group = next(group for group in fleet.groups if len(group.forest.output) == 100)
    pack.save(Fleet(fleet.version, (replace(group, grown=np.array(grown)),)), tmp_path / "broken.fleet", CREATED)

    with pytest.raises(FleetFileError, match="do not fit its trees"):
        pack.load(tmp_path / "broken.fleet")


def test_a_fleet_is_taken_apart_and_joined_with_its_trees(fleet: Fleet) -> None:
    windows, devices = Device(9, 3).windows(20), [*fleet.devices] * 5
    joined = Fleet.union([fleet.only([device]) for device in fleet.devices], "again")

    found, expected = (one.score(one.index(devices), windows) for one in (joined, fleet))

    np.testing.assert_array_equal(found.score, expected.score)


def test_a_fleet_is_replaced_in_one_step(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "current.fleet"
    pack.save(Fleet.empty(), path, CREATED)
    pack.save(fleet, path, CREATED)

    assert [found.name for found in tmp_path.iterdir()] == ["current.fleet"]
    assert pack.load(path).version == fleet.version


def test_a_folder_that_is_not_there_is_named(fleet: Fleet, tmp_path: Path) -> None:
    with pytest.raises(FleetFileError, match="missing"):
        pack.save(fleet, tmp_path / "missing" / "current.fleet", CREATED)
