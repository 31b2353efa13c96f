"""A model file in memory as models by name; one version of it."""

from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np

from scorers import pack
from scorers.fleet import Fleet
from scorers.forecast import pack as forecasters
from scorers.forecast.model import Forecaster
from serving.forecasts import ForecastEngine, ForecastModel
from serving.models import FleetEngine, FleetModel, Model

_VIEWS = 4096
"""Models of devices that are kept ready; others are made when asked for."""
_OF_A_MODEL = 600
"""Bytes of a model's names and places."""


class Hosted(Protocol):
    """What one file holds: a model under the file's name, and perhaps one for each device under its own."""

    @property
    def version(self) -> str:
        """Of all its models."""

    @property
    def fingerprint(self) -> str | None:
        """Of the file; it changes with it."""

    @property
    def bytes(self) -> int:
        """What it takes of memory."""

    @property
    def whole(self) -> Model:
        """The model under the file's name."""

    @property
    def devices(self) -> Sequence[str]:
        """Those that have a model of their own."""

    def device(self, called: str, device: str, /) -> Model | None:
        """The model of a device by the name it is asked for by; None where it has none of its own."""


class HostedFleet:
    """The models of one fleet."""

    def __init__(self, name: str, fleet: Fleet, fingerprint: str | None, max_rows: int) -> None:
        self.fleet = fleet
        self.version, self.devices = fleet.version, fleet.devices
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

    @classmethod
    def load(cls, name: str, path: Path, max_rows: int) -> "HostedFleet":
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


class HostedForecaster:
    """The load forecaster, which is one model of all servers."""

    devices: tuple[str, ...] = ()

    def __init__(self, name: str, forecaster: Forecaster, fingerprint: str | None, max_rows: int) -> None:
        self.version, self.fingerprint = forecaster.version, fingerprint
        arrays = (array for trees in forecaster.ensembles for array in trees.arrays().values())
        self.bytes = sum(array.nbytes for array in arrays)
        self.whole = ForecastModel(name, ForecastEngine(forecaster), max_rows)

    @classmethod
    def load(cls, name: str, path: Path, max_rows: int) -> "HostedForecaster":
        """Read a forecaster's file.

        Raises:
            ForecasterFileError: it is missing or not sound.
        """
        fingerprint = forecasters.fingerprint(path)
        return cls(name, forecasters.load(path), fingerprint, max_rows)

    def device(self, called: str, device: str, /) -> None:
        """None: there is nobody's own."""
