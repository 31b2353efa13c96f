"""Every model by name and version: files in memory, loaded when asked for, swapped while requests are in flight.

The main fleet is ``Spec.fleet`` and always in memory, as the load forecaster is, ``Spec.forecaster``; each file
``NAME.arrow`` of ``Spec.folder`` is a fleet NAME that is loaded when first asked for, and leaves when others need its
memory. A device's model is ``NAME/DEVICE``, one of the main fleet ``DEVICE`` alone. Who has resolved a model holds it:
a swap or an unloading ends no request under way.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from scorers import pack
from scorers.errors import TidewatchError
from serving.errors import NotFoundError, OverloadedError, RefusedError
from serving.hosted import Hosted, HostedFleet, HostedForecaster
from serving.models import FleetModel, Model
from serving.signature import listed

log = logging.getLogger(__name__)

ENDING = ".arrow"
READY, AWAY = "READY", "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Spec:
    """Where models come from, and what a request may ask for."""

    fleet: Path
    """The main fleet's file."""
    name: str = "fleet"
    """What it is called."""
    challenger: Path | None = None
    """File of a fleet that competes with it."""
    forecaster: Path | None = None
    """The load forecaster's file."""
    forecaster_name: str = "load"
    """What it is called."""
    folder: Path | None = None
    """Other fleets, each a file."""
    memory_bytes: int = 2**30
    """What those may take together."""
    max_rows: int = 100_000
    """Rows of a request."""


@dataclass(eq=False)
class Slot:
    """One file by name."""

    name: str
    path: Path
    read: Callable[[str, Path, int], Hosted] = HostedFleet.load
    kept: bool = False
    """Whether it is always in memory."""
    nothing: str = "there is no fleet yet; run `tidewatch train`"
    """What to say where there is no such file."""
    hosted: Hosted | None = None
    challenger: Hosted | None = None
    reason: str = "not asked for yet"
    """Why it is not in memory."""
    absent: bool = False
    """Whether there was no file when it was last looked at."""
    removed: bool = False
    """Whether a client has unloaded it."""
    hidden: set[str] = field(default_factory=set)
    """Devices that a client has unloaded."""
    used: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def versions(self) -> Iterator[Hosted]:
        """What may be asked for by version."""
        if self.hosted:
            yield self.hosted
        if self.challenger:
            yield self.challenger


