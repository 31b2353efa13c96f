"""Fleets come, go and change while they are asked for."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scorers import pack
from scorers.errors import FleetFileError
from scorers.features import features
from scorers.fleet import Fleet
from serving.batching import INLINE, Batcher
from serving.errors import NotFoundError
from serving.repository import Repository, Spec
from serving.service import Trial
from serving.tensors import Columns
from tests.services import fleet, model, put, serving
from tests.simulator import Device

ROWS = features(Device(0, 4).windows(2)).tolist()


def challenger(version: str) -> Fleet:
    return Fleet.of({"device-0": model(3)}, version)


def test_a_swap_under_load_fails_no_request_and_loses_none(tmp_path: Path) -> None:
    path = put(tmp_path / "fleet.arrow", fleet("v0"))
    seen: list[tuple[int, str]] = []
    over = threading.Event()
    with serving(Spec(path)) as running:

        def ask() -> None:
            while not over.is_set():
                status, answer = running.call("POST", "/score", {"model_name": "device-0", "data": ROWS})
                seen.append((status, answer.get("model_version")))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(1, 11):
            put(path, fleet(f"v{number}", seed=number % 2))
            while (200, f"v{number}") not in seen[-4:]:
                over.wait(0.005)
        over.set()
        for thread in threads:
            thread.join()

    assert {status for status, _ in seen} == {200}
    assert {version for _, version in seen} == {f"v{number}" for number in range(11)}


def test_who_has_a_model_keeps_it_through_a_swap(tmp_path: Path) -> None:
    path = put(tmp_path / "fleet.arrow", fleet("v0"))

    async def play() -> tuple[str, str, Columns]:
        repository = Repository(Spec(path))
        await repository.look()
        held = await repository.get("device-0")
        put(path, fleet("v1", seed=1))
        await repository.look()
        found = held.engine.infer(held.prepare({"features": np.array(ROWS)}))
        return held.version, (await repository.get("device-0")).version, found

    before, after, found = asyncio.run(play())

    assert (before, after) == ("v0", "v1")
    assert (found["state"] == "scored").all()


def test_a_fleet_that_is_torn_leaves_the_one_in_force(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = put(tmp_path / "fleet.arrow", fleet("v0"))

    async def play() -> str:
        repository = Repository(Spec(path))
        await repository.look()
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        content[-1] ^= 1
        path.write_bytes(content)
        await repository.look()
        await repository.look()
        return (await repository.get("fleet")).version

    assert asyncio.run(play()) == "v0"
    assert len([one for one in caplog.records if "stays as it is" in one.message]) == 1


def test_fleets_are_loaded_when_asked_for_and_leave_when_others_need_the_room(tmp_path: Path) -> None:
    path = put(tmp_path / "fleet.arrow", fleet("v0"))
    for name in ("a", "b", "c"):
        put(tmp_path / "more" / f"{name}.arrow", fleet(name))

    async def play() -> list[list[str]]:
        repository = Repository(Spec(path, folder=tmp_path / "more", memory_bytes=150_000))
        await repository.look()
        states = []
        for name in ("a/device-0", "b/device-1", "a", "c/other"):
            await repository.get(name)
            states.append(
                [
                    row["name"]
                    for row in repository.index(ready=True)
                    if row["version"] not in {"v0", ""} and "/" not in row["name"]
                ]
            )
        with pytest.raises(NotFoundError, match="no model of device 'nobody'"):
            await repository.get("a/nobody")
        await repository.unload("a")
        with pytest.raises(NotFoundError, match="is unloaded"):
            await repository.get("a/device-0")
        await repository.load("a", {"config": "{}"})
        (tmp_path / "more" / "b.arrow").unlink()
        await repository.look()
        with pytest.raises(NotFoundError, match="There is no model 'b'"):
            await repository.get("b")
        return states

    first, second, third, last = asyncio.run(play())

    assert first == ["a"]
    assert second == third == ["a", "b"]
    assert last == ["a", "c"]


def test_nobody_is_ready_before_there_is_a_fleet(tmp_path: Path) -> None:
    with serving(Spec(tmp_path / "fleet.arrow")) as running:
        early = running.call("GET", "/v2/health/ready")
        model_early = running.call("POST", "/score", {"model_name": "fleet", "data": ROWS})
        put(tmp_path / "fleet.arrow", fleet())
        while running.call("GET", "/v2/health/ready")[0] != 200:
            pass
        late = running.call("POST", "/score", {"model_name": "device-0", "data": ROWS})

    assert early[0] == model_early[0] == 503
    assert early[1] == {"error": "Not ready: there is no fleet yet; run `tidewatch train`."}
    assert late[0] == 200


def test_a_share_of_requests_is_the_challengers(tmp_path: Path) -> None:
    path = put(tmp_path / "fleet.arrow", fleet("champion"))
    put(tmp_path / "challenger.arrow", challenger("rival"))
    with serving(Spec(path, challenger=tmp_path / "challenger.arrow"), Trial(canary=0.25)) as running:
        call = {"model_name": "device-0", "data": ROWS}
        found = [running.call("POST", "/score", call)[1]["model_version"] for _ in range(8)]
        other = {
            running.call("POST", "/score", call | {"model_name": "other"})[1].get("model_version") for _ in range(8)
        }
        _, about = running.call("GET", "/v2/models/device-0")
        pinned, _ = running.call("GET", "/v2/models/device-0/versions/rival/ready")

    assert found.count("rival") == 2
    assert other == {"champion"}
    assert about["versions"] == ["champion", "rival"]
    assert pinned == 200


def test_a_shadow_is_asked_and_not_answered_from(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = put(tmp_path / "fleet.arrow", fleet("champion"))
    put(tmp_path / "challenger.arrow", challenger("rival"))
    caplog.set_level("INFO", "serving")
    with serving(Spec(path, challenger=tmp_path / "challenger.arrow"), Trial(shadow=1.0)) as running:
        call = {"model_name": "device-0", "data": ROWS}
        found = {running.call("POST", "/score", call)[1]["model_version"] for _ in range(4)}
        running.do(running.service.settled())
        counts = running.service.counts

    assert found == {"champion"}
    assert (counts["shadow"], counts["shadow.rows"], counts["shadow.otherwise"]) == (4, 8, 8)
    assert any("champion=champion challenger=rival rows=2 otherwise=2" in one.message for one in caplog.records)


class _Doubled:
    """An engine that counts its calls."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def infer(self, columns: Columns) -> Columns:
        self.calls.append(len(columns["x"]))
        if (columns["x"] < 0).any():
            raise ValueError("negative")
        return {"y": 2 * columns["x"]}


