"""How pages are written: one HTML file that needs nothing beside it and holds no script (ADR 35)."""

from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from scorers.errors import ConfigError, UnavailableError
from scorers.whole import replacing


def check(path: Path, flag: str) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        ConfigError: there is no place for the page.
    """
    if path.is_dir():
        raise ConfigError(f"{str(path)!r} is a folder; give {flag} the name of a file in it.")
    if not path.parent.is_dir():
        raise ConfigError(f"There is no folder {str(path.parent)!r} for the report; make it, or name another.")


def write(path: Path, template: str, told: Mapping[str, Any]) -> None:
    """Fill in a template of this package and write it; the page appears whole.

    Raises:
        UnavailableError: the disk does not take it.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # noqa: PLC0415 - half a second, which only those who want a page are to pay

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(_text)
    )
    page = environment.get_template(template).render(version=version("tidewatch"), **told)
    try:
        with replacing(path) as file:
            file.write(page.encode())
    except OSError as error:
        raise UnavailableError(f"The report {path} cannot be written ({error}); name a folder with room.") from error


def _text(name: str) -> str:
    return files("tidewatch").joinpath(name).read_text("utf-8")
