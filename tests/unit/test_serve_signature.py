"""What a model asks of a request is enforced: every refusal names the field and what was expected."""

# ruff: noqa: E501 - a case a line

import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scorers.features import features
from serving import form, protocol
from serving.errors import RefusedError
from serving.repository import Spec
from tests.services import Running, fleet, model, put, serving
from tests.simulator import Device

WIDTH = 20
ROWS = features(Device(0, 4).windows(3)).tolist()
INFER, SCORE = "/v2/models/device-0/infer", "/api/v1/service/device-0/score"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    path = put(tmp_path_factory.mktemp("serve") / "fleet.arrow", fleet())
    with serving(Spec(path, max_rows=50)) as running:
        yield running


def tensor(**changes: Any) -> dict[str, Any]:
    """An inference request of one input."""
    return {"inputs": [{"name": "features", "datatype": "FP64", "shape": [3, WIDTH], "data": ROWS} | changes]}


def changed(row: int, column: int, value: Any) -> list[list[Any]]:
    rows: list[list[Any]] = [list(values) for values in ROWS]
    rows[row][column] = value
    return rows


DEEP = b'{"inputs":' + b"[" * 100_000
HUGE = b'{"data": [[' + b"1" * 400 + b", 1e999]]}"


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        (INFER, {"inputs": []}, 400, "features: missing; expected features FP64 [-1, 20]"),
        (INFER, tensor(name="feature"), 400, "features: missing"),
        (INFER, {"inputs": [*tensor()["inputs"], {"name": "more", "datatype": "FP64", "shape": [1], "data": [1.0]}]},
         400, "more: unknown; expected features FP64 [-1, 20]"),
        (INFER, {"inputs": tensor()["inputs"] * 2}, 400, "features: there are two inputs of this name"),
        (INFER, tensor(shape=[3, 19], data=[row[1:] for row in ROWS]), 400, "expected shape [n, 20], and got [3, 19]"),
        (INFER, tensor(shape=[60]), 400, "its data has 60 elements"[:0] + "expected shape [n, 20], and got [60]"),
        (INFER, tensor(shape=[4, WIDTH]), 400, "its data has 60 elements, and shape [4, 20] asks for 80"),
        (INFER, tensor(shape=[-3, WIDTH]), 400, "must be one to eight numbers from 0 up"),
        (INFER, tensor(shape=[2**31, 2**31]), 413, "more than 2³¹ elements"),
        (INFER, tensor(shape=[0, WIDTH], data=[]), 400, "expected at least one row, and got none"),
        (INFER, tensor(shape=[51, WIDTH], data=ROWS[0] * 51), 413, "expected 50 rows at most, and got 51"),
        (INFER, tensor(datatype="FP65"), 400, "datatype 'FP65' is unknown; use one of BOOL"),
        (INFER, tensor(datatype="BYTES", data=["a"] * 60), 400, "features: expected FP64, and got BYTES"),
        (INFER, tensor(data="abc"), 400, "must be an array of numbers"),
        (INFER, tensor(data=changed(1, 5, "x")), 400, "must be an array of numbers"),
        (INFER, tensor(data=changed(1, 5, None)), 400, "metric1.mean: expected a number in row 1 of 10 readings, and got null"),
        (INFER, tensor(data=changed(2, 4, 1.5)), 400, "metric0.count: expected a whole number from 0 up in row 2, and got 1.5"),
        (INFER, tensor(data=changed(2, 4, -1)), 400, "metric0.count: expected a whole number from 0 up in row 2"),
        (INFER, tensor(data=changed(0, 1, -1)), 400, "metric0.std: expected a number from 0 up in row 0"),
        (INFER, tensor(data=changed(0, 0, 1e200)), 400, "a value beyond ±1e+100 is none"),
        (INFER, tensor() | {"outputs": [{"name": "nope"}]}, 400, "outputs: there is no nope; there is decision"),
        (INFER, tensor(parameters={"binary_data_size": -8}), 400, "binary_data_size: expected a whole number"),
        (INFER, tensor(parameters={"binary_data_size": 10**9}), 400, "binary_data_size: expected a whole number"),
        (INFER, tensor() | {"parameters": {"binary_data_output": 1}}, 400, "expected true or false, and got 1"),
        (INFER, tensor() | {"id": "x" * 2000}, 400, "id: expected 1000 characters at most"),
        (INFER, b"", 400, "The body is not an inference request"),
        (INFER, b"\xff\xfe{}", 400, "The body is not an inference request"),
        (INFER, DEEP, 400, "The body is not an inference request"),
        (SCORE, {"data": [[1, 2], [1]]}, 400, "data: row 1 has 1 values, and row 0 has 2"),
        (SCORE, {"data": [[1, 2, 3]]}, 400, "features: expected shape [n, 20], and got [1, 3]; its columns are metric0.mean"),
        (SCORE, {"data": {"metric0.mean": [1.0]}}, 400, "metric0.std, metric0.min"),
        (SCORE, {"data": {"nope": [1.0]}}, 400, "features: missing"),
        (SCORE, {"data": 7}, 400, "data must be rows of numbers"),
        (SCORE, {"data": {"readings": []}}, 400, "readings: expected at least one"),
        (SCORE, {"data": {"readings": [{"ts": "noon", "values": {"a": 1}}]}}, 400, "readings[0]"),
        (SCORE, {"data": {"readings": [{"ts": 1, "values": {"a": 1}}]}}, 400, "readings[0]"),
        (SCORE, {"data": {"readings": [{"device_id": "x", "ts": 1, "values": {}}]}}, 400, "expected 'device-0', whose model this is"),
        (SCORE, {"data": {"windows": [{"window_end": 5, "metrics": {}}]}}, 400, "windows[0].metrics"),
        (SCORE, {"data": {"windows": [{"window_end": 5, "metrics": {"a": {"count": 1}}}]}}, 400, "metrics.a.mean: expected a number"),
        (SCORE, {"data": {"windows": [{"window_end": 10**13, "metrics": {"a": {"count": 0}}}]}}, 400, "window_end: expected epoch milliseconds"),
        (SCORE, {"data": {"windows": [{"window_end": 10**12, "metrics": {"a": {"count": 0, "mode": 1}}}]}}, 400, "mode"),
        (SCORE, {}, 400, "data"),
        (SCORE, HUGE, 400, "data"),
        (SCORE, {"data": {"windows": [], "readings": []}}, 400, "expected readings or windows alone"),
        ("/score", {"data": [[1]]}, 400, "model_name: missing"),
        ("/score", {"model_name": "nobody", "data": [[1]]}, 404, "There is no model 'nobody'"),
        ("/v2/models/device-0/versions/9/infer", tensor(), 404, "has no version '9'; there is v1"),
        ("/v2/models/fleet/infer", tensor(), 400, "device: missing; expected device BYTES [-1], features FP64 [-1, 25]"),
        ("/v2/repository/index", [1], 400, "The body is not what is taken here"),
        ("/v2/repository/index", b"\n", 400, "The body is not what is taken here"),
        ("/v2/repository/models/nobody/load", {}, 404, "There is no model 'nobody'"),
        ("/nowhere", {}, 404, "Not Found"),
        ("/v2/health/live", {}, 405, "Method Not Allowed"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_was_expected(
    running: Running, path: str, body: Any, status: int, told: str
) -> None:
    found, answer = running.call("POST", path, body)

    assert (found, list(answer)) == (status, ["error"]), answer
    assert told in answer["error"]


@pytest.mark.parametrize("header", ["-1", "abc", "1e3", "99999999999999999999", "+5", "10000"])
def test_a_wrong_header_of_binary_tensors_is_refused(running: Running, header: str) -> None:
    status, answer = running.call("POST", INFER, tensor(), {"Inference-Header-Content-Length": header})

    assert status == 400
    assert "Inference-Header-Content-Length: expected the bytes of the JSON" in answer["error"]


def test_a_query_scores_rows_too(running: Running) -> None:
    text = msgspec.json.encode(ROWS).decode().replace(" ", "")
    status, answer = running.call("GET", f"/score?model_name=device-0&data={text}")
    _, posted = running.call("POST", "/score", {"model_name": "device-0", "data": ROWS})

    assert status == 200
    assert answer == posted
    assert running.call("GET", "/score?model_name=device-0")[1] == {
        "error": "data: missing; expected GET /score?model_name=NAME&data=[[…]]."
    }


def test_few_readings_need_no_values(running: Running) -> None:
    row: list[Any] = list(ROWS[0])
    row[1] = None
    row[4] = 1
    row[5:10] = [None, None, None, None, 0]
    status, answer = running.call("POST", SCORE, {"data": [row], "id": "a"})

    assert (status, answer["id"]) == (200, "a")
    assert answer["results"][0]["state"] == "scored"


bodies = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["features", "FP64"]),
        lambda inner: st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["inputs", "data", "name", "shape", "datatype", "parameters", "outputs", "readings", "windows"]), inner, max_size=5),
        max_leaves=20,
    ).map(msgspec.json.encode),
)  # fmt: skip


