"""What an operator says of devices: to the partition each device is in, and what became of it there.

A worker's answer is in its state: once the partition's record is past the word, the device's record tells what is
accepted of it, unless ``rejects`` has the word; all of it was committed together.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from producers.publish import Target
from producers.publish import accept as say
from scorers.errors import UnavailableError
from sinks.read import dataset
from sinks.table import TIME
from stream.contracts import Acceptance, Accepted
from stream.kafka import Broker
from stream.state import DeviceState, PartitionState, device_key, partition_key
from tidewatch.console import progress
from tidewatch.groups import Settings
from tidewatch.rejects import Id, Reject, understand
from tidewatch.shelf import inputs
from tidewatch.tail import Span, gather, latest, spans, within

_NAP_S = 0.2
_device = msgspec.json.Decoder(DeviceState)
_partition = msgspec.json.Decoder(PartitionState)


class Outcome(StrEnum):
    """What became of a word."""

    ACCEPTED = "accepted"
    REVOKED = "revoked"
    REFUSED = "refused"
    PENDING = "pending"
    """No worker has taken it up in time; it lies in the log, and one will."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a word about one device."""

    device_id: str
    source: str | None
    """The input topic; None where the device was never heard."""
    outcome: Outcome
    accepted: Accepted | None = None
    """What is accepted of the device now."""
    detail: str | None = None
    """Why it was refused."""


class Known(NamedTuple):
    """A device as a worker remembers it."""

    source: str
    partition: int
    device_id: str
    state: DeviceState


class _Said(NamedTuple):
    known: Known
    word: Acceptance
    offset: int

    @property
    def id(self) -> Id:
        return Id(self.known.source, self.known.partition, self.offset)


def known(settings: Settings, devices: Collection[str] | None = None) -> list[Known]:
    """Devices that workers of ``worker.app`` have heard, by name; None: all of them.

    Raises:
        UnavailableError: Kafka does not answer, or no worker ever ran there.
    """
    topics = settings.topics.names()
    prefixes = {device_key(_scope(settings, source), ""): source for source in inputs(topics)}
    found: dict[tuple[str, str], Known] = {}
    for message in gather(settings.kafka.broker(), [topics.state]):
        key = message.key() or b""
        for prefix, source in prefixes.items():
            name = key[len(prefix) :].decode(errors="replace") if key.startswith(prefix) else None
            if name is not None and (devices is None or name in devices):
                state = _device.decode(message.value() or b"")
                found[source, name] = Known(source, message.partition() or 0, name, state)
    return sorted(found.values(), key=lambda one: (one.device_id, one.source))


def accept(settings: Settings, words: Mapping[str, Acceptance], wait_s: float) -> list[Answer]:
    """Say words of devices, and wait so long for a worker to take them up; an answer a device and input topic.

    Raises:
        UnavailableError: Kafka does not answer.
    """
    heard = known(settings, words)
    names = {one.device_id for one in heard}
    answers = [
        Answer(device, None, Outcome.REFUSED, detail=f"no worker of {settings.worker.app!r} has heard of it")
        for device in words
        if device not in names
    ]
    broker, rejects = settings.kafka.broker(), settings.topics.names().rejects
    before = spans(broker, [rejects])
    said = _say(broker, [(one, words[one.device_id]) for one in heard])
    taken = _taken(settings, said, time.monotonic() + wait_s)
    later = {place: Span(before[place].end, span.end) for place, span in spans(broker, [rejects], stable=True).items()}
    refused = {reject.id: reject for reject in map(understand, within(broker, later)) if isinstance(reject, Reject)}
    now = _accepted(settings, [one.known for one in said if one.id in taken - refused.keys()])
    for one in said:
        device, source = one.known.device_id, one.known.source
        if one.id in refused:
            answers.append(Answer(device, source, Outcome.REFUSED, detail=refused[one.id].detail))
        elif one.id in taken:
            outcome = Outcome.REVOKED if one.word.revoke else Outcome.ACCEPTED
            answers.append(Answer(device, source, outcome, now.get((source, device))))
        else:
            answers.append(Answer(device, source, Outcome.PENDING))
    return answers


