"""The load forecaster is served beside the fleets: equal to scikit-learn, refused by name, swapped under load."""

# ruff: noqa: E501 - a case a line

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from sklearn.ensemble import RandomForestClassifier
from tritonclient.utils import InferenceServerException

from scorers.forecast.encode import HISTORY, strange
from scorers.forecast.features import features
from scorers.forecast.issue import forecast
from scorers.forecast.labels import CLASSES, classes, halves
from scorers.forecast.schema import CALENDAR, FEATURES
from serving.forecasts import GIVEN
from serving.repository import Repository, Spec
from tests import loads
from tests.loads import DAY_MS, START, targets
from tests.services import FOREST, SPLIT, Running, fleet, forecaster, lay, put, serving, tritons

SCORE, INFER = "/api/v1/service/load/score", "/v2/models/load/infer"
NOON = START + DAY_MS // 2


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("serve")
    path = put(folder / "fleet.arrow", fleet())
    with serving(Spec(path, forecaster=lay(folder / "forecaster.twf", forecaster()), max_rows=5_000)) as running:
        yield running


@pytest.fixture(scope="module")
def test_rows() -> pa.Table:
    return halves(loads.rows(loads.hours()), SPLIT)[1]


def arrays(rows: pa.Table) -> dict[str, Any]:
    """Columns of ``GIVEN``, as a client has them."""
    found = {name: rows[name].to_numpy() for name in GIVEN.names}
    return {name: array.astype("i8") if array.dtype.kind == "i" else array for name, array in found.items()}


def plain(rows: pa.Table) -> dict[str, Any]:
    return {name: rows[name].to_pylist() for name in GIVEN.names}


def tensors(kind: Any, rows: pa.Table) -> list[Any]:
    found = []
    for name, array in arrays(rows).items():
        given = array.astype(bytes).astype(object) if array.dtype == object else array
        of = {"O": "BYTES", "i": "INT64", "f": "FP64"}[given.dtype.kind]
        found.append(kind.InferInput(name, [len(given)], of))
        found[-1].set_data_from_numpy(given)
    return found


def sure(results: list[dict[str, Any]]) -> Any:
    return np.array([[one[name] for name in CLASSES] for one in results])


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, running: Running) -> Iterator[tuple[Any, Any]]:
    with tritons(request.param, running) as found:
        yield found


def test_a_client_gets_what_scikit_learn_says(client: tuple[Any, Any], test_rows: pa.Table) -> None:
    asked, kind = client
    ours, training = forecaster(), halves(loads.rows(loads.hours()), SPLIT)[0]
    training = training.filter(pa.array(~strange(training)))
    theirs = RandomForestClassifier(**FOREST.options)
    theirs.fit(ours.encoder.matrix(training), classes(training["load"].to_numpy(), ours.thresholds))
    expected = theirs.predict_proba(ours.encoder.matrix(test_rows))
    found = asked.infer("load", tensors(kind, test_rows), request_id="9")
    probabilities = np.stack([found.as_numpy(name) for name in CLASSES], axis=1)

    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)
    assert found.as_numpy("load").astype(str).tolist() == np.array(CLASSES)[expected.argmax(axis=1)].tolist()
    assert set(found.as_numpy("basis")) == {b"own"}


def test_a_client_finds_it_among_the_models_and_unloads_and_loads_it(client: tuple[Any, Any]) -> None:
    asked, kind = client
    found, about = asked.get_model_repository_index(), asked.get_model_metadata("load")
    rows = found if isinstance(found, list) else [{"name": one.name, "version": one.version} for one in found.models]
    inputs = about["inputs"] if isinstance(about, dict) else [{"name": one.name} for one in about.inputs]
    ready = asked.is_model_ready("load", "l1")
    asked.unload_model("load")
    with pytest.raises(InferenceServerException, match="is unloaded"):
        asked.infer("load", [kind.InferInput("hour", [1], "INT64").set_data_from_numpy(np.array([NOON]))])
    asked.load_model("load")

    assert {"name": "load", "version": "l1"} in [{name: row[name] for name in ("name", "version")} for row in rows]
    assert [one["name"] for one in inputs] == [name for name in FEATURES.names if name != "load"]
    assert ready
    assert asked.is_model_ready("load")


