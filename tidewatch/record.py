"""What the registry keeps of a training: figures, tables, plots, and the fleet with all that says how to use it."""

import json
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from scorers import pack
from scorers.contest import Ballot
from scorers.features import KINDS
from scorers.fleet import Fleet
from scorers.period import Period
from scorers.source import devices, tables, windows
from scorers.statistics import Floats
from tidewatch.registry import FILE, Record
from tidewatch.runs import Run

COURSE = 50
"""Points of a figure over time."""
SAMPLE = 200
"""Devices whose windows the plots show."""
_RANGE = 100.0


def record(run: Run, results: pa.Table, ballot: Ballot | None, source: ds.Dataset | Path, folder: Path) -> Record:
    """A finished run for the registry; what is to be kept in files is written to ``folder``."""
    facts = run.facts
    fleet, files = folder / "fleet", folder / "run"
    for made in (fleet, files):
        made.mkdir(parents=True)
    loaded = _version_files(run, fleet)
    pq.write_table(results, files / "results.parquet")
    (files / "run.json").write_text(json.dumps(facts, indent=1))
    (files / "requirements.txt").write_text(installed())
    _plots(loaded, results, source, Period(facts["since"], facts["until"]), files)
    counts = Counter(results["status"].to_pylist())
    return Record(
        name=run.name,
        started=facts["started"],
        ended=facts["ended"],
        params={name: facts[name] for name in ("source", "since", "until", "rows", "engine")} | facts["plan"],
        metrics={f"devices_{status}": float(counts[status]) for status in ("trained", "refused", "failed")}
        | _means(results)
        | ({} if ballot is None else _ballot(ballot))
        | {"seconds": (facts["ended"] - facts["started"]) / 1000},
        course=_course(results),
        tags={
            "tidewatch.version": facts["version"],
            "tidewatch.fleet": run.name,
            "tidewatch.data": facts["fingerprint"],
            "python": platform.python_version(),
        },
        fleet=fleet,
        files=files,
    )


def _version_files(run: Run, folder: Path) -> Fleet:
    """The fleet, what is typical of each device, a sample input, and MLflow's description of it all."""
    from mlflow.models import Model, ModelSignature  # noqa: PLC0415 - a second, which only those who train are to pay
    from mlflow.types.schema import ColSpec, Schema, TensorSpec  # noqa: PLC0415 - as above

    fleet = pack.load(run.fleet)
    pack.install(run.fleet, folder / FILE)
    pq.write_table(typical(fleet), folder / "typical.parquet")
    (folder / "input_example.json").write_text(json.dumps(sample(fleet), indent=1))
    numbers = ("count", "mean", "std", "min", "max", "last")
    given: list[ColSpec | TensorSpec] = [
        ColSpec("string", "device_id"),
        ColSpec("long", "window_end"),
        ColSpec("string", "metric"),
    ]
    given += [ColSpec("long" if name == "count" else "double", name) for name in numbers]
    told: list[ColSpec | TensorSpec] = [
        ColSpec("string", "device_id"),
        ColSpec("long", "window_end"),
        ColSpec("boolean", "anomaly"),
    ]
    told += [ColSpec("double", name) for name in ("decision", "score", "severity")]
    described = Model(signature=ModelSignature(inputs=Schema(given), outputs=Schema(told)), artifact_path="fleet")
    described.add_flavor("tidewatch", fleet=FILE, format=pack.FORMAT, devices=len(fleet), version=fleet.version)
    described.save(str(folder / "MLmodel"))
    return fleet


def typical(fleet: Fleet) -> pa.Table:
    """What models hold for typical: one row a device and metric, in the metric's unit."""
    parts = []
    for group in fleet.groups:
        cube = group.typical().reshape(len(group.devices), len(group.metrics), len(KINDS))
        columns: dict[str, Any] = {
            "device_id": np.repeat(np.array(group.devices, object), len(group.metrics)),
            "metric": np.tile(np.array(group.metrics, object), len(group.devices)),
        }
        columns |= {kind: cube[:, :, place].ravel() for place, kind in enumerate(KINDS)}
        parts.append(pa.table(columns | {"windows": np.repeat(group.windows, len(group.metrics))}))
    return pa.concat_tables(parts)


