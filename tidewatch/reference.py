"""The settings as documents, written from the settings themselves by ``scripts/reference``."""

import json
from itertools import groupby

from tidewatch import entries
from tidewatch.entries import Entry
from tidewatch.groups import Settings
from tidewatch.settings import PREFIX, SHORT, described

_HEAD = """# Settings

Written by `scripts/reference` from `tidewatch/settings.py`; do not edit.

Each source is stronger than the one above it:

1. the defaults below;
2. `tidewatch.toml` in the working directory, or the file named by `--config`
   ([example](../tidewatch.example.toml));
3. the environment;
4. flags.

`tidewatch config` prints what is in force and where it came from, secrets masked. Names ending in `_s` are seconds.
"""

_EXAMPLE = """# Copy to tidewatch.toml and uncomment what should differ from the default shown.
# Written by scripts/reference from tidewatch/settings.py; do not edit.
"""

_SCHEDULE = """
## `[schedule.NAME]`

A command that runs at its times under `tidewatch schedule run`, one table each; the settings file alone says what is
scheduled.

| field | default | meaning |
|---|---|---|
"""

_NIGHTLY = """
#[schedule.nightly]
"""
_ENTRY = {name: json.dumps(value) for name, value in Entry(command="train", cron="30 2 * * *")}


def page() -> str:
    """The page ``docs/settings.md``."""
    short = {field: variable for variable, field in SHORT.items()}
    parts = [_HEAD]
    for group, rows in groupby(described(), key=lambda row: row[1]):
        model = type(getattr(Settings(), group))
        parts.append(
            f"\n## `[{group}]`\n\n{model.__doc__}\n\n| field | default | environment | meaning |\n|---|---|---|---|\n"
        )
        for field, _, name, description in rows:
            variable = short.get(field) or PREFIX + field.replace(".", "__").upper()
            parts.append(f"| `{name}` | {_default(group, name)} | `{variable}` | {description} |\n")
    parts.append(_SCHEDULE)
    for name, default, description in entries.described():
        parts.append(f"| `{name}` | {f'`{default}`' if default not in ('', 'None') else 'none'} | {description} |\n")
    return "".join(parts)


def example() -> str:
    """The file ``tidewatch.example.toml``."""
    parts = [_EXAMPLE]
    for group, rows in groupby(described(), key=lambda row: row[1]):
        parts.append(f"\n[{group}]\n")
        for _, _, name, description in rows:
            parts.append(f"# {description}\n#{name} = {_literal(group, name)}\n")
    parts.append(_NIGHTLY)
    for name, _, description in entries.described():
        line = f"#{name} = {_ENTRY[name]}" if _ENTRY[name] != "null" else f"# {name} = 3600"  # in place of cron
        parts.append(f"# {description}\n{line}\n")
    return "".join(parts)


def _plain(group: str, name: str) -> object:
    value = getattr(getattr(Settings(), group), name)
    return value.get_secret_value() if hasattr(value, "get_secret_value") else value


def _default(group: str, name: str) -> str:
    value = _plain(group, name)
    return "none" if value in (None, "", {}) else f"`{value}`"


def _literal(group: str, name: str) -> str:
    value = _plain(group, name)
    if value is None:
        kind = str(type(getattr(Settings(), group)).model_fields[name].annotation)
        samples = {"Path": "/etc/tidewatch/tls.pem", "tuple": [0.5, 0.9]}
        return json.dumps(next((sample for word, sample in samples.items() if word in kind), 5.0))
    if isinstance(value, dict):
        return '{ "spark.driver.memory" = "4g" }' if group == "spark" else '{ "security.protocol" = "SASL_SSL" }'
    return json.dumps(value, default=str)