def test_plain_json_and_tensors_and_the_batch_say_the_same(running: Running) -> None:
    known, servers = loads.hours(), ["10.0.0.1", "10.0.0.4", "new"]
    batch = forecast(forecaster(), known, servers, SPLIT)
    rows = features(known, targets(servers, SPLIT, 48), loads.SPEC)
    status, answer = running.call("POST", SCORE, {"data": plain(rows), "id": "a"})
    inputs = [
        {"name": name, "datatype": {"O": "BYTES", "i": "INT64", "f": "FP64"}[array.dtype.kind], "shape": [len(array)], "data": array.tolist()}
        for name, array in arrays(rows).items()
    ]  # fmt: skip
    _, inferred = running.call("POST", INFER, {"inputs": msgspec.to_builtins(inputs)})
    outputs = {one["name"]: one["data"] for one in inferred["outputs"]}

    assert (status, answer["id"], answer["model_version"]) == (200, "a", "l1")
    for name in ("server", "hour", "load", "low", "medium", "high", "basis", "model_version"):
        assert [one[name] for one in answer["results"]] == batch[name].to_pylist()
    assert all(outputs[name] == batch[name].to_pylist() for name in ("load", "low", "medium", "high", "basis"))
    assert outputs["basis"][-48:] == ["fleet"] * 48


def test_the_calendar_may_be_left_out_for_the_hour_says_it(running: Running, test_rows: pa.Table) -> None:
    rows = test_rows.slice(0, 100)
    bare = {name: values for name, values in plain(rows).items() if name not in {*CALENDAR, "trend"}}
    whole = running.call("POST", "/score", {"model_name": "load", "data": plain(rows)})

    assert whole[0] == 200
    assert running.call("POST", "/score", {"model_name": "load", "data": bare}) == whole


def test_a_server_without_history_gets_the_fleets(running: Running) -> None:
    data = {"server": ["new", "newer"], "hour": [NOON, NOON]}
    status, answer = running.call("POST", SCORE, {"data": data})
    unknown = running.call("POST", SCORE, {"data": data | {name: [None, None] for name in HISTORY}})

    assert status == 200
    assert {one["basis"] for one in answer["results"]} == {"fleet"}
    assert unknown == (status, answer)
    np.testing.assert_allclose(sure(answer["results"]).sum(axis=1), 1)


def test_a_query_forecasts_too(running: Running) -> None:
    data = msgspec.json.encode({"server": ["new"], "hour": [NOON]}).decode()
    status, answer = running.call("GET", f"/score?model_name=load&data={data}")

    assert status == 200
    assert answer["results"][0]["server"] == "new"


ROW = {"server": ["10.0.0.1"], "hour": [NOON]}
PAST = {name: [10.0] for name in HISTORY}


