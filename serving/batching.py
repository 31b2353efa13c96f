"""Requests that come together are scored together (micro-batching).

What waits is scored once the event loop finds no further request to take in, and no later than a bounded delay: a
request alone is scored at once, and the more there are the more go together.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np

from serving.models import Engine
from serving.tensors import Columns, Outputs, Scored

INLINE = 2_048
"""Rows that are scored on the event loop; more go to a thread, so that others are heard meanwhile."""


class Asker(Protocol):
    """Who waits for outputs: a future, or what does with them as one is done with."""

    def done(self) -> bool:
        """Whether they come too late."""

    def set_result(self, result: Outputs, /) -> None:
        """Here they are."""

    def set_exception(self, exception: BaseException, /) -> None:
        """There are none."""


class _Waiting(NamedTuple):
    engine: Engine
    columns: Columns
    rows: int
    done: Asker


class Batcher:
    """Gathers requests of one event loop by engine."""

    def __init__(self, delay_s: float) -> None:
        self.batches = self.requests = 0
        """How many there were."""
        self._delay = delay_s
        self._waiting: list[_Waiting] = []
        self._seen = 0
        """How many waited a turn of the loop ago."""
        self._latest = 0.0
        """When they are scored, come what may."""
        self._thread = ThreadPoolExecutor(1, "scoring")
        self._under_way: set[asyncio.Future[None]] = set()

    async def infer(self, engine: Engine, columns: Columns) -> Outputs:
        """The outputs of some rows, scored with whatever else waits for the same engine."""
        done: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()
        self.put(engine, columns, done)
        return await done

    def put(self, engine: Engine, columns: Columns, asker: Asker) -> None:
        """Let an asker have the outputs of some rows, as soon as they are scored."""
        if not self._waiting:
            loop = asyncio.get_running_loop()
            self._seen, self._latest = 0, loop.time() + self._delay
            loop.call_soon(self._turn, loop)
        self._waiting.append(_Waiting(engine, columns, len(next(iter(columns.values()))), asker))

    def close(self) -> None:
        """Score what waits, and end the thread."""
        if self._waiting:
            self._flush()
        self._thread.shutdown()

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Score what waits if nothing has come since the last turn."""
        if len(self._waiting) > self._seen and loop.time() < self._latest:
            self._seen = len(self._waiting)
            loop.call_soon(self._turn, loop)
        elif self._waiting:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        self.requests += len(waiting)
        small: dict[Engine, list[_Waiting]] = defaultdict(list)
        for one in waiting:
            if one.done.done():
                continue
            if one.rows > INLINE:
                self._apart(one)
            else:
                small[one.engine].append(one)
        for engine, group in small.items():
            for part in _parts(group):
                self.batches += 1
                _score(engine, part)

    def _apart(self, one: _Waiting) -> None:
        """Score a large request in the thread."""
        self.batches += 1
        task = asyncio.ensure_future(self._in_thread(one))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _in_thread(self, one: _Waiting) -> None:
        loop = asyncio.get_running_loop()
        try:
            result = await loop.run_in_executor(self._thread, one.engine.infer, one.columns)
        except Exception as error:  # noqa: BLE001 - who asked is told
            if not one.done.done():
                one.done.set_exception(error)
            return
        if not one.done.done():
            one.done.set_result(Outputs.of(result))


def _parts(group: Sequence[_Waiting]) -> list[list[_Waiting]]:
    """As many together as have few rows enough."""
    parts: list[list[_Waiting]] = [[]]
    rows = 0
    for one in group:
        if parts[-1] and rows + one.rows > INLINE:
            parts.append([])
            rows = 0
        parts[-1].append(one)
        rows += one.rows
    return parts


def _score(engine: Engine, group: Sequence[_Waiting]) -> None:
    """Score requests as one; where that fails each by itself, so that one harms no other."""
    if len(group) == 1:
        _score_one(engine, group[0])
        return
    try:
        together = {name: np.concatenate([one.columns[name] for one in group]) for name in group[0].columns}
        found = Scored(engine.infer(together))
    except Exception:  # noqa: BLE001 - whose it is shows below
        for one in group:
            _score_one(engine, one)
        return
    at = 0
    for one in group:
        end = at + one.rows
        if not one.done.done():
            one.done.set_result(Outputs(found, at, end))
        at = end


def _score_one(engine: Engine, one: _Waiting) -> None:
    if one.done.done():
        return
    try:
        one.done.set_result(Outputs.of(engine.infer(one.columns)))
    except Exception as error:  # noqa: BLE001 - who asked is told
        one.done.set_exception(error)