def test_requests_that_come_together_are_one_call_and_each_has_its_own_answer() -> None:
    engine = _Doubled()

    async def play() -> list[Any]:
        batcher = Batcher(0.05)
        many = [np.arange(start, start + 3.0) for start in range(10)]
        found = await asyncio.gather(*(batcher.infer(engine, {"x": one}) for one in many))
        alone = await batcher.infer(engine, {"x": np.zeros(INLINE + 1)})
        batcher.close()
        assert len(alone["y"]) == INLINE + 1
        return [(one, answer["y"]) for one, answer in zip(many, found, strict=True)]

    answers = asyncio.run(play())

    assert engine.calls == [30, INLINE + 1]
    for asked, answer in answers:
        np.testing.assert_array_equal(answer, 2 * asked)


def test_a_request_that_fails_harms_no_other() -> None:
    async def play() -> list[Any]:
        batcher = Batcher(0.05)
        asked = [batcher.infer(_SHARED, {"x": np.array([value])}) for value in (1.0, -1.0, 3.0)]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third = asyncio.run(play())

    assert first["y"].tolist() == [2.0]
    assert isinstance(second, ValueError)
    assert third["y"].tolist() == [6.0]


_SHARED = _Doubled()


def test_a_mapped_fleet_is_the_fleet_whatever_becomes_of_its_file(tmp_path: Path) -> None:
    path = put(tmp_path / "fleet.arrow", fleet("v0"))
    mapped, loaded = pack.mapped(path), pack.load(path)
    path.write_bytes(b"")

    assert mapped.devices == loaded.devices
    for left, right in zip(mapped.groups, loaded.groups, strict=True):
        np.testing.assert_array_equal(left.stack, right.stack)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FleetFileError):
        pack.mapped(path)
    with pytest.raises(FleetFileError, match="train a fleet"):
        pack.mapped(tmp_path / "none.arrow")