@pytest.mark.parametrize(
    ("data", "status", "told"),
    [
        ({"server": ["a"]}, 400, "hour: missing; expected server BYTES [-1], hour INT64 [-1], year INT64 [-1]"),
        ({"hour": [NOON]}, 400, "server: missing"),
        (ROW | {"load": [1.0]}, 400, "load: unknown"),
        (ROW | {"ts": [1]}, 400, "ts: unknown"),
        (ROW | {"lag_48": [1.0]}, 400, "day_total, day_mbytes, day_sub_1"),
        (ROW | PAST | {"lag_50": [-1.0]}, 400, "lag_50: expected a load from 0 to 9.22e+12, or null, in row 0, and got -1"),
        (ROW | PAST | {"lag_50": [1e300]}, 400, "lag_50: expected a load"),
        (ROW | PAST | {"lag_50": ["x"]}, 400, "lag_50: expected FP64, and got BYTES"),
        (ROW | {"server": [7]}, 400, "server: expected BYTES, and got INT64"),
        (ROW | {"hour": [NOON + 1]}, 400, "hour: expected epoch milliseconds of a whole hour from 1980 to 2199 in row 0"),
        (ROW | {"hour": [0]}, 400, "hour: expected epoch milliseconds"),
        (ROW | {"hour": [1.5]}, 400, "hour: expected INT64, and got FP64"),
        (ROW | {"hour": []}, 400, "hour: expected at least one row"),
        (ROW | {"hour": [NOON] * 2}, 400, "hour: expected 1 rows as of server, and got 2"),
        (ROW | {"hour": [NOON] * 5001}, 413, "hour: expected 5000 rows at most, and got 5001"),
        (ROW | {"day": [12]}, 400, "day: expected 1, the hour's in UTC, in row 0, and got 12; it may be left out"),
        (ROW | {"hour_of_day": [1]}, 400, "hour_of_day: expected 12"),
        (ROW | {"trend": [0.0]}, 400, f"trend: expected 0.5, days since {START}, in row 0, and got 0"),
        (ROW | {"trend": [None]}, 400, "trend: expected 0.5"),
        ([[1.0, 2.0]], 400, "server, hour: missing"),
        ({"readings": [{"ts": NOON, "values": {"a": 1}}]}, 400, "load takes no readings; expected columns"),
        ({"windows": []}, 400, "load takes no windows"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_was_expected(running: Running, data: Any, status: int, told: str) -> None:
    found, answer = running.call("POST", SCORE, {"data": data})

    assert (found, list(answer)) == (status, ["error"]), answer
    assert told in answer["error"]


def test_the_published_clients_fault_is_refused(running: Running, test_rows: pa.Table) -> None:
    """It sent the hour as the day of the month; the model answered as if nothing were wrong."""
    rows = plain(test_rows.slice(0, 48))
    status, answer = running.call("POST", SCORE, {"data": rows | {"day": rows["hour_of_day"]}})

    assert status == 400
    assert answer["error"].startswith("day: expected ")


def test_a_sample_of_it_works(running: Running) -> None:
    _, about = running.call("GET", "/api/v1/service/load")
    _, metadata = running.call("GET", "/v2/models/load")
    status, answer = running.call("POST", SCORE, about["sample"])
    inferred, _ = running.call("POST", INFER, about["sample_v2"])

    assert status == inferred == 200
    assert about["signature"][0] == {"name": "server", "datatype": "BYTES", "shape": [-1], "columns": []}
    assert (metadata["platform"], metadata["versions"]) == ("tidewatch_load_forecaster", ["l1"])
    assert answer["results"][0]["basis"] == "own"


def test_requests_that_come_together_are_forecast_together(running: Running, test_rows: pa.Table) -> None:
    model = running.do(running.service.model("load"))
    many = [arrays(test_rows.slice(at, 3)) for at in range(0, 60, 3)]

    async def play() -> list[Any]:
        return list(await asyncio.gather(*(running.service.infer(model, one) for one in many)))

    before = running.service.batcher.batches
    answers = running.do(play())

    assert running.service.batcher.batches == before + 1
    for at, answer in enumerate(answers):
        np.testing.assert_array_equal(
            np.stack([answer[name] for name in CLASSES], axis=1), forecaster().predict(test_rows.slice(3 * at, 3))
        )


def test_a_swap_under_load_fails_no_request_and_a_torn_file_leaves_what_is(tmp_path: Path) -> None:
    path = lay(tmp_path / "forecaster.twf", forecaster("v0"))
    seen: list[tuple[int, str]] = []
    over = threading.Event()
    with serving(Spec(tmp_path / "none.arrow", forecaster=path)) as running:

        def ask() -> None:
            while not over.is_set():
                status, answer = running.call("POST", SCORE, {"data": ROW})
                seen.append((status, answer.get("model_version")))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(1, 6):
            lay(path, forecaster(f"v{number}"))
            while (200, f"v{number}") not in seen[-3:]:
                over.wait(0.005)
        content = path.read_bytes()
        path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:-1] + bytes([content[-1] ^ 1]))
        running.do(running.service.repository.look())
        torn = running.call("POST", SCORE, {"data": ROW})
        path.unlink()
        running.do(running.service.repository.look())
        gone = running.call("POST", SCORE, {"data": ROW})
        over.set()
        for thread in threads:
            thread.join()

    assert {status for status, _ in seen} == {200}
    assert {version for _, version in seen} == {f"v{number}" for number in range(6)}
    assert torn[1]["model_version"] == gone[1]["model_version"] == "v5"


def test_a_service_of_forecasts_alone_is_ready_when_there_is_a_forecaster(tmp_path: Path) -> None:
    path = tmp_path / "forecaster.twf"
    with serving(Spec(tmp_path / "none.arrow", forecaster=path)) as running:
        early, asked = running.call("GET", "/v2/health/ready"), running.call("POST", SCORE, {"data": ROW})
        _, index = running.call("POST", "/v2/repository/index")
        lay(path, forecaster())
        running.do(running.service.repository.look())
        late = running.call("GET", "/v2/health/ready")

    assert early[0] == asked[0] == 503
    assert {row["name"]: row["state"] for row in index} == {"fleet": "UNAVAILABLE", "load": "UNAVAILABLE"}
    assert late == (200, {"ready": True})


def test_a_forecaster_that_was_never_trained_is_not_found(tmp_path: Path) -> None:
    path = tmp_path / "forecaster.twf"
    with serving(Spec(put(tmp_path / "fleet.arrow", fleet()), forecaster=path)) as running:
        status, body = running.call("POST", SCORE, {"data": ROW})
        loading, _ = running.call("POST", "/v2/repository/models/load/load")
        lay(path, forecaster())
        loaded, _ = running.call("POST", "/v2/repository/models/load/load")
        found, _ = running.call("POST", SCORE, {"data": ROW})

    assert (status, loading) == (404, 404)
    assert body["error"] == "There is no model load: there is no forecaster yet; run `tidewatch load train`."
    assert (loaded, found) == (200, 200)


def test_a_fleet_that_is_torn_is_not_ready_though_there_is_a_forecaster(tmp_path: Path) -> None:
    torn = put(tmp_path / "fleet.arrow", fleet())
    torn.write_bytes(torn.read_bytes()[1:])

    async def play() -> tuple[bool, bool]:
        repository = Repository(Spec(torn, forecaster=lay(tmp_path / "forecaster.twf", forecaster())))
        await repository.look()
        return repository.ready, any(repository.kept())

    assert asyncio.run(play()) == (False, True)
