"""A training under way, on disk: what is done stays done if the process is killed, and is not done again.

A run is a folder: ``run.json`` says what it is, ``tasks/`` holds a fleet and a table of results for each lot of devices
that is done, ``results.parquet`` and ``fleet.arrow`` are there once all are.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scorers import pack
from scorers.choose import told
from scorers.contest import Contest, Side
from scorers.errors import ConfigError, InputError
from scorers.fleet import Fleet
from scorers.model import DeviceModel
from scorers.train import Outcome, Result
from scorers.whole import replacing

TIME = pa.timestamp("ms", "UTC")
RESULTS = pa.schema(
    [
        ("device", pa.string()),
        ("status", pa.string()),
        ("windows", pa.int64()),
        ("since", TIME),
        ("until", TIME),
        ("started", TIME),
        ("seconds", pa.float64()),
        ("attempts", pa.int64()),
        ("reason", pa.string()),
        ("detector", pa.string()),
        ("nu", pa.float64()),
        ("gamma", pa.float64()),
        ("levels", pa.bool_()),
        ("support_vectors", pa.int64()),
        ("false_alarm_rate", pa.float64()),
        ("tried", pa.string()),
        ("held_out", pa.int64()),
        ("champion_false_alarms", pa.float64()),
        ("champion_detection", pa.float64()),
        ("challenger_false_alarms", pa.float64()),
        ("challenger_detection", pa.float64()),
        ("agreement", pa.float64()),
        ("seen", pa.bool_()),
    ]
)
"""One row a device; ``tried`` is JSON, and the last seven are null where there was no contest."""
TIMES = frozenset({"since", "until", "started"})
"""Columns that are moments."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Run:
    """One training; ``facts`` are what is needed to go on with it, and stay as they were at its start."""

    path: Path
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name among others."""
        return self.path.name

    @property
    def fleet(self) -> Path:
        """Where the fleet is, once all is done."""
        return self.path / "fleet.arrow"

    @property
    def finished(self) -> bool:
        """Whether every device has been trained or told of."""
        return self.fleet.exists() and (self.path / "results.parquet").exists()

    def done(self) -> set[str]:
        """The devices that have a result."""
        return {device for table in self._tables() for device in table["device"].to_pylist()}

    def keep(self, outcomes: Sequence[Outcome]) -> None:
        """Write down a lot of devices: the models first, for it is the results that count.

        Raises:
            FleetFileError: the disk does not take it.
        """
        self.take(*lot(outcomes, self.name))

    def take(self, results: pa.Table, fleet: Fleet) -> None:
        """Write down a lot that :func:`lot` made, perhaps elsewhere; errors as of :meth:`keep`."""
        folder = self.path / "tasks"
        number = len(list(folder.glob("*.parquet")))
        pack.save(fleet, folder / f"{number:06d}.arrow", self.facts["started"])
        _write(results, folder / f"{number:06d}.parquet")

    def results(self) -> pa.Table:
        """The results there are, by device."""
        return pa.concat_tables([RESULTS.empty_table(), *self._tables()]).sort_by("device")

    def finish(self, results: pa.Table, champion: Fleet | None, lent: Fleet) -> list[str]:
        """Join the lots, and what types lend; the devices that keep the model they had, for training gave them none."""
        lots = [pack.load(path.with_suffix(".arrow")) for path in self._lots()]
        without = {row for row, has in zip(results["device"].to_pylist(), _trained(results), strict=True) if not has}
        kept = [] if champion is None else sorted(without.intersection(champion.devices))
        fleets = [*lots, lent, *([champion.only(set(kept))] if champion is not None and kept else [])]
        pack.save(Fleet.union(fleets, self.name), self.fleet, self.facts["started"])
        _write(results, self.path / "results.parquet")
        return kept

    def _lots(self) -> list[Path]:
        return sorted((self.path / "tasks").glob("*.parquet"))

    def _tables(self) -> Iterator[pa.Table]:
        for path in self._lots():
            yield pq.read_table(path, schema=RESULTS)


def lot(outcomes: Sequence[Outcome], version: str) -> tuple[pa.Table, Fleet]:
    """The results of some devices, with the schema of ``RESULTS``, and their models."""
    models: dict[str, DeviceModel] = {result.device: model for result, model in outcomes if model is not None}
    return pa.Table.from_pylist([_row(result) for result, _ in outcomes], RESULTS), Fleet.of(models, version)


def begin(folder: Path, name: str, facts: dict[str, Any]) -> Run:
    """A run of that name: the one that is there, with the facts it began with, or a new one.

    Raises:
        ConfigError: no run can have such a name.
        InputError: what is there is no run, or cannot be written.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"A run cannot be named {name!r}; use letters, digits, dots, dashes and underscores.")
    path = folder / "runs" / name
    try:
        (path / "tasks").mkdir(parents=True, exist_ok=True)
        file = path / "run.json"
        if file.exists():
            return Run(path, json.loads(file.read_bytes()))
        with replacing(file) as fresh:
            fresh.write(json.dumps(facts, indent=1).encode())
    except (OSError, ValueError) as error:
        raise InputError(
            f"The run {path} cannot be used ({error}); choose another --run, or another folder."
        ) from error
    return Run(path, facts)


def _trained(results: pa.Table) -> list[bool]:
    return [status == "trained" for status in results["status"].to_pylist()]


def _row(result: Result) -> dict[str, Any]:
    own = {name: getattr(result, name) for name in RESULTS.names if hasattr(result, name) and name != "tried"}
    spec = result.spec
    how = (
        {}
        if spec is None
        else {"detector": spec.detector.value, "nu": spec.nu, "gamma": spec.gamma, "levels": spec.levels}
    )
    tried = json.dumps(told(result.tried)) if result.tried else None
    return own | how | {"tried": tried} | (_contest(result.contest) if result.contest else {})


def _contest(contest: Contest) -> dict[str, Any]:
    sides = {"champion": asdict(contest.champion), "challenger": asdict(contest.challenger)}
    figures = {f"{side}_{name}": value for side, of in sides.items() for name, value in of.items()}
    return figures | {"held_out": contest.windows, "agreement": contest.agreement, "seen": contest.seen}


def contests(results: pa.Table) -> list[Contest]:
    """The contests that results tell of."""
    found = map(contest_of, results.select(RESULTS.names[-7:]).to_pylist())
    return [one for one in found if one is not None]


def contest_of(row: Mapping[str, Any]) -> Contest | None:
    """The contest that a row of results tells of, if there was one."""
    if row["held_out"] is None:
        return None
    champion, challenger = (
        Side(row[f"{side}_false_alarms"], row[f"{side}_detection"]) for side in ("champion", "challenger")
    )
    return Contest(row["held_out"], champion, challenger, row["agreement"], row["seen"])


def _write(table: pa.Table, path: Path) -> None:
    with replacing(path) as file:
        pq.write_table(table, file)
