"""The Open Inference Protocol, as its own client speaks it."""

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.http as over_http
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import OneClassSVM
from tritonclient.utils import InferenceServerException

from scorers.features import features, transform
from scorers.model import DeviceModel
from scorers.statistics import Floats, Statistics
from serving.grpc import messages
from serving.repository import Spec
from tests.services import SPEC, Running, fleet, model, put, serving, tritons
from tests.simulator import Device


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    path = put(tmp_path_factory.mktemp("serve") / "fleet.arrow", fleet())
    with serving(Spec(path)) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, running: Running) -> Iterator[tuple[Any, Any]]:
    """A client, and the module that its tensors are of."""
    with tritons(request.param, running) as found:
        yield found


def windows(seed: int, metrics: int = 4) -> tuple[Statistics, Floats]:
    statistics = Device(seed, metrics).windows(40)
    return statistics.align(model(seed, metrics).metrics), features(statistics.align(model(seed, metrics).metrics))


def tensor(kind: Any, name: str, array: Any) -> Any:
    found = kind.InferInput(name, list(array.shape), "BYTES" if array.dtype == object else "FP64")
    found.set_data_from_numpy(array)
    return found


def test_what_a_client_asks_first_is_answered(client: tuple[Any, Any]) -> None:
    asked, _ = client
    about = asked.get_model_metadata("device-0")
    server = asked.get_server_metadata()
    told = (
        (about, server)
        if isinstance(about, dict)
        else ({"versions": list(about.versions), "platform": about.platform}, {"name": server.name})
    )

    assert asked.is_server_live()
    assert asked.is_server_ready()
    assert asked.is_model_ready("device-0")
    assert asked.is_model_ready("device-0", "v1")
    assert told[0]["versions"] == ["v1"]
    assert told[0]["platform"] == "tidewatch_one_class"
    assert told[1]["name"] == "tidewatch"


def test_the_index_lists_every_model(client: tuple[Any, Any]) -> None:
    asked, _ = client
    found = asked.get_model_repository_index()
    rows = found if isinstance(found, list) else [{"name": one.name, "state": one.state} for one in found.models]

    assert sorted(row["name"] for row in rows) == ["device-0", "device-1", "device-2", "fleet", "other"]
    assert {row["state"] for row in rows} == {"READY"}


def test_a_model_is_unloaded_and_loaded(client: tuple[Any, Any]) -> None:
    asked, _ = client
    asked.unload_model("device-1")
    away = asked.is_model_ready("device-1") if isinstance(asked, over_http.InferenceServerClient) else None
    with pytest.raises(InferenceServerException, match="is unloaded"):
        asked.get_model_metadata("device-1")
    asked.load_model("device-1")
    asked.load_model("fleet", config='{"max_batch_size": 8}')

    assert not away
    assert asked.is_model_ready("device-1")
    with pytest.raises(InferenceServerException, match="file:"):
        asked.load_model("fleet", config="{}", files={"file:1/model.onnx": b"x"})


def svm(known: DeviceModel, windows: Statistics, test: Statistics) -> Floats:
    """scikit-learn's own decision values, trained on the same whitened features."""
    first, second = (
        known.space.whiten(transform(features(part.align(known.metrics)), known.space.softening))
        for part in (windows, test)
    )
    machine = OneClassSVM(nu=SPEC.nu, gamma=SPEC.gamma / first.shape[1], tol=1e-4 * min(10, SPEC.nu * len(windows)))
    found: Floats = machine.fit(first).decision_function(second)
    return found


@pytest.mark.parametrize(("seed", "metrics"), [(0, 4), (1, 5), (2, 4)])
def test_a_device_is_scored_as_scikit_learn_does(client: tuple[Any, Any], seed: int, metrics: int) -> None:
    asked, kind = client
    statistics, rows = windows(seed, metrics)
    found = asked.infer(f"device-{seed}", [tensor(kind, "features", rows)])
    expected = svm(model(seed, metrics), Device(seed, metrics).windows(80), statistics)

    np.testing.assert_allclose(found.as_numpy("decision_function"), expected, rtol=0, atol=1e-6)
    assert found.as_numpy("anomaly").dtype == np.bool_
    assert (found.as_numpy("anomaly") == (found.as_numpy("decision") < 0)).all()
    assert found.as_numpy("feature").shape == (40, 3)


