"""Every error a person can meet, in one tree.

::

    TidewatchError            something the person at the keyboard can act on
    ├── ConfigError           a setting or flag is wrong; trying again does not help
    ├── InputError            a file or recording cannot be read; trying again does not help
    ├── ModelError            a fleet or model cannot be used; trying again does not help
    │   ├── FleetFileError    the file is missing, torn, tampered with or of a newer format
    │   └── ForecasterFileError   the same of a load forecaster's file
    └── UnavailableError      Kafka, Redis or a disk does not answer; trying again may help

The message is one sentence that says what is wrong and names the fix.
"""

from collections.abc import Iterable


class TidewatchError(Exception):
    """Root of the tree; ``retryable`` says whether trying again may help."""

    retryable = False


class ConfigError(TidewatchError):
    """A setting, flag or combination of them is wrong."""


class InputError(TidewatchError):
    """A file, folder or recording cannot be read or lacks what is needed."""


class ModelError(TidewatchError):
    """A model cannot be trained, or must not be used."""


class FleetFileError(ModelError):
    """A fleet file is missing, torn, tampered with or of a newer format."""


class ForecasterFileError(ModelError):
    """A load forecaster's file is missing, torn, tampered with, of a newer format or something else."""


class UnavailableError(TidewatchError):
    """A broker, server or disk does not answer."""

    retryable = True


def hold(group: str, given: object, rules: Iterable[tuple[str, bool, str]]) -> None:
    """Check fields of ``given``: each rule is a name, whether its value is fine, and what it must be.

    Raises:
        ConfigError: for the first that is not, as ``<group>.<name>``.
    """
    for name, fine, rule in rules:
        if not fine:
            raise ConfigError(f"{group}.{name} is {getattr(given, name)}; make it {rule}.")
