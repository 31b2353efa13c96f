"""The command line: what it refuses, in which words, and with which exit code."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer import Typer
from typer.main import get_command, get_group
from typer.testing import CliRunner

from producers.sensors import SensorFleet
from scorers.errors import ConfigError, InputError, TidewatchError
from stream.contracts import Topics
from tidewatch.cli import app, main
from tidewatch.commands.feed import before
from tidewatch.index import INDEX
from tidewatch.servers import free_ports
from tidewatch.stack import embedded_broker
from tidewatch.topics import prepare_topics

PROJECT = Path(__file__).parents[2]

COMMANDS = ["up", "produce", "produce sensors", "produce sessions", "replay", "worker", "train", "sink", "evaluate"]
COMMANDS += ["compare", "compact", "alerts", "top", "config", "doctor", "rejects", "rejects list"]
COMMANDS += ["rejects show", "rejects replay", "lag", "accept", "score"]
COMMANDS += ["models", *(f"models {word}" for word in ("list", "show", "compare", "promote", "rollback", "delete"))]
COMMANDS += ["schedule", *(f"schedule {word}" for word in ("run", "list", "now", "history", "logs"))]
COMMANDS += ["report"]
COMMANDS += [
    "load",
    *(f"load {word}" for word in ("etl", "generate", "plan", "train", "forecast", "backtest", "worker")),
    *(f"load {word}" for word in ("models", "compare", "promote", "rollback", "delete")),
]
COMMANDS += ["serve", "service", "service usage", "service smoke"]
COMMANDS += ["jobs", "jobs list", "jobs show", "jobs logs", "jobs cancel", "jobs delete"]
COMMANDS += ["keys", *(f"keys {word}" for word in ("create", "list", "revoke", "rotate"))]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory of its own, and nobody's settings."""
    monkeypatch.chdir(tmp_path)
    for variable in ("TIDEWATCH_KAFKA", "TIDEWATCH_REDIS", "TIDEWATCH_DATA", "LOG_LEVEL"):
        monkeypatch.delenv(variable, raising=False)


def run(words: str) -> tuple[int, str]:
    """Exit code and output of a command that is done by then."""
    result = CliRunner().invoke(app, words.split())
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def refusal(words: str) -> TidewatchError:
    """The error a command ends with."""
    error = CliRunner().invoke(app, words.split()).exception
    assert isinstance(error, TidewatchError), error
    return error


def ended(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: str) -> tuple[int, str]:
    """Exit code and stderr of the whole program."""
    monkeypatch.setattr(sys, "argv", ["tidewatch", *words.split()])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), " ".join(capsys.readouterr().err.split())


def commands(above: Any, name: str = "tidewatch") -> Iterator[tuple[str, Any]]:
    """Every command and its path."""
    yield name, above
    for word in getattr(above, "commands", ()):
        yield from commands(above.get_command(None, word), f"{name} {word}")


def test_the_list_of_commands_says_what_they_say_themselves() -> None:
    root: Any = get_command(app)
    listed = {name: place.help for name, place in INDEX.items()}
    own = {name: root.get_command(None, name).help.partition("\n\n")[0].replace("\n", " ") for name in INDEX}

    assert listed == own
    assert list(listed) == root.list_commands(None)


def test_every_command_of_a_module_is_in_the_list() -> None:
    registered: set[str] = set()
    for module in {place.module for place in INDEX.values()}:
        part = Typer()
        import_module(f"tidewatch.commands.{module}").register(part)
        registered |= set(get_group(part).commands)

    assert registered == set(INDEX)


def test_a_slip_of_the_pen_is_told_what_it_may_have_meant() -> None:
    code, output = run("wroker")

    assert code == 2
    assert "Did you mean 'worker'" in " ".join(output.split())


HEAVY = "sklearn pandas faust duckdb mlflow pyspark numba pyarrow confluent_kafka fastapi"


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        ("--help", HEAVY),
        ("", HEAVY),
        ("worker --help", "sklearn pandas duckdb mlflow pyspark fastapi fakeredis holidays"),
        ("serve --help", "sklearn faust mlflow pyspark fakeredis producers"),
    ],
)
def test_a_command_imports_what_it_needs(words: str, absent: str) -> None:
    script = (
        "import atexit, sys, tidewatch.cli\n"
        f"atexit.register(lambda: print({{*{absent.split()}}} & sys.modules.keys(), file=sys.stderr))\n"
        f"sys.argv = ['tidewatch', *{words.split()}]\n"
        "tidewatch.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=False)

    assert "Usage: tidewatch" in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1] == "set()"


