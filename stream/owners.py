"""The shell around each partition's core: who owns it, its epochs, its outbox.

An epoch ends about a second after its first output, sooner with an alert in it, or in a lull. Its messages and the
checkpoint go out together, off the event loop, while the core goes on with the next; only then does the floor move.
"""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic

from faust.types import TP

from stream.core import Core, Cores, Model
from stream.kafka import Broker
from stream.message import Output, size
from stream.outbox import BrokenError, Delivery, FencedError, Outbox, StoppedError, outboxes, remembered
from stream.records import Records
from stream.transport import Fetch

log = logging.getLogger(__name__)

_CLOSE_S = 5.0
_PROGRESS_S = 2.0
_LULL_S = 0.25
"""A pause in which an epoch may as well end: nothing is gained by waiting for more."""
_ALARM_S = 0.25
"""After the last epoch's end one that holds a new alert may end: nobody waits for a whole epoch to be woken."""
_NAP_S = 0.5
_EPOCHS = 8
"""What is this part of all that may be on its way out is an epoch by its size alone."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """How a worker runs; times in seconds."""

    app: str = "tidewatch"
    """Names the consumer group and, with topic and partition, the transactions."""
    delivery: Delivery = Delivery.EXACTLY_ONCE
    epoch_s: float = 1.0
    max_in_flight: int = 32 * 1024 * 1024
    """Bytes fetched and not yet processed, all partitions together."""
    max_outgoing: int = 128 * 1024 * 1024
    """Bytes processed and not yet out, all partitions together; no more is taken in then."""


@dataclass(slots=True, eq=False)
class Owner:
    """One owned partition: its core, its producer, what is to go out."""

    core: Core[Any]
    outbox: Outbox
    floor: int | None = None
    pending: list[Output] = field(default_factory=list)
    size: int = 0
    """Bytes of ``pending``."""
    sending: int = 0
    """Bytes of the epoch that is on its way out."""
    since: float = 0.0
    """When the first pending message came."""
    heard: float = 0.0
    """When the last record came."""
    ended: float = 0.0
    """When the last epoch ended."""
    told: int = 0
    """The next offset as the last checkpoint has it."""
    alerts: int = 0
    """How many alerts the core had counted then."""
    commit: "asyncio.Task[None] | None" = None
    leaving: bool = False
    """Whether the group has taken it away."""
    arrived: int = 0
    """Runs of records counted in since it was taken over."""
    fed: int = 0
    """How many of those the core has."""
    missed: bool = False
    """Whether one was lost on its way: of those that follow none is the next."""

    def collect(self, messages: list[Output], now: float) -> None:
        """Add what is to go out."""
        if messages and not self.pending:
            self.since = now
        self.pending += messages
        self.size += size(messages)

    @property
    def identity(self) -> TP:
        """The partition."""
        return TP(self.core.topic, self.core.number)


@dataclass(frozen=True, slots=True)
class Takeover:
    """Partitions on their way to where their last owners left them."""

    owners: Sequence[Owner]
    began: float
    restored: float
    """When all their state had been read."""
    records: int
    """Records to be read again to fill open windows; nothing comes out until then."""

    def report(self, now: float) -> str:
        """How long it took, in a line."""
        return (
            f"recovered {len(self.owners)} partitions in {now - self.began:.2f} s: "
            f"their state in {self.restored - self.began:.2f} s, then {self.records:,} records read again"
        )


class Owners(Generic[Model]):
    """Every partition this worker owns."""

    def __init__(self, broker: Broker, cores: Cores[Model], worker: WorkerSpec) -> None:
        self.model = cores.model
        self._broker = broker
        self._cores = cores
        self._worker = worker
        self._owned: dict[TP, Owner] = {}
        self._life = 0
        self._in_flight = 0
        self._room = asyncio.Event()
        self._room.set()
        self._stop = threading.Event()
        self._taking = threading.Event()
        """Set once a take-over is to be given up."""
        self._closing = False
        self._outbox = outboxes(broker, worker.delivery, self._stop)
        self._pool = ThreadPoolExecutor(32, thread_name_prefix="outbox")
        self._past: Counter[str] = Counter()
        self._takeover: Takeover | None = None
        self.failed: Callable[[BaseException], None] = lambda error: log.error("epoch failed: %s", error)
        """Called when a partition cannot go on."""
        self.fenced: Callable[[], None] = lambda: None
        """Called when a partition has another owner, or none: the group must say whose it is."""
        self.recovered: Callable[[str], None] = log.info
        """Called with a line about it when all that was taken over is where its last owners left it."""

    # --- what the transport asks ---------------------------------------------------------------

    @property
    def inputs(self) -> tuple[str, ...]:
        """The topics that are read."""
        return tuple(self._cores.born)

    def batched(self, topic: str) -> bool:
        """Whether the topic is one of ours."""
        return topic in self._cores.born

    def floor(self, tp: TP) -> int | None:
        """The first offset a new owner would need, once known."""
        owner = self._owned.get(tp)
        return owner.floor if owner else None

    async def room(self) -> bool:
        """Whether more records may be fetched, now or a moment later."""
        if not self._room.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), _NAP_S)
        return self._room.is_set()

    def arrive(self, records: Records) -> Fetch:
        """Count in what was fetched."""
        owner = self._owned.get(TP(records.topic, records.partition))
        if owner:
            owner.arrived += 1
        fetch = Fetch(records, self._life, owner.arrived if owner else 0)
        self._in_flight += fetch.size
        if self._in_flight >= self._worker.max_in_flight:
            self._room.clear()
        return fetch

    async def acquire(self, partitions: set[TP]) -> dict[TP, int | None] | None:
        """Take over partitions from whoever had them; where reading starts, None once the group has other plans."""
        await self.revoke(list(self._owned))
        if self._closing:
            return {}
        life, self._taking, began = self._life, threading.Event(), time.monotonic()
        self._in_flight = 0
        self._room.set()
        try:
            owned = await asyncio.gather(*(self._take(tp, life) for tp in sorted(partitions)))
        except StoppedError:
            return None
        if life != self._life:
            return None
        if owned:
            again = sum(owner.core.next_offset - (owner.floor or 0) for owner in owned)
            self._takeover = Takeover(owned, began, time.monotonic(), again)
            log.info("took over %d partitions in %.2f s", len(owned), self._takeover.restored - began)
            self._recover()
        return {tp: owner.floor for tp, owner in zip(sorted(partitions), owned, strict=True)}

    async def revoke(self, partitions: Iterable[TP]) -> None:
        """Give up taking over, and let go of partitions, once what they have done is out."""
        self._life += 1
        self._taking.set()
        await self.release(partitions)

    def _recover(self) -> None:
        """Tell once nothing of what was taken over last is still reading again."""
        takeover = self._takeover
        if takeover and not any(owner.core.reliving for owner in takeover.owners if self._holds(owner)):
            self._takeover = None
            self.recovered(takeover.report(time.monotonic()))

    def _holds(self, owner: Owner) -> bool:
        return self._owned.get(owner.identity) is owner

    async def _take(self, tp: TP, life: int) -> Owner:
        identity = f"{self._worker.app}-{tp.topic}-{tp.partition}"
        core = self._cores.born[tp.topic](tp.partition)
        loop = asyncio.get_running_loop()
        outbox, floor = await loop.run_in_executor(self._pool, self._open, identity, core, self._taking)
        core.use(self.model)
        owner = Owner(core, outbox, floor, heard=time.monotonic(), told=core.next_offset)
        if life == self._life:
            self._owned[tp] = owner
        else:
            outbox.close()
        return owner

    def _open(self, identity: str, core: Core[Model], stop: threading.Event) -> tuple[Outbox, int | None]:
        outbox = self._outbox(identity)
        try:
            outbox.open(stop)
            return outbox, core.recall(remembered(self._broker, self._cores.state, core.number, stop))
        except StoppedError:
            outbox.close()
            raise

    async def release(self, partitions: Iterable[TP]) -> None:
        """Let go of partitions, once what they have done is out."""
        owners = [self._owned[tp] for tp in list(partitions) if tp in self._owned]
        await asyncio.gather(*(self._finish(owner) for owner in owners))
        for owner in owners:
            self._drop(owner)

    def _drop(self, owner: Owner) -> None:
        if self._holds(owner):
            self._past.update(owner.core.counts)
            del self._owned[owner.identity]

    async def _finish(self, owner: Owner) -> None:
        owner.leaving = True
        if owner.commit:
            await asyncio.wait([owner.commit])
        if owner.pending and self._holds(owner):
            owner.commit = asyncio.ensure_future(self._commit(owner))
            await asyncio.wait([owner.commit])
        await asyncio.get_running_loop().run_in_executor(self._pool, owner.outbox.close)

    # --- what the worker does ------------------------------------------------------------------

    async def feed(self, fetch: Fetch) -> None:
        """Take in one run of records; runs fetched before a rebalance are not ours to judge.

        Faust lets go of what it has no room for when it stops, and hands over what follows. Past such a gap nothing
        is taken in: the next owner reads on from before it.
        """
        if fetch.life != self._life:
            return
        self._in_flight -= fetch.size
        if self._in_flight < self._worker.max_in_flight:
            self._room.set()
        owner = self._owned.get(TP(fetch.records.topic, fetch.records.partition))
        if owner is None:
            return
        if fetch.turn != owner.fed + 1:
            self._miss(owner)
            return
        owner.fed = fetch.turn
        now = owner.heard = time.monotonic()
        owner.collect(owner.core.feed(fetch.records), now)
        self._recover()
        self._end_epoch(owner, now)
        while not owner.leaving and self._crowded() and (commits := self._commits()):
            await asyncio.wait(commits, return_when=asyncio.FIRST_COMPLETED)

    def _miss(self, owner: Owner) -> None:
        """Have the partition taken over anew, for records of it were lost on their way here."""
        if not (self._closing or owner.missed):
            log.warning("%s: records were lost on their way to the stream; they are read again", owner.identity)
            self.fenced()
        owner.missed = True

    def _commits(self) -> list["asyncio.Task[None]"]:
        """Every epoch on its way out, those that end now among them."""
        for owner in self._owned.values():
            self._end_epoch(owner, time.monotonic())
        return [owner.commit for owner in self._owned.values() if owner.commit]

    def _crowded(self) -> bool:
        return sum(owner.size + owner.sending for owner in self._owned.values()) >= self._worker.max_outgoing

    def tick(self, quiet: Callable[[TP, int], bool]) -> None:
        """End epochs that are due; close what idles in partitions that are silent and ``quiet`` from an offset on."""
        now = time.monotonic()
        for tp, owner in list(self._owned.items()):
            silent = now - owner.heard
            if silent >= 1.0 and owner.core.open_windows and quiet(tp, owner.core.next_offset):
                owner.collect(owner.core.hush(int(silent * 1000)), now)
            self._end_epoch(owner, now)

    async def use(self, model: Model) -> None:
        """Judge by ``model`` from the next windows on; partition by partition, between which others have their turn."""
        self.model = model
        for owner in list(self._owned.values()):
            owner.core.use(model)
            await asyncio.sleep(0)

    def counts(self) -> Counter[str]:
        """What has happened in all partitions since the start, and the models in force."""
        total = Counter(self._past)
        for owner in self._owned.values():
            total.update(owner.core.counts)
        total["models"] = len(self.model)
        return total

    async def close(self) -> None:
        """Let go of everything; what is not out after ``_CLOSE_S`` is redone by the next owner."""
        self._closing = True
        asyncio.get_running_loop().call_later(_CLOSE_S, self._stop.set)
        await self.revoke(list(self._owned))
        self._stop.set()
        self._pool.shutdown(wait=False)

    def _end_epoch(self, owner: Owner, now: float) -> None:
        if owner.commit is not None or owner.core.reliving or owner.leaving:
            return
        full = owner.size >= self._worker.max_outgoing // _EPOCHS or self._crowded()
        lull = now - owner.heard >= _LULL_S
        alarm = owner.core.counts["alerts"] > owner.alerts and now - owner.ended >= _ALARM_S
        due = owner.pending and (full or lull or alarm or now - owner.since >= self._worker.epoch_s)
        # records that bring nothing about count as progress too, or the lag would never end
        moved = owner.core.next_offset > owner.told and now - owner.ended >= _PROGRESS_S
        if due or moved:
            owner.ended = now
            owner.commit = asyncio.ensure_future(self._commit(owner))

    async def _commit(self, owner: Owner) -> None:
        epoch = owner.pending, owner.core.checkpoint()
        floor, owner.told, owner.pending = owner.core.floor, owner.core.next_offset, []
        owner.alerts = owner.core.counts["alerts"]
        owner.sending, owner.size = owner.size, 0
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, owner.outbox.send, *epoch)
            owner.floor = floor
        except FencedError as error:
            log.warning("%s", error)
            self._drop(owner)
            if not owner.leaving:
                self.fenced()
        except StoppedError as error:
            log.warning("%s", error)
            self._drop(owner)
        except BrokenError as error:
            self._drop(owner)
            self.failed(error)
        finally:
            owner.commit, owner.sending = None, 0