class Repository:
    """The models of a service; used from one event loop."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.main = Slot(spec.name, spec.fleet, kept=True)
        self._slots: dict[str, Slot] = {spec.name: self.main}
        if spec.forecaster is not None:
            nothing = "there is no forecaster yet; run `tidewatch load train`"
            name = spec.forecaster_name
            self._slots[name] = Slot(name, spec.forecaster, HostedForecaster.load, kept=True, nothing=nothing)
        self._uses = count(1)
        self._told: dict[Path, str] = {}

    # --- finding -------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the main fleet is in memory, or where there is none the forecaster."""
        if self.main.hosted is None and self.main.absent:
            return any(self.kept())
        return self.main.hosted is not None

    def kept(self) -> Iterator[Hosted]:
        """What is always in memory, and is there."""
        return (slot.hosted for slot in self._slots.values() if slot.kept and slot.hosted)

    def find(self, name: str, version: str = "") -> Model | None:
        """A model that is in memory; None where its file must be loaded first.

        Raises:
            NotFoundError: there is no such model or version, or it was unloaded.
        """
        slot, device = self._place(name)
        if slot.removed or (device is not None and device in slot.hidden):
            raise NotFoundError(f"The model {name!r:.80} is unloaded; POST /v2/repository/models/NAME/load loads it.")
        if slot.hosted is None:
            return None
        slot.used = next(self._uses)
        hosted = self._version(slot, name, version)
        return hosted.whole if device is None else self._device(hosted, name, device)

    async def get(self, name: str, version: str = "") -> Model:
        """A model, of a file that is loaded for it if need be.

        Raises:
            NotFoundError: there is no such model or version, or it was unloaded.
            OverloadedError: its file cannot be loaded.
        """
        found = self.find(name, version)
        if found is None:
            slot, _ = self._place(name)
            await self._load(slot)
            found = self.find(name, version)
        if found is None:  # evicted at once, as something else was larger
            raise OverloadedError(f"The model {name!r:.80} found no room; raise serving.memory_mb.")
        return found

    def rival(self, model: Model) -> Model | None:
        """The challenger's model of the same name, where the model is the champion's and there is one."""
        champion, rival = self.main.hosted, self.main.challenger
        if rival is None or not isinstance(model, FleetModel) or not isinstance(champion, HostedFleet):
            return None
        if model.fleet is not champion.fleet:
            return None
        return rival.whole if model.device is None else rival.device(model.name, model.device)

    def versions(self, name: str) -> list[str]:
        """What may be asked for of a model that is there, the version in force first."""
        slot, device = self._place(name)
        found = [hosted for hosted in slot.versions() if device is None or hosted.device(name, device)]
        return list(dict.fromkeys(hosted.version for hosted in found))

    def _place(self, name: str) -> tuple[Slot, str | None]:
        if (slot := self._slots.get(name)) is not None:
            return slot, None
        main = self.main.hosted
        if main is not None and main.device(name, name) is not None:
            return self.main, name
        head, slash, tail = name.partition("/")
        if slash and (slot := self._slots.get(head)) is not None:
            return slot, tail
        if main is None:
            raise NotFoundError(f"There is no model {name!r:.80}: {self.main.reason}.")
        known = [*self._slots, *main.devices[:3]]
        raise NotFoundError(
            f"There is no model {name!r:.80}; there is {listed(known)}, and what /v2/repository/index says."
        )

    @staticmethod
    def _version(slot: Slot, name: str, version: str) -> Hosted:
        for hosted in slot.versions():
            if version in ("", hosted.version):
                return hosted
        known = ", ".join(hosted.version for hosted in slot.versions())
        raise NotFoundError(f"The model {name!r:.80} has no version {version!r:.80}; there is {known}.")

    @staticmethod
    def _device(hosted: Hosted, name: str, device: str) -> Model:
        found = hosted.device(name, device)
        if found is None:
            where = f"{hosted.whole.name}, version {hosted.version}"
            raise NotFoundError(f"In {where} there is no model of device {device!r:.80}.")
        return found

    # --- the repository extension --------------------------------------------------------------

    def index(self, *, ready: bool = False) -> list[dict[str, str]]:
        """Name, version, state and reason of every model; of fleets that are not in memory, of the fleet alone."""
        found = list(self._index())
        return [row for row in found if row["state"] == READY] if ready else found

    def _index(self) -> Iterator[dict[str, str]]:
        for slot in self._slots.values():
            if slot.hosted is None or slot.removed:
                reason = "unloaded" if slot.removed else slot.reason
                yield {"name": slot.name, "version": "", "state": AWAY, "reason": reason}
                continue
            version = slot.hosted.version
            yield {"name": slot.name, "version": version, "state": READY, "reason": ""}
            for device in slot.hosted.devices:
                away = device in slot.hidden
                name = device if slot is self.main and device not in self._slots else f"{slot.name}/{device}"
                state, reason = (AWAY, "unloaded") if away else (READY, "")
                yield {"name": name, "version": version, "state": state, "reason": reason}

    async def load(self, name: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Load a file anew, or let a device's model be asked for again.

        Raises:
            NotFoundError: there is no such model.
            RefusedError: a parameter asks for what models here are not made of, or the file is not sound.
        """
        if given := [key for key in parameters or {} if key.startswith("file:")]:
            raise RefusedError(
                f"{listed(given)}: models are files of ours; put a fleet's into serving.folder, and load it by name."
            )
        await self.scan()
        slot, device = self._place(name)
        if slot.hosted is None or device is None:
            await self._load(slot, again=True)
        if device is not None and slot.hosted is not None:
            self._device(slot.hosted, name, device)
            slot.hidden.discard(device)
        slot.removed = False

    async def unload(self, name: str) -> None:
        """Let a model go: a file's from memory, a device's model from being asked for.

        Raises:
            NotFoundError: there is no such model.
        """
        slot, device = self._place(name)
        if device is not None:
            if slot.hosted is not None:
                self._device(slot.hosted, name, device)
            slot.hidden.add(device)
            return
        slot.removed = True
        if not slot.kept:
            slot.hosted, slot.reason = None, "unloaded"

    # --- loading and swapping ------------------------------------------------------------------

    async def look(self) -> None:
        """Load what has changed on disk; what cannot be loaded leaves in force what is."""
        await self.scan()
        for slot in list(self._slots.values()):
            if slot.kept or slot.hosted is not None:
                await self._refresh(slot)
        if self.spec.challenger is not None:
            await self._challenge(self.spec.challenger)

    async def scan(self) -> None:
        """Find the fleets of the folder."""
        if self.spec.folder is None:
            return
        folder = self.spec.folder
        names = await asyncio.to_thread(lambda: {path.stem: path for path in sorted(folder.glob(f"*{ENDING}"))})
        for name, path in names.items():
            self._slots.setdefault(name, Slot(name, path))
        for name in [name for name, slot in self._slots.items() if name not in names and not slot.kept]:
            del self._slots[name]

    async def _refresh(self, slot: Slot) -> None:
        now = await asyncio.to_thread(pack.fingerprint, slot.path)
        slot.absent = now is None
        if slot.absent and slot.hosted is None:
            slot.reason = slot.nothing
        if now is not None and (slot.hosted is None or now != slot.hosted.fingerprint):
            with suppress(OverloadedError):
                await self._load(slot, again=True)

    async def _challenge(self, path: Path) -> None:
        now = await asyncio.to_thread(pack.fingerprint, path)
        known = self.main.challenger.fingerprint if self.main.challenger else None
        if now is None:
            self.main.challenger = None
        elif now != known:
            hosted = await self._read(self.main, path)
            self.main.challenger = hosted or self.main.challenger

    async def _load(self, slot: Slot, *, again: bool = False) -> None:
        """Put a file in force; one reading of it serves all who wait.

        Raises:
            NotFoundError: there is no such file, and the service has other models.
            OverloadedError: it cannot be read.
        """
        before = slot.hosted
        async with slot.lock:
            if slot.hosted is not None and (not again or slot.hosted is not before):
                return
            hosted = await self._read(slot, slot.path)
            if hosted is None and slot.absent and self.ready:
                raise NotFoundError(f"There is no model {slot.name}: {slot.nothing}.")
            if hosted is None:
                raise OverloadedError(f"The model {slot.name} cannot be loaded; the service's log says why.")
            slot.hosted, slot.reason = hosted, ""
            slot.used = next(self._uses)
        self._evict(slot)

    async def _read(self, slot: Slot, path: Path) -> Hosted | None:
        try:
            hosted = await asyncio.to_thread(partial(slot.read, slot.name, path, self.spec.max_rows))
        except TidewatchError as error:
            slot.reason = slot.reason if slot.hosted else "its file cannot be loaded; the service's log says why"
            if self._told.get(path) != str(error):
                log.warning("%s stays as it is: %s", slot.name, error)
            self._told[path] = str(error)
            return None
        self._told.pop(path, None)
        log.info("%s version %s is loaded: %d models", slot.name, hosted.version, len(hosted.devices) or 1)
        return hosted

    def _evict(self, kept: Slot) -> None:
        """Let the fleets go that were asked for longest ago, until the others fit."""
        loaded = sorted(
            (slot for slot in self._slots.values() if slot.hosted and not slot.kept), key=lambda slot: slot.used
        )
        total = sum(slot.hosted.bytes for slot in loaded if slot.hosted)
        for slot in loaded:
            if total <= self.spec.memory_bytes or slot is kept or slot.hosted is None:
                break
            total -= slot.hosted.bytes
            slot.hosted, slot.reason = None, "not asked for of late"
            log.info("%s has left memory", slot.name)
