"""The rejects that Kafka keeps now, read as often as it takes; none are held."""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass

from confluent_kafka import Message

from stream.contracts import Topics
from stream.kafka import Broker
from tidewatch.console import progress
from tidewatch.rejects import Ledger, Reject, Selection, understand
from tidewatch.tail import Place, Span, spans, within

_TELL = 1_000
"""Records between two steps of the bar."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """What lay in ``rejects`` at one moment, and which of it is asked for.

    All of it is read each time: by what time a reject is asked for is its original's, and Kafka finds
    records by their own. ``settled`` says that a transaction still open when the shelf was looked at is
    waited for, so that no receipt hides in it or behind it.
    """

    broker: Broker
    topics: Topics
    selection: Selection
    held: Mapping[Place, Span]
    settled: bool

    @classmethod
    def look(cls, broker: Broker, topics: Topics, selection: Selection, *, settled: bool = False) -> "Shelf":
        """The shelf as it is now.

        Raises:
            UnavailableError: Kafka does not answer, or there is no topic of rejects.
        """
        return cls(broker, topics, selection, spans(broker, [topics.rejects]), settled)

    def survey(self) -> Ledger:
        """What became of those asked for."""
        parts = {partition: span for (_, partition), span in self.held.items()}
        ledger = Ledger(parts, self.selection, inputs(self.topics))
        with progress("reading rejects") as show:
            for message in self._messages(show):
                ledger.note(message)
        return ledger

    def rejects(self, show: Callable[[int, int], None] = lambda _, __: None) -> Generator[Reject, None, None]:
        """Every reject, asked for or not, each partition's in order; ``show`` is told how far it is."""
        for message in self._messages(show):
            record = understand(message)
            if isinstance(record, Reject):
                yield record

    def _messages(self, show: Callable[[int, int], None]) -> Iterator[Message]:
        total = sum(span.end - span.first for span in self.held.values())
        for done, message in enumerate(within(self.broker, self.held, settled=self.settled)):
            if done % _TELL == 0:
                show(done, total)
            yield message


def inputs(topics: Topics) -> tuple[str, ...]:
    """Where rejects may come from, and so the only topics that anything is sent back to."""
    return topics.readings, topics.sessions
