"""What became of a batch: a row for each file, shard and device, and what they add up to."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from tidewatch.batch.spec import Choice, Result
from tidewatch.jobs import Status
from tidewatch.places import WILD, Found

COUNTED = ("windows", "scored", "anomalies", "alerts")
"""Of each device."""


def report(
    status: Status, choice: Choice, files: Sequence[Found], read: Sequence[Result], scored: Sequence[Result]
) -> list[dict[str, Any]]:
    """Fill in the status of a job; the rows of all devices, those asked for by name and not there among them."""
    devices = list(_devices(scored))
    seen = {row["name"] for row in devices}
    absent = {"what": "device", "status": "failed", "reason": "nothing of it is in the input"}
    devices += [absent | {"name": name} for name in choice.patterns if name not in seen and not WILD & set(name)]
    rows = [*_files(files, read), *_shards(scored)]
    status.results = rows + [row for row in devices if row["status"] == "failed"]
    status.failures = sum(row["status"] == "failed" for row in status.results)
    status.counts = {"files": len(files), "devices": len(devices), **_counts(rows, read, scored)}
    return devices


def _counts(rows: Sequence[dict[str, Any]], read: Sequence[Result], scored: Sequence[Result]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update({name: row[name] for name in ("rows", "readings", "rejects", *COUNTED) if name in row})
    for result in (*read, *scored):
        counts.update({f"rejects.{reason}": count for reason, count in result.get("reasons", {}).items()})
        counts.update({f"cells.{reason}": count for reason, count in result.get("cells", {}).items()})
    return counts


def _files(files: Sequence[Found], read: Sequence[Result]) -> Iterator[dict[str, Any]]:
    for file, result in zip(files, read, strict=True):
        known = {name: result.get(name, 0) for name in ("rows", "readings", "rejects")}
        yield {"what": "file", "name": str(file.place), **_outcome(result), **known}


def _shards(scored: Sequence[Result]) -> Iterator[dict[str, Any]]:
    for result in scored:
        devices, rejects = result.get("devices", {}), sum(result.get("reasons", {}).values())
        known = {name: sum(about.get(name, 0) for about in devices.values()) for name in COUNTED}
        about = {"devices": len(devices), "rejects": rejects, **known}
        yield {"what": "shard", "name": str(result["number"]), **_outcome(result), **about}


def _devices(scored: Sequence[Result]) -> Iterator[dict[str, Any]]:
    for result in scored:
        for device, about in sorted(result.get("devices", {}).items()):
            known = {name: about.get(name, 0) for name in COUNTED}
            yield {"what": "device", "name": device, "status": "done", "reason": "", **known}
        for device, reason in sorted(result.get("failed", {}).items()):
            yield {"what": "device", "name": device, "status": "failed", "reason": reason}


def _outcome(result: Result) -> dict[str, Any]:
    return {name: result.get(name) for name in ("status", "reason", "seconds")}
