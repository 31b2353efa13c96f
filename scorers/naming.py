"""Which type a device is of: what a rule finds in its id, in time linear in its length (RE2)."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

DEFAULT = r"^(?P<type>.*\pL.*?)[-_.:/ ]?[0-9]+$"
"""What stands before the last number and its separator, if there is a letter in it: ``pump`` of ``pump-0007``."""
LONGEST = 200
"""Characters of a rule."""


def flaw(rule: str) -> str | None:
    """What is wrong with a rule, None if nothing is."""
    if len(rule) > LONGEST:
        return f"has {len(rule)} characters; make it {LONGEST} at most"
    try:
        groups = [field.name for field in pc.extract_regex(pa.array([], pa.string()), rule).type] if rule else ["type"]
    except pa.ArrowInvalid as error:
        return f"is no regular expression of RE2 with one named group ({error})"
    return None if groups == ["type"] else f"needs one group, named type, such as {DEFAULT}"


def types(devices: Sequence[str], rule: str) -> list[str | None]:
    """The type of each device; None where the rule finds none, or is empty.

    >>> types(["pump-0007", "pump7", "10.0.0.1"], DEFAULT)
    ['pump', 'pump', None]
    """
    if not rule:
        return [None] * len(devices)
    found = pc.struct_field(pc.extract_regex(pa.array(devices, pa.string()), rule), [0])
    return [name or None for name in found.to_pylist()]