def test_every_command_and_flag_is_explained() -> None:
    found = dict(commands(get_command(app)))
    mute = [name for name, command in found.items() if not command.help]
    mute += [f"{name} {flag.name}" for name, command in found.items() for flag in command.params if not flag.help]

    assert set(found) == {"tidewatch", *(f"tidewatch {name}" for name in COMMANDS)}
    assert not mute


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_given_wherever_it_is_asked_for(command: str) -> None:
    code, output = run(f"{command} -h")

    assert code == 0
    assert f"Usage: tidewatch {command}".strip() in output


@pytest.mark.parametrize(
    "words",
    [
        "--nope",
        "nope",
        "top --nope",
        "sink",
        "sink s3",
        "evaluate nope",
        "evaluate skab --through nope",
        "up --for 5",
        "produce sensors --devices 0",
        "produce sensors --for -5",
        "produce sensors --interval 0",
        "produce sessions --fault-rate -1",
        "worker --log loud",
        "--log loud config",
        "top --count 0",
        "rejects",
        "rejects show",
        "rejects list --count -1",
        "train --workers 0",
    ],
)
def test_wrong_usage_is_explained_and_ends_with_2(words: str) -> None:
    code, output = run(words)

    assert code == 2
    assert "Usage: " in output


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("--set foo config", "group.name=value"),
        ("--set window.siz_s=3 config", "window.size_s"),
        ("--set window.size_s=abc config", "window.size_s"),
        ("--set =3 config", "is not a setting"),
        ("--config none.toml config", "--config"),
        ("--kafka nonsense doctor", "kafka.bootstrap"),
        ("--redis ftp://here top --once", "redis.url"),
        ("produce sensors --speed fast", "--speed 'fast'"),
        ("produce sensors --speed 0", "speed"),
        ("produce sensors --rate -5", "rate"),
        ("produce sensors --start yesterday", "--start 'yesterday'"),
        ("replay pump.csv --from soon", "--from 'soon'"),
        ("replay pump.csv --to later", "--to 'later'"),
        ("train --since soon", "--since 'soon'"),
        ("accept", "--list"),
        ("accept pump-1 --revoke --note sorry", "--revoke"),
        ("accept pump-1 --since soon", "--since 'soon'"),
        (f"accept pump-1 --note {'x' * 1001}", "--note"),
        ("rejects list --reason dull", "choose from empty, too_large"),
        ("rejects list --topic device.scores", "choose from sensor.readings, server.sessions"),
        ("rejects list --since soon", "--since 'soon'"),
        ("rejects replay --until soon", "--until 'soon'"),
        ("rejects replay sensor.readings/0/1 --reason late", "exclude each other"),
    ],
)
def test_a_wrong_setting_is_named(words: str, names: str) -> None:
    Path("pump.csv").write_text("ts,flow\n2024-01-01T00:00:00Z,1\n")
    error = refusal(words)

    assert isinstance(error, ConfigError)
    assert names in str(error)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("replay nothing", "'nothing'"),
        ("replay skab --data nowhere", "--data"),
        ("evaluate skab --data nowhere", "--data"),
        ("replay *.jsonl", "*.jsonl"),
        ("replay junk.csv", "junk.csv"),
        ("replay junk.parquet", "junk.parquet"),
        ("train", "statistics"),
        ("compare here there", "here"),
        ("rejects show 17", "'17'"),
        ("rejects replay sensor.readings/0", "topic/partition/offset"),
    ],
)
def test_what_cannot_be_read_is_named(words: str, names: str) -> None:
    for name in ("junk.csv", "junk.parquet"):
        Path(name).write_text("this is\nno recording\n")
    error = refusal(words)

    assert isinstance(error, InputError)
    assert names in str(error)


@pytest.mark.parametrize(
    ("words", "expected"),
    [("--set foo config", 2), ("replay nothing", 3), ("--redis redis://127.0.0.1:1/0 top --once", 4)],
)
def test_an_error_is_one_sentence_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: str, expected: int
) -> None:
    code, told = ended(capsys, monkeypatch, words)

    assert code == expected
    assert told.startswith("error: ")
    assert "Traceback" not in told


def test_markup_in_what_was_typed_is_told_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, told = ended(capsys, monkeypatch, "replay [/]")

    assert (code, "'[/]'" in told) == (3, True)


def test_a_redis_that_does_not_answer_is_told_with_its_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    code, told = ended(capsys, monkeypatch, f"--redis redis://127.0.0.1:{port}/0 top --json")

    assert code == 4
    assert "TIDEWATCH_REDIS" in told


