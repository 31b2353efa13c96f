"""What the documents say is what the code does: contracts, commands, links, words."""

import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import typer.main
import yaml
from jsonschema import Draft202012Validator

from producers.sessions import COLUMNS
from stream.app import sources
from stream.contracts import Acceptance, Alert, Fault, Forecast, Reason, Receipt, Score, Topics
from stream.encode import alert_message, forecast_message, receipt_message
from stream.forecast.state import HeldSession, LoadState
from stream.levels import acceptance
from stream.message import Message, singly
from stream.partition import Partition, StreamSpec
from stream.records import PUNCTUATION, Headers, Records, marks
from stream.state import DeviceState, PartitionState
from tidewatch.cli import app

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", PROJECT / "CHANGELOG.md", *sorted((PROJECT / "docs").rglob("*.md"))]
TOPICS = Topics()
NOW = 1_700_000_000_000
STRUCTS: dict[str, Any] = {
    "score": Score,
    "alert": Alert,
    "fault": Fault,
    "receipt": Receipt,
    "deviceState": DeviceState,
    "partitionState": PartitionState,
    "forecast": Forecast,
    "heldSession": HeldSession,
    "loadState": LoadState,
}
_, SCHEMAS = msgspec.json.schema_components([*STRUCTS.values(), Acceptance])
INPUTS = [("reading", 0), ("narrowReading", 0), ("session", 1)]


@cache
def asyncapi() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((PROJECT / "docs" / "asyncapi.yaml").read_text("utf-8"))
    return document


