"""The guard against getting slower: ratios as they were recorded, beside those of today."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.job import Job
from scorers.errors import ConfigError

RECORD = Path(__file__).with_name("recorded.json")
SLACK = 0.15
"""How much of a ratio may be lost; single runs of one system scatter by as much on a machine that others use."""


@dataclass(frozen=True, slots=True)
class Record:
    """What was measured, of which job, in how many runs of each."""

    job: Job
    repeat: int
    ratios: dict[str, float]
    """Ours divided by theirs."""


def record(result: Mapping[str, Any], path: Path = RECORD) -> None:
    """Keep the ratios of a report, and what they were measured on."""
    kept = {name: result[name] for name in ("ratios", "job", "machine")} | {"repeat": len(result["ours"]["runs"])}
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def recorded(path: Path = RECORD) -> Record:
    """What was kept last.

    Raises:
        ConfigError: there is nothing, or it is not what ``record`` writes.
    """
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        windows, devices, metrics, seed = (int(kept["job"][name]) for name in ("windows", "devices", "metrics", "seed"))
        ratios = {str(name): float(ratio) for name, ratio in kept["ratios"].items()}
        return Record(Job(windows, devices, metrics, seed), int(kept["repeat"]), ratios)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path.name} cannot be used ({error!r}); run: python -m bench stream --record") from error


def worse(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """The ratios that have lost more than ``SLACK``, as they were and as they are; those that are there now."""
    return {name: (was, now[name]) for name, was in before.items() if name in now and now[name] < was * (1 - SLACK)}
