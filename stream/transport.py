"""A Faust transport that hands an agent one message per fetched run of a partition's records.

Faust keeps group membership, rebalancing and flow control. For the topics an app's ``owners`` know,
fetching is by batch, positions and committed offsets are the owners' to say; other topics are
Faust's as ever.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from typing import Any, Protocol

from faust.transport.drivers import aiokafka
from faust.types import TP, ConsumerMessage

from stream.cursor import Cursor
from stream.records import Records
from stream.runs import Runs, each, install

log = logging.getLogger(__name__)

_PATIENCE_S = 0.5
_WORTHWHILE = 128 * 1024
_WAIT_MS = 100
"""The broker holds an answer back until it has so many bytes, or for so long: a run of records costs about
a millisecond however few they are, at 20,000 readings a second more than the readings themselves."""
_RUNS = 4
"""Runs taken at a time."""


class Owners(Protocol):
    """Who answers for the partitions of the batched topics; found as ``app.owners``."""

    async def acquire(self, partitions: set[TP]) -> dict[TP, int | None] | None:
        """Take over partitions; where reading starts (None: where the group left off).

        None in place of all: the group has changed its mind meanwhile.
        """

    async def room(self) -> bool:
        """Whether more records may be fetched, now or a moment later."""

    def arrive(self, records: Records) -> "Fetch":
        """Count in what was fetched."""

    def batched(self, topic: str) -> bool:
        """Whether the topic is delivered in batches."""

    def floor(self, tp: TP) -> int | None:
        """The first offset a new owner would need, once known."""


class Fetch:
    """A run of records on its way to the agent.

    ``life`` tells whose acquisition it belongs to, ``turn`` which of its partition's runs it is since then.
    """

    __slots__ = ("life", "records", "size", "turn")

    def __init__(self, records: Records, life: int, turn: int) -> None:
        self.records = records
        self.size = records.size
        self.life = life
        self.turn = turn


class Thread(aiokafka.AIOKafkaConsumerThread):
    """The thread that Kafka's client lives in."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        install()
        reader = super()._create_worker_consumer(transport)
        # Faust would set it along with its own transactions; what a producer took back was never sent
        reader._isolation_level = "read_committed"  # noqa: SLF001 - read once, when the client starts; so are these
        reader._fetch_min_bytes, reader._fetch_max_wait_ms = _WORTHWHILE, _WAIT_MS  # noqa: SLF001
        return reader

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 - Faust's signature
        max_records: int | None = None,  # noqa: ARG002 - likewise
    ) -> dict[TP, list[Any]]:
        """What the client holds, in a few runs: it may unpack to very much more."""
        return dict(await super()._fetch_records(consumer, active_partitions, timeout=timeout, max_records=_RUNS))

    async def rejoin(self) -> None:
        """Leave it to the group once more who owns what."""

        async def ask() -> None:
            coordinator: Any = self._ensure_consumer()._coordinator  # noqa: SLF001 - aiokafka offers no public way
            coordinator.request_rejoin()

        await self.call_thread(ask)


