"""What every protocol asks: find a model, prepare the columns, score them with whoever else is there.

A share of the requests that name no version may be answered by the challenger (canary), and a copy of a share be scored
by it without an answer (shadow); what it says otherwise is counted and logged.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import numpy as np

from serving import replay as recorded
from serving.batching import Asker, Batcher
from serving.errors import RefusedError
from serving.models import STAMP, FleetModel, Model
from serving.repository import Repository
from serving.tensors import Columns, Outputs
from stream.partition import StreamSpec

log = logging.getLogger(__name__)

Collect = Callable[[str, str, Mapping[str, Any], Mapping[str, Any]], None]
"""Model, version, inputs, outputs; it never waits."""
_COPIES = 64
"""Copies that may wait to be scored; more are left out, and counted."""
_FEW = 64
"""Readings or windows that are scored on the event loop; more go to a thread."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What of the requests goes to the challenger; shares from 0 to 1."""

    canary: float = 0.0
    shadow: float = 0.0


@dataclass
class _Share:
    """Says yes as often as a share asks for, evenly."""

    share: float
    _due: float = 0.0

    def turn(self) -> bool:
        self._due += self.share
        if self._due < 1:
            return False
        self._due -= 1
        return True


@dataclass(eq=False)
class Service:
    """The models and how they are scored; used from one event loop."""

    repository: Repository
    batcher: Batcher
    stream: StreamSpec
    trial: Trial = Trial()
    collect: Collect | None = None
    """Takes what went in and what came out."""
    leaving: bool = False
    """Whether it ends soon, and is not ready for more; it answers all the same."""
    counts: Counter[str] = field(default_factory=Counter)
    """Requests, rows, those that the challenger answered, copies it was given, rows it judged otherwise."""

    def __post_init__(self) -> None:
        self._canary, self._shadow = _Share(self.trial.canary), _Share(self.trial.shadow)
        self._copies: set[asyncio.Task[None]] = set()

    async def model(self, name: str, version: str = "") -> Model:
        """The model that is to answer.

        Raises:
            NotFoundError: there is none.
            OverloadedError: it cannot be loaded.
        """
        return self._tried(self.repository.find(name, version) or await self.repository.get(name, version), version)

    def at_hand(self, name: str, version: str = "") -> Model | None:
        """The model that is to answer; None where its file must be loaded first.

        Raises:
            NotFoundError: there is none.
        """
        found = self.repository.find(name, version)
        return found and self._tried(found, version)

    def _tried(self, found: Model, version: str) -> Model:
        """A model, or the challenger's in its place."""
        if not version and self.trial.canary and (rival := self.repository.rival(found)) and self._canary.turn():
            self.counts["canary"] += 1
            return rival
        return found

    async def infer(self, model: Model, columns: Columns) -> Outputs:
        """The outputs of a request: of rows of features, or of readings where there is a column ``ts``.

        Raises:
            RefusedError: the columns do not keep the signature.
        """
        if STAMP in columns and isinstance(model, FleetModel):
            return Outputs.of(recorded.columns(await self.replay(model, recorded.readings_of(model, columns))))
        done: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()
        self.put(model, model.prepare(columns), done)
        found = await done
        self.told(model, columns, found)
        return found

    def put(self, model: Model, prepared: Columns, asker: Asker) -> None:
        """Let an asker have the outputs of columns that the model has prepared; ``told`` is to follow."""
        self._count(len(next(iter(prepared.values()))))
        self.batcher.put(model.engine, prepared, asker)

    def told(self, model: Model, columns: Columns, found: Outputs) -> None:
        """Collect what was answered, and ask the challenger too."""
        if self.collect:
            self.collect(model.name, model.version, columns, found)
        if self.trial.shadow and (rival := self.repository.rival(model)) and self._shadow.turn():
            self._copy(rival, columns, found, model.version)

    async def replay(self, model: Model, readings: Sequence[recorded.Reading]) -> list[msgspec.Raw]:
        """Scores of the windows that readings make."""
        return await self._play(recorded.replay, model, readings, "readings")

    async def judge(self, model: Model, windows: Sequence[recorded.Window]) -> list[msgspec.Raw]:
        """Scores of windows."""
        return await self._play(recorded.judge, model, windows, "windows")

    async def _play(
        self, play: Callable[..., list[msgspec.Raw]], model: Model, given: Sequence[Any], called: str
    ) -> list[msgspec.Raw]:
        if not isinstance(model, FleetModel):
            raise RefusedError(f"data: {model.name} takes no {called}; expected columns, {model.signature}.")
        self._count(len(given))
        call = partial(play, model, given, self.stream)
        found = call() if len(given) <= _FEW else await asyncio.to_thread(call)
        if self.collect:
            scores = {"scores": [msgspec.json.decode(score) for score in found]}
            self.collect(model.name, model.version, {called: msgspec.to_builtins(given)}, scores)
        return found

    def _count(self, rows: int) -> None:
        self.counts["requests"] += 1
        self.counts["rows"] += rows

    async def warm(self) -> None:
        """Score a typical row in each way, so that no client waits for what is compiled when it is first used."""
        for hosted in self.repository.kept():
            model = next(filter(None, (hosted.device(name, name) for name in hosted.devices[:1])), hosted.whole)
            if not isinstance(model, FleetModel) or len(model.fleet):
                await asyncio.to_thread(self._warm, model)

    def _warm(self, model: Model) -> None:
        model.engine.infer(model.prepare(model.signature.sample))
        if not isinstance(model, FleetModel):
            return
        reading = recorded.Reading(
            ts=1_700_000_000_000, values=dict.fromkeys(model.engine.metrics, 0.0), device_id=model.device
        )
        recorded.replay(model, [reading], self.stream)

    # --- the challenger ------------------------------------------------------------------------

    def _copy(self, rival: Model, columns: Columns, said: Outputs, version: str) -> None:
        if len(self._copies) >= _COPIES:
            self.counts["shadow.left_out"] += 1
            return
        task = asyncio.ensure_future(self._compare(rival, columns, said, version))
        self._copies.add(task)
        task.add_done_callback(self._copies.discard)

    async def _compare(self, rival: Model, columns: Columns, said: Outputs, version: str) -> None:
        try:
            other = await self.batcher.infer(rival.engine, rival.prepare(columns))
        except RefusedError as error:
            self.counts["shadow.refused"] += 1
            log.warning("the challenger %s refuses a copy for %s: %s", rival.version, rival.name, error)
            return
        otherwise = (said["anomaly"] != other["anomaly"]) | (said["state"] != other["state"])
        off = np.abs(said["decision"] - other["decision"])
        self.counts["shadow"] += 1
        self.counts["shadow.rows"] += len(otherwise)
        self.counts["shadow.otherwise"] += int(otherwise.sum())
        log.info(
            "shadow model=%s champion=%s challenger=%s rows=%d otherwise=%d decision_off=%.6g score_off=%.6g",
            rival.name, version, rival.version, len(otherwise), int(otherwise.sum()),
            np.nanmax(off, initial=0.0), np.nanmax(np.abs(said["score"] - other["score"]), initial=0.0),
        )  # fmt: skip

    def leave(self) -> None:
        """Say that it ends soon."""
        self.leaving = True

    async def settled(self) -> None:
        """Wait for the copies under way."""
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._copies, return_exceptions=True)
