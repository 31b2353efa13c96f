"""Every way to do harm: what begins, how long it lasts, what ends it. The seed decides who, when and how long."""

import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from tests.chaos.drive import Driver
from tests.chaos.scene import GRACEFUL_S, SINKS, WORKERS, Ending, Scene

SESSION_S = 10.0
"""Kafka gives up on a silent sink after so long, on a worker sooner."""
ALWAYS = WORKERS[:2]
"""The workers that are there unless a fault says otherwise."""
SPARE = WORKERS[2]
AWAY = ("kill worker", "freeze worker past its session", "cut worker off")
"""Kinds after which the other workers must take over."""
NEEDED = (*WORKERS, "kafka")
"""Targets without which a take-over cannot be as quick."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: it needs a target that no other fault has, and lasts between ``lasts`` seconds."""

    name: str
    targets: Sequence[str]
    lasts: tuple[float, float]
    begin: Callable[[str], None]
    end: Callable[[str], None] = lambda _: None


@dataclass(slots=True)
class Fault:
    """One fault under way."""

    kind: Kind
    target: str
    begins: float
    """Seconds since the start."""
    ends: float


@dataclass(slots=True)
class Schedule:
    """Which fault is next; every kind has its turn before any has another."""

    kinds: Sequence[Kind]
    chance: random.Random
    gap_s: float
    under_way: list[Fault] = field(default_factory=list)
    done: list[Fault] = field(default_factory=list)
    _deck: list[Kind] = field(default_factory=list)
    _next: float = 3.0

    def due(self, now: float, spared: Collection[str] = ()) -> Fault | None:
        """The fault to begin now, if any; of no target in ``spared``."""
        if now < self._next:
            return None
        fault = next(self._possible(now, spared), None)
        self._next = now + self.chance.uniform(0.3, 1.7) * self.gap_s
        if fault:
            self.under_way.append(fault)
        return fault

    def over(self, now: float) -> list[Fault]:
        """The faults to end now."""
        over = [fault for fault in self.under_way if fault.ends <= now]
        for fault in over:
            self.under_way.remove(fault)
            self.done.append(fault)
        return over

    def _possible(self, now: float, spared: Collection[str]) -> Iterator[Fault]:
        if not self._deck:
            self._deck = self.chance.sample(self.kinds, len(self.kinds))
        harmed = {fault.target for fault in self.under_way}.union(spared)
        for kind in list(self._deck):
            free = [target for target in kind.targets if target not in harmed]
            if free:
                self._deck.remove(kind)
                yield Fault(kind, self.chance.choice(free), now, now + self.chance.uniform(*kind.lasts))


class Faults:
    """The catalogue for one scene."""

    def __init__(self, scene: Scene, driver: Driver) -> None:
        self._scene = scene
        self._driver = driver
        self.asked: list[str] = []
        """Who has been asked to end, and has not yet."""
        self.endings: list[Ending] = []
        """How each process ended that was asked to."""

    def kinds(self) -> list[Kind]:
        """Everything that can be done here."""
        scene = self._scene
        kinds = [
            Kind("kill worker", ALWAYS, (0.5, 12), self._kill, self._start),
            Kind("freeze worker past its session", ALWAYS, (SESSION_S + 2, SESSION_S + 8), self._freeze, self._thaw),
            Kind("freeze worker briefly", ALWAYS, (1, 5), self._freeze, self._thaw),
            Kind("stop worker", ALWAYS, (GRACEFUL_S + 1, GRACEFUL_S + 4), self._ask, self._start),
            Kind("add worker", [SPARE], (15, 30), self._start, self._ask),
            Kind("cut worker off", ALWAYS, (SESSION_S + 2, SESSION_S + 8), self._stall, self._flow),
            Kind("kill sink", SINKS, (0.5, 8), self._kill, self._start),
            Kind("freeze sink past its session", SINKS, (SESSION_S + 2, SESSION_S + 8), self._freeze, self._thaw),
            Kind("stop sink", SINKS, (GRACEFUL_S + 1, GRACEFUL_S + 4), self._ask, self._start),
            Kind("reset connections", [*ALWAYS, *SINKS], (0.1, 0.2), lambda name: scene.fronts[name].cut()),
            Kind("restart broker", ["kafka"], (1, 6), lambda _: scene.kafka.stop(), lambda _: scene.kafka.start()),
            Kind("kill broker", ["kafka"], (1, 6), lambda _: scene.kafka.kill(), lambda _: scene.kafka.start()),
            Kind("freeze broker", ["kafka"], (2, 12), lambda _: scene.kafka.pause(), lambda _: scene.kafka.resume()),
            Kind("lose redis", ["redis server"], (1, 8), lambda _: scene.redis.kill(), lambda _: scene.redis.start()),
            Kind(
                "freeze redis", ["redis server"], (5, 15), lambda _: scene.redis.pause(), lambda _: scene.redis.resume()
            ),
            Kind("reset redis", ["redis server"], (0.1, 0.2), lambda _: scene.redis_front.cut()),
            Kind("compact, and kill it", ["parquet folder"], (0.5, 8), self._compact, self._spoil),
            Kind("flood", ["load"], (1, 2), lambda _: self._driver.flood()),
            Kind("poison", ["load"], (1, 2), lambda _: self._driver.poison()),
        ]
        if scene.disk.limited:
            kinds.append(Kind("fill disk", ["disk"], (4, 12), lambda _: scene.disk.fill(), lambda _: scene.disk.free()))
        return kinds

    def _compact(self, _: str) -> None:
        self._scene.compactor.start()

    def _spoil(self, _: str) -> None:
        if self._scene.compactor.returncode is None:
            self._scene.compactor.kill()

    def watch(self) -> None:
        """See how those take it that were asked to end."""
        for name in list(self.asked):
            ending = self._scene.members[name].ended()
            if ending:
                self.asked.remove(name)
                self.endings.append(ending)

    def _kill(self, name: str) -> None:
        self._scene.members[name].crash()

    def _start(self, name: str) -> None:
        while name in self.asked:
            time.sleep(0.1)
            self.watch()
        self._scene.members[name].begin()

    def _ask(self, name: str) -> None:
        self.asked.append(name)
        self._scene.members[name].ask()

    def _freeze(self, name: str) -> None:
        self._scene.members[name].pause()

    def _thaw(self, name: str) -> None:
        self._scene.members[name].resume()

    def _stall(self, name: str) -> None:
        self._scene.fronts[name].stall()

    def _flow(self, name: str) -> None:
        self._scene.fronts[name].flow()
