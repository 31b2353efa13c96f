"""Training under the settings in force: recorded windows in, a fleet in its place."""

import os
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from scorers import pack
from scorers.errors import ModelError
from scorers.fleet import Fleet
from scorers.source import Period
from scorers.train import Training, train
from sinks.read import dataset
from tidewatch.console import progress
from tidewatch.settings import Settings
from tidewatch.wiring import train_spec


def fit(settings: Settings, folder: Path, target: Path, period: Period, workers: int | None) -> tuple[Training, str]:
    """Train on the statistics in a folder of the Parquet sink and save the fleet; the results and the fleet's version.

    Raises:
        InputError: there are no statistics there.
        ModelError: not one device could be trained.
    """
    now = time.time_ns() // 1_000_000
    version = datetime.fromtimestamp(now / 1000, UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"
    with progress("training") as show:
        cores = workers or os.cpu_count() or 1
        training = train(
            dataset(folder, "statistics"), train_spec(settings), period=period, workers=cores, progress=show
        )
    if not training.models:
        reasons = Counter(result.reason for result in training.results)
        reason = reasons.most_common(1)[0][0] if reasons else "there were no devices"
        raise ModelError(f"No device of {folder} could be trained, mostly because {reason}; record more first.")
    target.parent.mkdir(parents=True, exist_ok=True)
    pack.save(Fleet.of(training.models, version), target, now)
    return training, version