def examples(message: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = asyncapi()["components"]["messages"][message]["examples"]
    return found


def errors(schema: dict[str, Any], value: object) -> list[str]:
    """What is wrong with ``value`` by a schema of the document."""
    validator = Draft202012Validator({**schema, "components": asyncapi()["components"]})
    return [error.message for error in validator.iter_errors(value)]


def partition(source: int) -> Partition:
    return Partition(sources(TOPICS)[source], 0, StreamSpec(), TOPICS)


def feed(core: Partition, values: list[bytes | None], headers: Headers = ()) -> list[Message]:
    offsets = core.next_offset + np.arange(len(values))
    stamps = np.full(len(values), NOW)
    keys: list[bytes | None] = [b"k"] * len(values)
    records = Records(core.source.topic, 0, offsets, stamps, keys, values, [headers] * len(values))
    return [*singly(core.feed(records))]


def emitted() -> list[Message]:
    """Every kind of record that the core gives: scores, a reject, the state of a device and of a partition."""
    core = partition(0)
    reading = {"device_id": "pump-0007", "ts": NOW, "values": {"temperature": 71.2}}
    messages = feed(core, [json.dumps(reading).encode(), b"not even JSON"])
    messages += feed(core, [None], [(PUNCTUATION, str(NOW).encode())])
    return [*messages, *core.checkpoint()]


def kind(message: Message) -> str:
    """The document's name of a message."""
    if message.topic == TOPICS.state:
        return "partitionState" if b"/partition/" in (message.key or b"") else "deviceState"
    return {TOPICS.scores: "score", TOPICS.rejects: "reject"}[message.topic]


def test_the_asyncapi_file_names_every_topic() -> None:
    addresses = [channel["address"] for channel in asyncapi()["channels"].values()]

    assert sorted(addresses) == sorted(TOPICS.names())


def test_every_reference_in_the_asyncapi_file_leads_somewhere() -> None:
    text = (PROJECT / "docs" / "asyncapi.yaml").read_text("utf-8")
    for reference in re.findall(r"\$ref: '#/([^']+)'", text):
        place: Any = asyncapi()
        for step in reference.split("/"):
            assert step in place, reference
            place = place[step]


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_documented_fields_are_those_of_the_contract(name: str) -> None:
    documented = asyncapi()["components"]["schemas"][name]
    if "enum" in SCHEMAS[name]:
        assert sorted(documented["enum"]) == sorted(SCHEMAS[name]["enum"])
        return

    assert list(documented["properties"]) == list(SCHEMAS[name]["properties"])
    assert documented["required"] == SCHEMAS[name]["required"]


def test_documented_sessions_have_the_17_columns() -> None:
    assert tuple(asyncapi()["components"]["schemas"]["Session"]["properties"]) == COLUMNS


def test_documented_reasons_are_those_of_the_contract() -> None:
    documented = asyncapi()["components"]["schemas"]["RejectHeaders"]["properties"]["tw_reason"]["enum"]

    assert documented == [reason.value for reason in Reason]


@pytest.mark.parametrize("message", sorted(asyncapi()["components"]["messages"]))
def test_examples_keep_their_schemas(message: str) -> None:
    documented = asyncapi()["components"]["messages"][message]
    wrong = []
    for example in documented["examples"]:
        wrong += errors(documented["payload"], example["payload"])
        wrong += errors(documented.get("headers", {}), example.get("headers"))

    assert not wrong


@pytest.mark.parametrize(("message", "source"), INPUTS)
def test_examples_of_inputs_are_taken_in(message: str, source: int) -> None:
    values = [json.dumps(example["payload"]).encode() for example in examples(message)]
    for value in values:
        core = partition(source)

        assert feed(core, [value]) == []
        assert core.open_windows == 1


def test_the_example_of_a_punctuation_is_one() -> None:
    headers = [(name, value.encode()) for name, value in examples("punctuation")[0]["headers"].items()]
    records = Records(TOPICS.readings, 0, np.array([0]), np.array([NOW]), [None], [None], [headers])

    assert marks(records) == [(0, 1_700_000_060_000)]


def test_the_examples_of_an_acceptance_are_that() -> None:
    for example in examples("acceptance"):
        headers = [(name, value.encode()) for name, value in example["headers"].items()]
        records = Records(TOPICS.readings, 0, np.array([0]), np.array([NOW]), [b"pump-0007"], [None], [headers])
        ((_, word),) = marks(records)

        assert isinstance(word, bytes)
        assert acceptance(word) != Acceptance()
        assert errors(asyncapi()["components"]["schemas"]["Acceptance"], json.loads(word)) == []


@pytest.mark.parametrize("message", sorted(STRUCTS))
def test_examples_of_outputs_are_what_the_contract_encodes(message: str) -> None:
    for example in examples(message):
        record = msgspec.json.decode(json.dumps(example["payload"]), type=STRUCTS[message])
        again = msgspec.json.decode(msgspec.json.encode(record))

        assert example["payload"].items() <= again.items()


def test_the_headers_of_the_alerts_example_are_those_of_its_record() -> None:
    (example,) = examples("alert")
    alert = msgspec.convert(example["payload"], Alert)
    headers = {name: value.decode() for name, value in alert_message(TOPICS.alerts, alert).headers}

    assert headers == example["headers"]


def test_the_headers_of_the_forecasts_example_are_those_of_its_record() -> None:
    (example,) = examples("forecast")
    told = msgspec.convert(example["payload"], Forecast)
    headers = {
        name: value.decode() for name, value in forecast_message(TOPICS.forecasts, TOPICS.sessions, told).headers
    }

    assert headers == example["headers"]


def test_the_headers_of_the_receipts_example_are_those_of_its_record() -> None:
    (example,) = examples("receipt")
    receipt = msgspec.convert(example["payload"], Receipt)
    message = receipt_message(TOPICS.rejects, 3, receipt, NOW + 100_000)

    assert {name: value.decode() for name, value in message.headers} == example["headers"]


def test_what_the_core_gives_keeps_the_documented_schemas() -> None:
    messages, wrong = emitted(), []
    for message in messages:
        documented = asyncapi()["components"]["messages"][kind(message)]
        headers = {name: value.decode() for name, value in message.headers}
        payload = message.value.decode() if kind(message) == "reject" else json.loads(message.value)
        wrong += errors(documented["payload"], payload) + errors(documented.get("headers", {}), headers)

    assert not wrong
    assert {kind(message) for message in messages} == {"score", "reject", "deviceState", "partitionState"}


def shown() -> Iterator[list[str]]:
    """The words of every command line in a code block of a page, without what the shell does with it."""
    for page in PAGES:
        for block in re.findall(r"^```(?:bash|sh)\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if "tidewatch" in words:
                    yield words[words.index("tidewatch") + 1 :]


def unknown(words: list[str]) -> list[str]:
    """The commands and flags that the command line does not have."""
    command: Any = typer.main.get_command(app)
    missing, takes_value = [], False
    for word in words:
        options = {name: option for option in command.params for name in getattr(option, "opts", ())}
        if takes_value:
            takes_value = False
        elif word.startswith("-"):
            missing += [] if word in options else [word]
            takes_value = word in options and not options[word].is_flag
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return [*missing, word]
            command = command.get_command(None, word)
    return missing


def test_every_command_and_flag_shown_exists() -> None:
    lines = list(shown())

    assert [words for words in lines if unknown(words)] == []
    assert len(lines) >= 15


def test_every_command_is_in_the_readme() -> None:
    root: Any = typer.main.get_command(app)
    page = (PROJECT / "README.md").read_text("utf-8")

    assert [name for name in root.commands if not re.search(rf"`{name}\b", page)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8"))

    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_glossary_is_sorted_and_says_each_word_once() -> None:
    terms = re.findall(r"^- \*\*(.+?)\*\*:", (PROJECT / "docs" / "glossary.md").read_text("utf-8"), re.MULTILINE)

    assert terms == sorted(set(terms))


def test_the_guide_explains_every_reason() -> None:
    page = (PROJECT / "docs" / "guide.md").read_text("utf-8")

    assert [reason for reason in Reason if f"| `{reason}` |" not in page] == []


def test_decisions_are_short_and_listed() -> None:
    decisions = sorted((PROJECT / "docs" / "adr").glob("0*.md"))
    index = (PROJECT / "docs" / "adr" / "README.md").read_text("utf-8")

    assert re.findall(r"\((0.+?)\)", index) == [path.name for path in decisions]
    assert [path.name for path in decisions if len(path.read_text("utf-8").splitlines()) > 25] == []