def test_a_kafka_that_does_not_answer_is_told_with_its_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    code, told = ended(capsys, monkeypatch, f"--kafka 127.0.0.1:{port} worker")

    assert code == 4
    assert told.startswith("error: ")
    assert "TIDEWATCH_KAFKA" in told


def test_a_worker_refuses_a_corrupt_fleet() -> None:
    Path("fleet.arrow").write_bytes(b"ARROW1 and then nothing of use")
    with embedded_broker() as broker:
        flags = ["--kafka", broker.bootstrap, "--set", "worker.fleet=fleet.arrow"]
        done = program(*flags, "worker")

    assert done.returncode == 3
    assert done.stderr.startswith("error: fleet.arrow ")
    assert "Traceback" not in done.stderr


def test_nothing_is_replayed_on_the_embedded_broker() -> None:
    with embedded_broker() as broker:
        error = refusal(f"--kafka {broker.bootstrap} rejects replay")

    assert isinstance(error, ConfigError)
    assert "TIDEWATCH_KAFKA" in str(error)


def test_lag_is_told_of_the_embedded_broker_too() -> None:
    with embedded_broker() as broker:
        prepare_topics(broker, Topics(), partitions=4)
        code, output = run(f"--kafka {broker.bootstrap} lag --json")

    assert code == 0
    assert {group["state"] for group in json.loads(output)["groups"]} == {"unknown"}


def test_lag_is_told_or_ends_but_not_both() -> None:
    assert isinstance(refusal("lag --watch --fail-above 3"), ConfigError)


@pytest.mark.parametrize(
    ("toml", "names"),
    [
        ("[window]\nsize_s = 'long'\n", "window.size_s is 'long'"),
        ("[windows]\nsize_s = 1\n", "did you mean window.size_s"),
        ("window", "is not TOML"),
    ],
)
def test_a_wrong_file_of_settings_is_told(toml: str, names: str) -> None:
    Path("tidewatch.toml").write_text(toml)
    told = str(refusal("config"))

    assert names in told
    assert "tidewatch.toml" in told


def test_settings_in_force_hide_secrets() -> None:
    secret = "--redis redis://:hunter2@localhost:1/0 --set kafka.options.sasl.password=hunter2"
    _, table = run(f"{secret} config")
    _, document = run(f"{secret} config --json")
    rows = {row["field"]: row for row in json.loads(document)}

    assert "hunter2" not in table + document
    assert rows["redis.url"]["value"] == "redis://********@localhost:1/0"
    assert rows["redis.url"]["origin"] == "flag"
    assert rows["kafka.options"]["value"] == "sasl.password=********"


def test_simulated_data_ends_where_it_was_told_to() -> None:
    fleet = SensorFleet(3, start=60_000, fault_rate=3_000).build()
    batches = list(before(fleet.batches(), 60_000 + 5_000))
    stamps = np.concatenate([batch.ts for batch in batches])

    # one reading a device and second; a run of 8 192 of them reaches far past the end
    assert len(stamps) == sum(len(batch) for batch in batches) == 3 * 5
    assert stamps.max() < 65_000
    assert all(fault.start < 65_000 for batch in batches for fault in batch.faults)


def program(*words: str) -> subprocess.CompletedProcess[str]:
    """A command as a process of its own."""
    command = [sys.executable, "-m", "tidewatch", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_output_for_a_pipe_has_no_codes_for_a_terminal() -> None:
    done = program("config")

    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr


def test_faust_takes_none_of_our_flags() -> None:
    done = program("worker", "--loop")

    assert done.returncode == 2
    assert "No such option: --loop" in done.stderr


def test_a_reader_that_has_seen_enough_ends_it_quietly() -> None:
    command = f"{sys.executable} -m tidewatch config --json | head -c 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=True)

    assert (done.stdout, done.stderr) == ("[", "")


def test_a_key_is_made_shown_once_and_ended() -> None:
    token = run("keys create dashboard --scope read --scope score --expires 90d")[1].splitlines()[-1]
    code, listed = run("keys list --json")
    held = json.loads(listed)[0]

    assert token.startswith("tw_")
    assert token not in listed
    assert (code, held["name"], held["scopes"], held["state"]) == (0, "dashboard", ["read", "score"], "active")

    rotated = json.loads(run("keys rotate dashboard --overlap 1h --json")[1])

    assert rotated["key"] != token

    run("keys revoke dashboard")

    assert [key["state"] for key in json.loads(run("keys list --json")[1])] == ["revoked", "revoked"]


def test_a_key_that_is_not_there_cannot_be_revoked() -> None:
    assert isinstance(refusal("keys revoke nobody"), ConfigError)
    assert isinstance(refusal("keys create a --expires yesterday"), ConfigError)