def test_another_detector_is_scored_as_scikit_learn_does(client: tuple[Any, Any]) -> None:
    asked, kind = client
    known = model(7, neighbours=True)
    _, rows = windows(7)
    found = asked.infer("other", [tensor(kind, "features", rows)])
    whitened = known.space.whiten(transform(rows, known.space.softening))
    near = NearestNeighbors(n_neighbors=known.kernel.nearest).fit(known.kernel.vectors).kneighbors(whitened)[0]
    distance = (near**2).mean(axis=1)
    expected = np.exp(np.log(known.kernel.coefs.sum()) - known.kernel.gamma * distance) - known.kernel.offset

    np.testing.assert_allclose(found.as_numpy("decision_function"), expected, atol=1e-6)


def test_the_fleet_is_scored_by_its_device_column(client: tuple[Any, Any]) -> None:
    asked, kind = client
    _, rows = windows(0)
    devices = np.array([b"device-0", b"nobody"] * 20, object)
    names = (
        "device",
        *[f"{metric}.{part}" for metric in model(0).metrics for part in ("mean", "std", "min", "max", "count")],
    )
    columns = [devices, *np.ascontiguousarray(rows.T)]
    wanted = [kind.InferRequestedOutput(name) for name in ("state", "decision")]
    given = [tensor(kind, name, column) for name, column in zip(names, columns, strict=True)]
    found = asked.infer("fleet", given, outputs=wanted, request_id="7", model_version="v1")
    alone = asked.infer("device-0", [tensor(kind, "features", rows)])

    assert found.as_numpy("state").tolist() == [b"scored", b"learning"] * 20
    np.testing.assert_allclose(found.as_numpy("decision")[::2], alone.as_numpy("decision")[::2], atol=1e-12)
    assert np.isnan(found.as_numpy("decision")[1::2]).all()
    assert found.as_numpy("score") is None
    response = found.get_response()
    assert (response["id"] if isinstance(response, dict) else response.id) == "7"


def test_contents_that_are_not_raw_are_answered_alike(running: Running) -> None:
    known = messages()
    _, rows = windows(0)
    request = known["ModelInferRequest"](
        model_name="device-0",
        inputs=[
            {"name": "features", "datatype": "FP64", "shape": rows.shape, "contents": {"fp64_contents": rows.ravel()}}
        ],
        outputs=[{"name": "decision"}, {"name": "state"}],
    )
    with grpc.insecure_channel(f"127.0.0.1:{running.grpc}") as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            known["ModelInferRequest"].SerializeToString,
            known["ModelInferResponse"].FromString,
        )
        found = call(request)
    status, answer = running.call(
        "POST",
        "/v2/models/device-0/infer",
        {
            "inputs": [{"name": "features", "datatype": "FP32", "shape": rows.shape, "data": rows.tolist()}],
            "outputs": [{"name": "decision"}],
        },
    )

    assert status == 200
    assert list(found.outputs[1].contents.bytes_contents) == [b"scored"] * 40
    np.testing.assert_allclose(found.outputs[0].contents.fp64_contents, answer["outputs"][0]["data"], atol=1e-3)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request_is_taken(running: Running, algorithm: str) -> None:
    client = over_http.InferenceServerClient(f"127.0.0.1:{running.port}")
    found = client.infer(
        "device-0", [tensor(over_http, "features", windows(0)[1])], request_compression_algorithm=algorithm
    )
    client.close()

    assert found.as_numpy("score").shape == (40,)


def test_an_unknown_model_is_said_to_be_unknown(client: tuple[Any, Any]) -> None:
    asked, kind = client

    with pytest.raises(InferenceServerException, match="There is no model 'nobody'"):
        asked.infer("nobody", [tensor(kind, "features", windows(0)[1])])
    with pytest.raises(InferenceServerException, match="has no version 'v9'; there is v1"):
        asked.infer("device-0", [tensor(kind, "features", windows(0)[1])], model_version="v9")
