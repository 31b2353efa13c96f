"""Evaluation through a real broker gives the predictions of the core."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from stream.kafka import Broker
from tidewatch.cli import app


def evaluated(broker: Broker, root: Path, through: str, keep: Path) -> tuple[dict[str, float], pd.DataFrame]:
    """The printed figures, and the verdicts by device and time."""
    words = ["--kafka", broker.bootstrap, "evaluate", "skab", "--data", str(root / "skab"), "--through", through]
    done = CliRunner().invoke(app, [*words, "--keep", str(keep), "--json"], catch_exceptions=False)
    verdicts = pd.read_parquet(keep / "verdicts.parquet")
    return json.loads(done.stdout.splitlines()[-1]), verdicts.sort_values(["device", "end"], ignore_index=True)


@pytest.mark.data
def test_a_real_broker_changes_no_prediction(kafka: Broker, data_root: Path, tmp_path: Path) -> None:
    core, ours = evaluated(kafka, data_root, "core", tmp_path / "core")
    streamed, theirs = evaluated(kafka, data_root, "kafka", tmp_path / "kafka")
    exact = ["device", "end", "scored", "anomaly"]

    assert streamed == core
    assert ours[exact].equals(theirs[exact])
    assert np.array_equal(ours.decision.isna(), theirs.decision.isna())
    assert np.nanmax(np.abs(ours.decision - theirs.decision)) <= 1e-9
    # what was made on a broker that is not ours is gone
    assert not [name for name in AdminClient(kafka.config()).list_topics().topics if name.startswith("evaluate-")]
