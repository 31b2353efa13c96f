"""Fleets, forecasters and how they came about, in MLflow: a run for each training, a version for what came of it.

MLflow is imported when a registry is opened, and by nobody else: it takes a second and a hundred megabytes.
"""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from scorers import pack
from scorers.errors import ConfigError, InputError, UnavailableError
from tidewatch.groups import Models

CHAMPION, CHALLENGER = "champion", "challenger"
"""Aliases: the version in force, and the latest one that was not promoted."""
REIGNS = "tidewatch.champions"
"""Tag of the registered model: the versions that have been champion, in order."""
FLEET = "fleet"
"""Folder of a run's artefacts that holds the fleet."""
FILE = "fleet.arrow"
LOCAL = "sqlite:///"

log = logging.getLogger(__name__)

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True)
class Artefact:
    """What the versions of a registered model hold."""

    file: str
    install: Callable[[Path, Path], None]
    """Copies the file to where it is in force, if it is sound."""
    command: str
    """Makes one."""


FLEETS = Artefact(FILE, pack.install, "tidewatch train")


@dataclass(frozen=True, slots=True)
class Version:
    """One fleet or forecaster that was registered."""

    number: int
    run_id: str
    created: int
    """Epoch ms."""
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    source: str


@dataclass(frozen=True, slots=True)
class Record:
    """All that is kept of one training."""

    name: str
    started: int
    """Epoch ms."""
    ended: int
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    course: Mapping[str, list[tuple[float, int, int]]]
    """Metrics over time: value, epoch ms, step."""
    tags: Mapping[str, str]
    fleet: Path
    """Folder with all that a version holds."""
    files: Path
    """Folder of what else is kept of the run."""


