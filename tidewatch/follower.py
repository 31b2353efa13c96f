"""A worker's file kept equal to a version in the registry; while the registry is away, it stays as it is."""

import logging
import threading
from pathlib import Path

from scorers.errors import TidewatchError
from tidewatch.groups import Models
from tidewatch.registry import FLEETS, Artefact, Registry

log = logging.getLogger(__name__)


class Follower(threading.Thread):
    """Fetches the version that has an alias, whenever that is another one; ends with its process."""

    def __init__(self, settings: Models, target: Path, artefact: Artefact = FLEETS) -> None:
        super().__init__(name="follower", daemon=True)
        self._settings, self._target, self._artefact = settings, target, artefact
        self._registry: Registry | None = None
        self._number = 0
        self._told = ""

    def run(self) -> None:
        """Look, fetch, wait, again and again."""
        while True:
            self.look()
            threading.Event().wait(self._settings.follow_s)

    def look(self) -> None:
        """Fetch what is to be in force, if it is not what was fetched before; what goes wrong is logged once."""
        try:
            self._registry = self._registry or Registry(self._settings, self._artefact)
            version = self._registry.version(self._settings.follow)
            if version.number != self._number:
                self._registry.fetch(version, self._target)
                self._number, self._told = version.number, ""
                log.info("version %d of %s is in %s", version.number, self._settings.name, self._target)
        except TidewatchError as error:
            if str(error) != self._told:
                log.warning("%s stays as it is: %s", self._target, error)
            self._told = str(error)
