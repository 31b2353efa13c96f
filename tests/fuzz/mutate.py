"""Mutations that keep records records: fields come, go and change, records repeat, part and change places."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

from tests.fuzz.seeds import ALERT, SCORE, WORDS
from tests.fuzz.targets import MARK, NOTHING, NOW, SEPARATOR

Mutate = Callable[[bytes, int], bytes]
"""libFuzzer's own mutation: bytes, and how long they may become."""

NAMES = (
    *("device_id", "ts", "values", "TS", "Device", "Sensor", "Value", "ServerIP", "SessionStart", "TotalLoad", "x"),
    *(*ALERT.__struct_fields__, *SCORE.__struct_fields__, "mean", "std", "sum"),
)
ODD: tuple[Any, ...] = (
    None, True, 0, -0.0, 1.5, -1, 10**400, 2**63, 2**63 - 1, 1e308, 5e-324, 1e100, NOW, NOW + 700_000, NOW + 100_000,
    NOW // 1000, "", "x" * 13, "\ud800", "\x00", "2023-11-14T22:13:20Z", "2023-11-14", "9999-12-31T23:59:59-23:59",
    [], {}, [1], {"x": None}, dict.fromkeys("abcdefghij", 1), float("nan"), float("inf"),
)  # fmt: skip


def mutate(data: bytes, longest: int, *, chance: Random, raw: Mutate) -> bytes:
    """Something near ``data``: one of its records changed, or their order."""
    parts = data.split(SEPARATOR)
    at, roll = chance.randrange(len(parts)), chance.random()
    if roll < 0.25:
        return raw(data, longest)
    if roll < 0.5:
        parts[at] = raw(parts[at], longest)
    elif roll < 0.85:
        parts[at] = _field(parts[at], chance)
    elif roll < 0.92:
        parts.insert(chance.randrange(len(parts) + 1), parts[at])
    elif roll < 0.96:
        odd = [NOTHING, b"", b"junk", MARK, MARK + str(NOW + chance.randrange(100_000)).encode()]
        parts.insert(at, chance.choice([*odd, *(word.encode() for word in WORDS)]))
    elif len(parts) > 1:
        del parts[at]
    return SEPARATOR.join(parts)[:longest]


def _field(record: bytes, chance: Random) -> bytes:
    """The same JSON object with a field changed, taken away or put in; bytes that are none, in quotes."""
    try:
        whole = json.loads(record)
    except (ValueError, RecursionError):
        return json.dumps(record.decode(errors="replace")).encode()
    place = whole
    while isinstance(place, dict) and (inner := [one for one in place.values() if isinstance(one, dict)]):
        if chance.random() < 0.5:
            break
        place = chance.choice(inner)
    if isinstance(place, dict):
        name = chance.choice([*place, *NAMES] if chance.random() < 0.2 else [*place] or NAMES)
        _change(place, name, chance)
    return json.dumps(whole, ensure_ascii=chance.random() < 0.5).encode(errors="surrogatepass")


def _change(place: dict[str, Any], name: str, chance: Random) -> None:
    value, roll = place.get(name), chance.random()
    if roll < 0.2:
        place.pop(name, None)
    elif roll < 0.6 and isinstance(value, int | float) and abs(value) < 10**15:
        place[name] = value + chance.choice([1, -1, 1_000, 11_000, -30_000, 70_000, 0.5])
    elif roll < 0.7 and isinstance(value, str):
        place[name] = chance.choice("abc")
    else:
        place[name] = chance.choice(ODD)
