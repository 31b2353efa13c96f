"""Commands of ours as child processes, with the settings in force here and a few of their own."""

import os
import subprocess
import sys
from pathlib import Path

from pydantic import SecretStr

from scorers.errors import UnavailableError
from tidewatch.servers import Server
from tidewatch.settings import PREFIX, SCHEDULE, Given, InForce


def environment(in_force: InForce) -> dict[str, str]:
    """The settings that were given, as environment variables: they outrank a file and show in no process list."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    given = {name: found for name, found in in_force.given.items() if not name.startswith(SCHEDULE)}
    return inherited | {_variable(name): _text(found) for name, found in given.items()}


def _variable(name: str) -> str:
    group, field, *option = name.split(".", 2)
    return PREFIX + "__".join([group, field, *(part.replace(".", "_") for part in option)]).upper()


def _text(found: Given) -> str:
    value = found.value
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


class Child(Server):
    """A command under way; ``log`` keeps what it prints."""

    def __init__(self, in_force: InForce, log: Path, *words: str) -> None:
        super().__init__(" ".join(words), [sys.executable, "-m", "tidewatch", *words], log, environment(in_force))

    def answers(self) -> bool:
        """It need not answer; it must not end."""
        return True

    def check(self) -> None:
        """See that it still runs.

        Raises:
            UnavailableError: it ended by itself; the end of its log is told.
        """
        process: subprocess.Popen[bytes] | None = self._process
        if process is not None and process.poll() is not None:
            raise UnavailableError(f"`tidewatch {self._name}` ended with code {process.returncode}:\n{self.tail()}")
