"""How far workers and sinks have come: what they have not read, what a worker has read and still needs.

A worker commits its floor, so that what it has committed tells nothing of its progress while windows are
open. How far it has read is in its checkpoints, the records of the state topic.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import msgspec
from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException
from confluent_kafka.admin import ConsumerGroupDescription

from stream.kafka import Broker, unreachable
from stream.state import Progress, partition_key
from tidewatch.forecast import live
from tidewatch.groups import Settings
from tidewatch.tail import Place, Span, committed, heads, latest, spans
from tidewatch.topics import is_embedded, quiet_admin
from tidewatch.writing import Kind, build

WORKER = "worker"
LOAD = "load"
"""The workers that forecast; as with a sink, nobody need run them."""
MISSING = "missing"
"""The state of a group that Kafka has never heard of, or has forgotten."""
_UNKNOWN = "unknown"
_SAID = {KafkaError.GROUP_ID_NOT_FOUND: MISSING, KafkaError._UNSUPPORTED_FEATURE: _UNKNOWN}  # noqa: SLF001 - librdkafka's name
_TIMEOUT_S = 10.0
_state = msgspec.json.Decoder(Progress)


@dataclass(frozen=True, slots=True)
class Part:
    """One partition as one group has it."""

    topic: str
    partition: int
    end: int
    """The offset after the last record."""
    committed: int | None
    """Where a new member would go on."""
    unread: int
    """Offsets from the first record not read up to the end; 0 where no record is among them."""
    held: int | None
    """Offsets read that open windows still need; None where nothing is held."""
    oldest: int | None
    """The Kafka timestamp (epoch ms) of the first record not read."""


@dataclass(frozen=True, slots=True)
class Group:
    """One consumer group; ``role`` is what runs in it: worker, load, parquet or redis."""

    name: str
    role: str
    state: str
    """As Kafka calls it: stable, empty and so on."""
    members: int
    parts: tuple[Part, ...]

    @property
    def absent(self) -> bool:
        """Whether it was never there."""
        return self.state == MISSING and all(part.committed is None for part in self.parts)

    @property
    def unread(self) -> int:
        """Of all partitions."""
        return sum(part.unread for part in self.parts)

    @property
    def held(self) -> int | None:
        """Of all partitions; None where nothing is held."""
        held = [part.held for part in self.parts if part.held is not None]
        return sum(held) if held else None

    @property
    def oldest(self) -> int | None:
        """Of all partitions."""
        return min((part.oldest for part in self.parts if part.oldest is not None), default=None)


def measure(settings: Settings) -> list[Group]:
    """The groups of the workers and of the sinks, as Kafka has them now.

    Raises:
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    broker, topics, app = settings.kafka.broker(), settings.topics.names(), settings.worker.app
    inputs = (topics.readings, topics.sessions)
    forecasting, sessions = live.group(settings), (topics.sessions,)
    told = {
        WORKER: checkpoints(broker, topics.state, app, inputs),
        LOAD: checkpoints(broker, topics.load, forecasting, sessions),
    }
    readers = {WORKER: (app, inputs), LOAD: (forecasting, sessions)}
    readers |= {str(k): (f"{app}-{k}", build(settings, k).topics) for k in Kind}
    states = describe(broker, [name for name, _ in readers.values()])
    return [
        Group(name, role, *states[name], _parts(broker, name, read, told.get(role, {})))
        for role, (name, read) in readers.items()
    ]


def describe(broker: Broker, groups: Sequence[str]) -> dict[str, tuple[str, int]]:
    """State and number of members of each group; unknown where the broker cannot tell.

    Raises:
        UnavailableError: Kafka does not answer.
    """
    if is_embedded(broker):  # never answers this
        return dict.fromkeys(groups, (_UNKNOWN, 0))
    admin = quiet_admin(broker)
    answers = admin.describe_consumer_groups(list(groups), request_timeout=_TIMEOUT_S)
    return {group: _described(broker, answer) for group, answer in answers.items()}


def _described(broker: Broker, answer: Future[ConsumerGroupDescription]) -> tuple[str, int]:
    try:
        found = answer.result()
    except KafkaException as error:
        state = _SAID.get(error.args[0].code())
        if state is None:
            raise unreachable(broker, error) from error
        return state, 0
    return (MISSING if found.state is ConsumerGroupState.DEAD else found.state.name.lower()), len(found.members)


def checkpoints(broker: Broker, topic: str, app: str, inputs: Sequence[str]) -> dict[Place, Progress]:
    """The last checkpoint of every input partition that has one.

    Raises:
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    places = {
        partition_key(f"{app}/{source}", partition): (source, partition) for source, partition in spans(broker, inputs)
    }
    wanted: dict[int, set[bytes]] = {}
    for key, (_, partition) in places.items():
        wanted.setdefault(partition, set()).add(key)
    return {places[key]: _state.decode(value) for key, value in latest(broker, topic, wanted).items()}


def _parts(broker: Broker, group: str, topics: Sequence[str], told: Mapping[Place, Progress]) -> tuple[Part, ...]:
    known, held = committed(broker, group, topics), spans(broker, topics)
    starts = {place: reading(span, known.get(place), told.get(place)) for place, span in held.items()}
    first = heads(broker, {place: start for place, start in starts.items() if start < held[place].end})
    oldest = {place: message.timestamp()[1] for place, message in first.items()}
    return tuple(
        part(place, span, known.get(place), told.get(place), oldest.get(place)) for place, span in sorted(held.items())
    )


def reading(span: Span, known: int | None, told: Progress | None) -> int:
    """The next offset a group reads: as its checkpoint has it, else its commit, else the first there is."""
    return max(span.first, told.next_offset if told else known or 0)


def part(place: Place, span: Span, known: int | None, told: Progress | None, oldest: int | None) -> Part:
    """One partition's lag; ``oldest`` is the timestamp of the record that is read next, None where there is none.

    Offsets alone tell too much: some are taken by the marks of transactions, which nobody reads.
    """
    unread = max(span.end - reading(span, known, told), 0) if oldest is not None else 0
    held = max(told.next_offset - told.floor, 0) if told else None
    return Part(*place, span.end, known, unread, held, oldest if unread else None)


def exceeding(groups: Sequence[Group], limit: int) -> list[Group]:
    """Those with more unread than ``limit``; a sink that was never started has nothing to catch up with."""
    return [group for group in groups if group.unread > limit and not (group.absent and group.role != WORKER)]