class Registry:
    """MLflow, under the settings in force.

    Raises:
        ConfigError: the settings name none.
        UnavailableError: it does not answer.
    """

    def __init__(self, settings: Models, artefact: Artefact = FLEETS) -> None:
        self._settings, self._artefact = settings, artefact
        self._address = settings.registry.get_secret_value()
        if not self._address:
            raise ConfigError("models.registry is empty, so that no versions are kept; name an MLflow address.")
        with _answering():
            self._client = self._open()

    def _open(self) -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        from mlflow import MlflowClient  # noqa: PLC0415 - said above

        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.WARNING)
        if self._address.startswith(LOCAL):
            Path(self._address.removeprefix(LOCAL)).parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(self._address, self._address)

    def record(self, record: Record) -> Version:
        """Keep a training, and register its fleet as a version without an alias.

        Raises:
            UnavailableError: MLflow does not answer.
        """
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415 - said above

        client = self._client
        with _answering():
            run = client.create_run(self._experiment(), record.started, dict(record.tags), record.name)
            run_id = run.info.run_id
            metrics = [Metric(name, value, record.ended, 0) for name, value in record.metrics.items()]
            metrics += [Metric(name, *point) for name, points in record.course.items() for point in points]
            params = [Param(name, str(value)) for name, value in record.params.items()]
            client.log_batch(run_id, metrics, params, [RunTag(name, value) for name, value in record.tags.items()])
            client.log_artifacts(run_id, str(record.files))
            client.log_artifacts(run_id, str(record.fleet), FLEET)
            client.set_terminated(run_id, "FINISHED", record.ended)
            self._registered()
            source = f"{run.info.artifact_uri}/{FLEET}"
            made = client.create_model_version(self._settings.name, source, run_id, tags=dict(record.tags))
        return self.version(str(made.version))

    def versions(self) -> list[Version]:
        """Every version, the latest first."""
        with _answering():
            self._registered()
            found = self._client.search_model_versions(f"name = '{self._settings.name}'")
            aliases = self._aliases()
        return sorted((_version(one, aliases) for one in found), key=lambda one: -one.number)

    def version(self, wanted: str) -> Version:
        """A version by number or alias.

        Raises:
            InputError: there is none.
            UnavailableError: MLflow does not answer.
        """
        with _answering():
            aliases = self._aliases()
        number = wanted.removeprefix("v") if wanted.removeprefix("v").isdigit() else aliases.get(wanted)
        known = {str(one.number): one for one in self.versions()}
        if number not in known:
            several = ", ".join([*aliases, *known]) or f"none yet; run `{self._artefact.command}`"
            raise InputError(f"There is no version {wanted!r} of {self._settings.name}; there is {several}.")
        return known[number]

    def champion(self) -> Version | None:
        """The version in force."""
        with _answering():
            number = self._aliases().get(CHAMPION)
        return None if number is None else self.version(number)

    def challenge(self, version: Version) -> None:
        """Give a version the alias of the latest that was not promoted."""
        with _answering():
            self._client.set_registered_model_alias(self._settings.name, CHALLENGER, str(version.number))

    def promote(self, version: Version, target: Path | None = None) -> None:
        """Put a version in force, once what it holds is in ``target``; errors as of :meth:`fetch`."""
        if target is not None:
            self.fetch(version, target)
        with _answering():
            reigns = [*self._reigns(), version.number]
            self._crown(version.number, reigns)

    def rollback(self, target: Path | None = None) -> Version:
        """Put the version in force that was before the one that is, once what it holds is in ``target``.

        Raises:
            InputError: there was none, or it has been deleted.
            FleetFileError, ForecasterFileError, UnavailableError: as of :meth:`fetch`.
        """
        with _answering():
            reigns = self._reigns()
        if len(reigns) < 2:  # noqa: PLR2004 - this one, and the one before
            raise InputError(
                f"No version of {self._settings.name} was in force before this one; promote one by number."
            )
        before = self.version(str(reigns[-2]))
        if target is not None:
            self.fetch(before, target)
        with _answering():
            self._crown(before.number, reigns[:-1])
        return before

    def delete(self, version: Version) -> None:
        """Forget a version; the run that made it stays.

        Raises:
            ConfigError: it is in force.
        """
        if CHAMPION in version.aliases:
            raise ConfigError(f"Version {version.number} is in force; promote another one before deleting it.")
        with _answering():
            self._client.delete_model_version(self._settings.name, str(version.number))
            reigns = [number for number in self._reigns() if number != version.number]
            self._client.set_registered_model_tag(self._settings.name, REIGNS, json.dumps(reigns))

    def fetch(self, version: Version, target: Path) -> None:
        """Put what a version holds in a file, if it is sound, in one step.

        Raises:
            FleetFileError, ForecasterFileError: it is not, or cannot be written.
            UnavailableError: it cannot be had.
        """
        with tempfile.TemporaryDirectory() as folder, _answering():
            got = self._client.download_artifacts(version.run_id, f"{FLEET}/{self._artefact.file}", folder)
            self._artefact.install(Path(got), target)

    def loaded(self, version: Version, load: Callable[[Path], Loaded]) -> Loaded:
        """What a version holds, read from a file that goes again; errors as of ``fetch``."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / self._artefact.file
            self.fetch(version, path)
            return load(path)

    def kept(self, version: Version, name: str, folder: Path) -> Path:
        """A file that the training which made a version has kept, such as its table of results, in a folder."""
        with _answering():
            return Path(self._client.download_artifacts(version.run_id, name, str(folder)))

    def metrics(self, version: Version) -> tuple[dict[str, float], dict[str, str]]:
        """The figures and parameters of the training that made a version."""
        with _answering():
            run = self._client.get_run(version.run_id)
        return dict(run.data.metrics), dict(run.data.params)

    def _experiment(self) -> str:
        known = self._client.get_experiment_by_name(self._settings.experiment)
        if known is not None:
            return str(known.experiment_id)
        local = self._address.startswith(LOCAL)
        place = (self._settings.folder / "artifacts").resolve().as_uri() if local else None
        kind = {"mlflow.experimentKind": "custom_model_development"}  # or its pages show what language models need
        return str(self._client.create_experiment(self._settings.experiment, place, kind))

    def _registered(self) -> None:
        if not self._client.search_registered_models(f"name = '{self._settings.name}'"):
            self._client.create_registered_model(self._settings.name)

    def _aliases(self) -> dict[str, str]:
        found = self._client.search_registered_models(f"name = '{self._settings.name}'")
        return {alias: str(number) for one in found for alias, number in one.aliases.items()}

    def _reigns(self) -> list[int]:
        tags = self._client.get_registered_model(self._settings.name).tags
        return [int(number) for number in json.loads(tags.get(REIGNS, "[]"))]

    def _crown(self, number: int, reigns: list[int]) -> None:
        """The alias last: whoever follows it must find the rest as it is to be."""
        name = self._settings.name
        self._client.set_registered_model_tag(name, REIGNS, json.dumps(reigns))
        if self._aliases().get(CHALLENGER) == str(number):
            self._client.delete_registered_model_alias(name, CHALLENGER)
        self._client.set_registered_model_alias(name, CHAMPION, str(number))


def _version(found: Any, aliases: Mapping[str, str]) -> Version:
    own = tuple(sorted(alias for alias, number in aliases.items() if number == str(found.version)))
    return Version(int(found.version), found.run_id, int(found.creation_timestamp), own, dict(found.tags), found.source)


@contextmanager
def _answering() -> Iterator[None]:
    """MLflow's errors as ours."""
    try:
        yield
    except ImportError as error:
        raise UnavailableError(f"MLflow cannot be loaded ({error}); run `make setup`.") from error
    except OSError as error:
        raise UnavailableError(f"The registry cannot be reached ({error}); see models.registry.") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in {"mlflow", "sqlalchemy", "alembic", "requests"}:
            raise
        first = str(error).partition("\n")[0]
        raise UnavailableError(f"The registry does not answer as it should ({first}); see models.registry.") from error
