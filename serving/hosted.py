"""A fleet in memory as models by name; one version of one fleet file."""

from dataclasses import fields
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np

from scorers import pack
from scorers.fleet import Fleet
from serving.models import FleetEngine, FleetModel

_VIEWS = 4096
"""Models of devices that are kept ready; others are made when asked for."""
_OF_A_MODEL = 600
"""Bytes of a model's names and places."""


class Hosted:
    """The models of one fleet: the whole under the fleet's name, each device's under its own."""

    def __init__(self, name: str, fleet: Fleet, fingerprint: str | None, max_rows: int) -> None:
        self.name = name
        self.fleet = fleet
        self.fingerprint = fingerprint
        self.bytes = _OF_A_MODEL * len(fleet) + sum(
            getattr(group, field.name).nbytes
            for group in fleet.groups
            for field in fields(group)
            if isinstance(getattr(group, field.name), np.ndarray)
        )
        self._max_rows = max_rows
        metrics = tuple(dict.fromkeys(chain.from_iterable(group.metrics for group in fleet.groups)))
        self._engines = {group.metrics: FleetEngine(fleet, group.metrics) for group in fleet.groups}
        self._engines.setdefault(metrics, FleetEngine(fleet, metrics))
        self.whole = FleetModel(name, fleet, self._engines[metrics], max_rows)
        self.device = lru_cache(_VIEWS)(self._device)
        """The model of a device by the name it is asked for by; None where it has none of its own."""

    @classmethod
    def load(cls, name: str, path: Path, max_rows: int) -> "Hosted":
        """Read a fleet file.

        Raises:
            FleetFileError: it is missing or not sound.
        """
        fingerprint = pack.fingerprint(path)
        return cls(name, pack.mapped(path), fingerprint, max_rows)

    def _device(self, called: str, device: str) -> FleetModel | None:
        place = int(self.fleet.index([device])[0])
        if place < 0:
            return None
        group, _ = self.fleet.locate(place)
        return FleetModel(called, self.fleet, self._engines[group.metrics], self._max_rows, device)