def sample(fleet: Fleet) -> list[dict[str, Any]]:
    """A window as its first device has them, for whoever wants to try."""
    rows: list[dict[str, Any]] = typical(fleet).slice(0, len(fleet.groups[0].metrics)).to_pylist()
    for row in rows:
        row |= {"window_end": int(fleet.groups[0].until[0]), "count": round(row["count"]), "last": row["mean"]}
        del row["windows"]
    return rows


def _means(results: pa.Table) -> dict[str, float]:
    frame = results.select(["false_alarm_rate", "support_vectors", "seconds", "windows"]).to_pandas()
    trained = frame[frame.false_alarm_rate.notna()]
    return {f"mean_{name}": float(value) for name, value in trained.mean().items() if np.isfinite(value)}


def _ballot(ballot: Ballot) -> dict[str, float]:
    plain = asdict(ballot)
    sides = {f"{side}_{name}": value for side in ("champion", "challenger") for name, value in plain.pop(side).items()}
    return {f"contest_{name}": float(value) for name, value in (plain | sides).items()}


def _course(results: pa.Table) -> dict[str, list[tuple[float, int, int]]]:
    """Devices done, and the false alarms of their models, as the training went on."""
    frame = results.select(["started", "seconds", "false_alarm_rate"]).to_pandas().sort_values("started")
    if not len(frame):
        return {}
    ends = frame.started.astype("datetime64[ms, UTC]").astype("int64") + (1000 * frame.seconds).astype("int64")
    places = np.unique(np.linspace(0, len(frame) - 1, COURSE).astype(int))
    rate = frame.false_alarm_rate.expanding().mean().fillna(0.0).to_numpy()
    return {
        "devices_done": [(float(at + 1), int(ends.iloc[at]), int(at + 1)) for at in places],
        "false_alarm_rate": [(float(rate[at]), int(ends.iloc[at]), int(at + 1)) for at in places],
    }


def installed() -> str:
    """Packages here, as pip names them."""
    known = {found.metadata["Name"]: found.version for found in distributions()}
    return "\n".join(f"{name}=={version}" for name, version in sorted(known.items(), key=lambda one: one[0].lower()))


def _plots(fleet: Fleet, results: pa.Table, source: ds.Dataset | Path, period: Period, folder: Path) -> None:
    """How scores are spread, and how many windows each device has flagged, over an even sample of the devices."""
    names = sorted(fleet.devices)
    chosen = names[:: max(len(names) // SAMPLE, 1)][:SAMPLE]
    scores, flagged = _scores(fleet, source, period, chosen)
    rates = np.array([rate for rate in results["false_alarm_rate"].to_pylist() if rate is not None])
    charts: Mapping[str, tuple[Floats, str, str]] = {
        "scores": (scores, "score of a window, 0 to 100", f"windows of {len(chosen)} devices"),
        "flagged": (flagged, "% of a device's windows flagged", f"of {len(chosen)} devices"),
        "held_out": (_RANGE * rates, "% of a device's held-out windows flagged", f"all {len(rates)} devices"),
    }
    for name, (values, label, title) in charts.items():
        _histogram(values, label, title, folder / f"{name}.png")


def _scores(fleet: Fleet, source: ds.Dataset | Path, period: Period, chosen: list[str]) -> tuple[Floats, Floats]:
    """Scores of the windows of some devices, and the percentage of each device's that is flagged."""
    scores, flagged = [np.zeros(0)], []
    with tables(source, period, only=chosen) as (_, found):
        for table in found:
            for device, rows in devices(table):
                statistics, _ = windows(rows)
                verdicts = fleet.score(np.repeat(fleet.index([device]), len(statistics)), statistics, top=1)
                scores.append(verdicts.score[verdicts.scored])
                flagged.append(_RANGE * verdicts.anomaly.mean())
    return np.concatenate(scores), np.array(flagged)


def _histogram(values: Floats, label: str, title: str, path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, which only those who train are to pay

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.hist(values, bins=50, color="#2a6f97")
    axes.set_xlabel(label)
    axes.set_ylabel("how many")
    axes.set_yscale("symlog", linthresh=10)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
