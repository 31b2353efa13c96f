"""The service as its documents and its own client find it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serving.repository import Spec
from tests.services import Running, fleet, forecaster, lay, put, serving
from tidewatch.cli import app
from tidewatch.servers import free_ports

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("serve")
    path = put(folder / "fleet.arrow", fleet())
    with serving(Spec(path, forecaster=lay(folder / "forecaster.twf", forecaster()))) as running:
        yield running


def service(running: Running, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["service", *words, "--url", f"http://127.0.0.1:{running.port}"])
    return result.exit_code, result.output


def test_the_smoke_test_passes(running: Running) -> None:
    code, output = service(running, "smoke", "--json")
    steps = json.loads(output)["steps"]

    assert code == 0
    assert len(steps) == 13 + 5
    assert sum(step["what"].startswith("forecaster") for step in steps) == 5
    assert all(re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", step["traceparent"]) for step in steps)
    assert service(running, "smoke", "fleet")[0] == service(running, "smoke", "load")[0] == 0


def test_usage_prints_a_call_that_works(running: Running) -> None:
    code, output = service(running, "usage", "device-0")
    said = output[output.index("curl ") :]
    answer = subprocess.run(["bash", "-c", said], capture_output=True, text=True, check=True).stdout

    assert code == 0
    assert f"http://127.0.0.1:{running.port}/api/v1/service/device-0/score" in output
    assert json.loads(answer)["results"][0]["state"] == "scored"


def test_the_documents_need_no_network(running: Running) -> None:
    for page in ("/docs", "/redoc"):
        status, _, content = running.raw("GET", page)
        links = re.findall(rb'(?:src|href)="([^"]+)"', content)

        assert status == 200
        assert links
        for link in links:
            assert link.startswith(b"/assets/")
            assert running.raw("GET", link.decode())[0] == 200


def test_the_document_has_every_route_and_examples_that_work(running: Running) -> None:
    _, document = running.call("GET", "/openapi.json")
    path = "/v2/models/{name}/infer"
    examples = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]

    assert {"/score", "/api/v1/service/{name}/score", path, "/v2/models/{name}/versions/{version}/infer"} < set(
        document["paths"]
    )
    assert set(examples) == {"device-0", "load"}
    for name, example in examples.items():
        assert running.call("POST", path.format(name=name), example["value"])[0] == 200


def test_the_service_keeps_its_document(running: Running, tmp_path: Path) -> None:
    words = [
        "--config-file",
        str(PROJECT / "schemathesis.toml"),
        "run",
        f"http://127.0.0.1:{running.port}/openapi.json",
    ]
    words += ["--checks", "all", "--max-examples", "4", "--seed", "1", "--no-color"]
    command = [str(Path(sys.executable).parent / "schemathesis"), *words]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout[-4000:]


def test_the_process_answers_and_ends_well(tmp_path: Path) -> None:
    put(tmp_path / "var" / "fleet.arrow", fleet())
    lay(tmp_path / "var" / "load" / "models" / "forecaster.twf", forecaster())
    port, grpc = free_ports(2)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TIDEWATCH_")}
    command = [sys.executable, "-m", "tidewatch", "serve", "--port", str(port), "--grpc-port", str(grpc)]
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True) as process:
        words = [*command[:3], "service", "smoke", "--url", f"http://127.0.0.1:{port}"]
        for _ in range(60):
            smoke = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
            if smoke.returncode != 4:
                break
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)

    assert smoke.returncode == 0, smoke.stdout + said
    assert "forecaster, service score" in smoke.stdout
    assert process.returncode == 0, said
    assert "error" not in said


def test_an_address_that_is_taken_is_told(running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["serve", "--port", str(running.port), "--grpc-port", "0"])
    one = CliRunner().invoke(app, ["serve", "--port", "9", "--grpc-port", "9"])
    alike = CliRunner().invoke(app, ["--set", "serving.forecaster=fleet", "serve"])

    assert "cannot be listened on" in str(result.exception)
    assert "give it another one" in str(one.exception)
    assert "serving.forecaster is fleet, as serving.name" in str(alike.exception)