def _say(broker: Broker, words: Sequence[tuple[Known, Acceptance]]) -> list[_Said]:
    """To the partitions the devices are in; of a device of both inputs to where its alert is firing, if it is."""
    firing = {one.device_id for one, _ in words if _firing(one)}
    chosen = [
        (one, word) for one, word in words if _firing(one) or word.revoke or word.levels or one.device_id not in firing
    ]
    said = []
    for source in sorted({one.source for one, _ in chosen}):
        mine = [(one, word) for one, word in chosen if one.source == source]
        offsets = say(Target(broker, source), [(one.partition, one.device_id, word) for one, word in mine])
        said += [_Said(one, word, offset) for (one, word), offset in zip(mine, offsets, strict=True)]
    return said


def _firing(one: Known) -> bool:
    return one.state.watch is not None and one.state.watch.since is not None


def _taken(settings: Settings, said: Sequence[_Said], deadline: float) -> set[Id]:
    """Which words a worker has taken up by then."""
    left, taken = {one.id for one in said}, set[Id]()
    with progress("waiting for a worker") as show:
        while left:
            show(len(taken), len(said))
            reached = _reached(settings, left)
            now = {word for word in left if word.offset < reached.get((word.topic, word.partition), 0)}
            left, taken = left - now, taken | now
            if left and time.monotonic() > deadline:
                break
            time.sleep(_NAP_S if left else 0)
    return taken


def _reached(settings: Settings, words: Iterable[Id]) -> dict[tuple[str, int], int]:
    """How far each partition of these words has come."""
    places = {(word.topic, word.partition) for word in words}
    keys = {partition_key(_scope(settings, topic), number): (topic, number) for topic, number in places}
    wanted = {number: {key for key, place in keys.items() if place[1] == number} for _, number in places}
    found = latest(settings.kafka.broker(), settings.topics.names().state, wanted)
    return {keys[key]: _partition.decode(value).next_offset for key, value in found.items()}


def _accepted(settings: Settings, devices: Sequence[Known]) -> dict[tuple[str, str], Accepted | None]:
    """What is accepted of devices now, by input topic and name."""
    keys = {device_key(_scope(settings, one.source), one.device_id): one for one in devices}
    wanted: dict[int, set[bytes]] = {}
    for key, one in keys.items():
        wanted.setdefault(one.partition, set()).add(key)
    found = latest(settings.kafka.broker(), settings.topics.names().state, wanted) if wanted else {}
    return {(keys[key].source, keys[key].device_id): _device.decode(value).accepted for key, value in found.items()}


def _scope(settings: Settings, source: str) -> str:
    return f"{settings.worker.app}/{source}"


def unanswered(settings: Settings, answers: Iterable[Answer]) -> UnavailableError | None:
    """The one sentence for words that nobody has taken up yet, if there are any."""
    pending = [answer.device_id for answer in answers if answer.outcome is Outcome.PENDING]
    if not pending:
        return None
    return UnavailableError(
        f"No worker of {settings.worker.app!r} has taken it up yet for {', '.join(pending)}: start one, or see how far"
        " it is behind by `tidewatch lag`. It lies in the log, so that there is no need to say it again."
    )


def levels(folder: Path, devices: Collection[str], since: int) -> dict[str, dict[str, float]]:
    """Means of every device's metrics over its windows that begin at or after ``since`` (epoch ms), from Parquet.

    Raises:
        InputError: there are no statistics in the folder.
    """
    rows = ds.field("device_id").isin(list(devices)) & (ds.field("window_start") >= pa.scalar(since, TIME))
    table = dataset(folder, "statistics").to_table(columns=["device_id", "metric", "mean"], filter=rows)
    found: dict[str, dict[str, float]] = {device: {} for device in devices}
    means = table.filter(pc.is_finite(table["mean"])).group_by(["device_id", "metric"]).aggregate([("mean", "mean")])
    for row in means.to_pylist():
        found[row["device_id"]][row["metric"]] = row["mean_mean"]
    return found