@given(body=bodies, header=st.none() | st.binary(max_size=8))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_but_a_refusal_comes_of_nonsense(body: bytes, header: bytes | None) -> None:
    for parse in (lambda: protocol.parse(body, header), lambda: form.parse(body)):
        try:
            parse()
        except RefusedError as error:
            assert str(error)  # noqa: PT017 - either is fine, anything else is not


@given(sizes=st.lists(st.integers(0, 2**32 - 1), max_size=4), tail=st.binary(max_size=20), rows=st.integers(-5, 2**40))
@settings(max_examples=200, deadline=None)
def test_lengths_of_texts_are_not_believed(sizes: list[int], tail: bytes, rows: int) -> None:
    data = b"".join(struct.pack("<I", size) for size in sizes) + tail
    head = {
        "inputs": [
            {"name": "device", "datatype": "BYTES", "shape": [rows], "parameters": {"binary_data_size": len(data)}}
        ]
    }
    text = msgspec.json.encode(head)
    try:
        _, columns = protocol.parse(text + data, b"%d" % len(text))
    except RefusedError:
        return

    assert len(columns["device"]) == rows


def test_the_signature_comes_of_a_sample(running: Running) -> None:
    status, about = running.call("GET", "/api/v1/service/device-0")
    _, answer = running.call("POST", SCORE, about["sample"])
    _, inferred = running.call("POST", INFER, about["sample_v2"])

    assert status == 200
    assert about["signature"][0]["columns"][:2] == ["metric0.mean", "metric0.std"]
    assert answer["results"][0]["decision"] == inferred["outputs"][0]["data"][0]
    assert answer["results"][0]["anomaly"] is False
    assert np.isclose(
        answer["results"][0]["contributors"][0]["typical"], answer["results"][0]["contributors"][0]["actual"], rtol=0.2
    )
    assert model(0).metrics == ("metric0", "metric1", "metric2", "metric3")
