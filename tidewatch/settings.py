"""What a person can set: read once, here, and handed on as frozen values.

Sources, weakest first: the defaults below, ``tidewatch.toml``, the environment, flags. Every source
becomes a flat mapping of dotted names (``window.size_s``) to values, so that each setting can say
where it came from. This is the only module that reads the environment.
"""

import difflib
import os
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    SecretStr,
    ValidationError,
)

from scorers.errors import ConfigError
from tidewatch import entries
from tidewatch.groups import Settings

FILE = Path("tidewatch.toml")
PREFIX = "TIDEWATCH_"
SCHEDULE = "schedule."
"""Begins the names of what is scheduled, which the file alone says."""
OPTIONS = ("kafka.options", "spark.options")
"""Tables whose names are not ours."""
SHORT = {"TIDEWATCH_KAFKA": "kafka.bootstrap", "TIDEWATCH_REDIS": "redis.url"}
"""The two variables everybody sets, and what they stand for."""

Origin = Literal["default", "file", "env", "flag"]


@dataclass(frozen=True, slots=True)
class Given:
    """One value as it was found: which kind of source, and its name for a person."""

    value: object = field(repr=False)
    """May be secret."""
    origin: Origin
    source: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of ``tidewatch config``; ``value`` is masked."""

    field: str
    value: str
    origin: Origin
    description: str


@dataclass(frozen=True, slots=True)
class InForce:
    """The settings in force, and where each one came from."""

    settings: Settings
    given: Mapping[str, Given]

    def origin(self, name: str) -> Origin:
        """Where the setting with this dotted name was last set."""
        found = [given.origin for key, given in self.given.items() if f"{key}.".startswith(f"{name}.")]
        return found[-1] if found else "default"

    def configured(self, name: str) -> bool:
        """Whether anybody set it, so that its default no longer applies."""
        return self.origin(name) != "default"

    def masked(self) -> list[Row]:
        """Every setting as a person or a log may see it."""
        return [
            Row(dotted, mask(getattr(getattr(self.settings, group), name)), self.origin(dotted), description)
            for dotted, group, name, description in described()
        ] + [
            Row(SCHEDULE + dotted, mask(value), self.origin(SCHEDULE + dotted), description)
            for dotted, value, description in entries.fields(self.settings.schedule)
        ]


def load(
    flags: Mapping[str, object] | None = None, *, config: Path | None = None, environ: Mapping[str, str] = os.environ
) -> InForce:
    """Read every source; ``flags`` are dotted names, and those that are None were not given.

    Raises:
        ConfigError: the file is missing or not TOML, a name is unknown, or a value is wrong.
    """
    given = dict(_from_file(config))
    given |= dict(_from_environ(environ))
    given |= {
        name: Given(value, "flag", "the command line") for name, value in (flags or {}).items() if value is not None
    }
    nested: dict[str, dict[str, Any]] = {}
    for name, found in given.items():
        group, field, option = _place(name, found)
        fields = nested.setdefault(group, {})
        if option:
            fields.setdefault(field, {})[option] = found.value
        else:
            fields[field] = found.value
    try:
        return InForce(Settings.model_validate(nested), given)
    except ValidationError as error:
        raise _refusal(error, given) from error


def override(in_force: InForce, changes: Mapping[str, Any]) -> InForce:
    """The settings with some changed, as if by flags."""
    given = {name: found.value for name, found in in_force.given.items()}
    return load({**given, **changes}, environ={})


def described() -> Iterator[tuple[str, str, str, str]]:
    """(dotted name, group, field, description) of every setting, in order."""
    for group, model in Settings.model_fields.items():
        for name, info in model.annotation.model_fields.items():  # type: ignore[union-attr]  # every group is a model
            yield f"{group}.{name}", group, name, info.description


def mask(value: object) -> str:
    """A value with its secrets hidden; an address keeps its host."""
    if isinstance(value, SecretStr):
        hidden = re.sub(r"//.*@", "//********@", value.get_secret_value())
        return re.sub(r"(password=)[^&]*", r"\1********", hidden)
    if isinstance(value, dict):
        return ", ".join(f"{name}=********" for name in value)
    if isinstance(value, tuple):
        return shlex.join(map(str, value))
    return "" if value is None else str(value)


def _from_file(config: Path | None) -> Iterator[tuple[str, Given]]:
    path = config or FILE
    if config is None and not path.exists():
        return
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The settings file {str(path)!r} cannot be read ({error}); check --config.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"The settings file {str(path)!r} is not TOML: {error}.") from error
    for name, value in _flat(tables):
        yield name, Given(value, "file", str(path))


def _flat(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict) and (value or above != SCHEDULE):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield above + name, value


def _from_environ(environ: Mapping[str, str]) -> Iterator[tuple[str, Given]]:
    """Names that are short come first, so that the long form of the same setting wins; empty means unset."""
    flattened = {PREFIX + name.replace(".", "_").upper(): name for name, *_ in described()}
    for variable in sorted(environ, key=lambda name: (name not in SHORT, name)):
        value = environ[variable]
        if not variable.startswith(PREFIX) or not value:
            continue
        if variable in SHORT:
            yield SHORT[variable], Given(value, "env", variable)
        elif variable.startswith(f"{PREFIX}SCHEDULE__"):
            raise ConfigError(
                f"{variable} is not read: a table [schedule.NAME] of the settings file says what runs when."
            )
        elif "__" in variable:
            group, field, *option = variable.removeprefix(PREFIX).lower().split("__")
            yield ".".join([group, field, *(part.replace("_", ".") for part in option)]), Given(value, "env", variable)
        elif variable in flattened:
            right = PREFIX + flattened[variable].replace(".", "__").upper()
            raise ConfigError(f"{variable} is not a setting; write {right}, with two underscores.")


def _place(name: str, found: Given) -> tuple[str, str, str]:
    """Group, field and, for ``OPTIONS``, the option."""
    if name in OPTIONS:
        example = "sasl.password" if name == "kafka.options" else "spark.driver.memory"
        raise ConfigError(f"{name} in {found.source} needs an option's name behind it, such as {name}.{example}.")
    if name.startswith(SCHEDULE):
        return entries.place(name, found.source)
    known = [field for field, *_ in described()]
    group, field, option = [*name.split(".", 2), "", ""][:3]
    if f"{group}.{field}" in known and (not option or f"{group}.{field}" in OPTIONS):
        return group, field, option
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "`tidewatch config` lists every setting."
    raise ConfigError(f"{name!r} in {found.source} is not a setting; {hint}")


def _refusal(error: ValidationError, given: Mapping[str, Given]) -> ConfigError:
    """One sentence for the first thing wrong."""
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    above = name.rpartition(".")[0]
    found = [
        entry for key, entry in given.items() if f"{key}.".startswith(f"{name}.") or f"{name}.".startswith(f"{key}.")
    ] or [entry for key, entry in given.items() if key.startswith(f"{above}.")]
    why = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        why = "it is missing"
    if first["type"] == "string_pattern_mismatch":
        why = "should be: " + next(row[-1] for row in described() if row[0] == name).rstrip(".")
    secret = name.startswith((*OPTIONS, "redis.url"))
    shown = "" if secret or name not in given else f" is {found[-1].value!r}"
    return ConfigError(f"{name}{shown}: {why} (set in {found[-1].source}).")