class Consumer(aiokafka.Consumer):
    """The batching consumer. Faust lets its client fetch while partitions change hands; a cursor says what counts."""

    _thread: Thread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cursor: Cursor[TP] = Cursor()
        self._placed = asyncio.Event()
        self._placing: asyncio.Task[None] | None = None

    def _new_consumer_thread(self) -> Thread:
        return Thread(self, loop=self.loop, beacon=self.beacon)

    async def rejoin(self) -> None:
        """Take over anew whatever the group says is ours."""
        await self._thread.rejoin()

    @property
    def _owners(self) -> Owners:
        owners: Owners = vars(self.app)["owners"]
        return owners

    def _batched(self, partitions: Iterable[TP]) -> set[TP]:
        return {tp for tp in partitions if self._owners.batched(tp.topic)}

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Stop going anywhere, then let Faust and the owners do their part."""
        self._lift()
        await super().on_partitions_revoked(revoked)

    async def perform_seek(self) -> None:
        """Begin to go where the owners want to read on; until we are there nothing counts.

        Faust waits here for a while and then gives up for good: a broker that is away must not hold it up.
        """
        self._lift()
        self._placing = asyncio.ensure_future(self._place())

    def _lift(self) -> None:
        self._cursor.lift()
        self._placed.clear()
        if self._placing:
            self._placing.cancel()

    async def _place(self) -> None:
        try:
            await super().perform_seek()
            starts = await self._owners.acquire(self._batched(self.assignment()))
            if starts is None:
                return
            places = {tp: self._begin(tp) if start is None else start for tp, start in starts.items()}
            for tp, offset in places.items():
                await self.seek(tp, offset)
            self._cursor.place(places)
            self._placed.set()
        except Exception as error:  # a worker that went on would own partitions and read none
            log.exception("partitions cannot be taken over")
            await self.app.crash(error)

    def _begin(self, tp: TP) -> int:
        """Where the group left off; else 0, from where Kafka's client goes on to the first record there is."""
        return self._read_offset.get(tp) or 0

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109 - Faust's signature
        """Fetch; a run of records of a batched partition becomes one message."""
        if not await self._owners.room():
            return
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]  # mode asks for an event of its own
        if not self._placed.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._placed.wait(), _PATIENCE_S)
            return
        for tp, offset in self._cursor.overdue().items():
            await self.seek(tp, offset)
        ticket = self._cursor.ticket
        records, active = await self._wait_next_records(timeout)
        for tp, run in ((tp, run) for tp, runs in (records or {}).items() for run in runs):
            wanted = self.flow_active and not self.should_stop and (active is None or tp in active)
            if not self._owners.batched(tp.topic):
                if wanted and self._cursor.holds(ticket):
                    for record in each(run):
                        yield tp, self._to_message(tp, record)
            elif not wanted:
                self._cursor.leave(tp)
            elif (counted := self._cursor.take(tp, run, ticket)) is not None:
                yield tp, self._message(tp, counted)

    def _message(self, tp: TP, run: Records) -> ConsumerMessage:
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            int(run.offsets[-1]),
            int(run.timestamps[-1]) / 1000.0,
            0,
            [],
            None,
            self._owners.arrive(run),  # type: ignore[arg-type]  # the topic has no serializer: it passes through
            None,
            0,
            len(run),
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    # Faust's own bookkeeping counts messages, and ours stand for many offsets: it is kept empty.

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        ours = self._batched(self.assignment())
        yield from (tp for tp in super()._filter_tps_with_pending_acks(topics) if tp not in ours)
        yield from (tp for tp in ours if topics is None or tp in topics or tp.topic in topics)

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        tps = set(tps)
        batched = self._batched(tps)
        offsets: dict[TP, int] = super()._filter_committable_offsets(tps - batched)
        for tp in batched:
            self._acked.pop(tp, None)
            self._acked_index.pop(tp, None)
            floor = self._owners.floor(tp)
            if floor is not None and self._should_commit(tp, floor):
                offsets[tp] = floor
        return offsets

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        if not self._owners.batched(tp.topic):
            await super()._add_gap(tp, offset_from, offset_to)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust would report an open window that holds the floor as a stalled stream."""
        if not self._owners.batched(tp.topic):
            super().verify_event_path(now, tp)

    def caught_up(self, tp: TP, next_offset: int, within_s: float) -> bool:
        """Whether the broker has said, so recently, that the partition holds nothing from ``next_offset`` on."""
        reader = self._thread._ensure_consumer()  # noqa: SLF001 - the driver offers no public way to its client
        place = aiokafka.ensure_aiokafka_TP(tp)
        if not reader._subscription.is_assigned(place):  # noqa: SLF001 - nor aiokafka to this
            return False
        state = reader._subscription.subscription.assignment.state_value(place)  # noqa: SLF001
        if not state.has_valid_position or state.highwater is None or state.timestamp is None:
            return False
        recent = time.time() - state.timestamp / 1000.0 <= within_s
        if not recent or state.position < state.highwater:
            return False
        # what was fetched may still wait for its turn; asked after the position, which moves later
        return next_offset >= Runs.handed.get(place, 0)


class Transport(aiokafka.Transport):
    """Registered as ``batched://`` under the entry-point group ``faust.transports``."""

    Consumer = Consumer
