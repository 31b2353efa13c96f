"""Settings to the specs that the layers below take; the one place where they meet."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals, signal
from types import FrameType

from scorers.check import CheckSpec
from scorers.choose import grid
from scorers.errors import ConfigError
from scorers.fit import TrainSpec, least_windows
from scorers.follow import FollowSpec
from scorers.panel import TypeSpec
from scorers.train import Plan
from stream.alert import AlertSpec
from stream.decode import Limits
from stream.kafka import DAY_MS
from stream.owners import WorkerSpec
from stream.partition import StreamSpec
from stream.window import WindowSpec
from tidewatch.groups import Settings

WEEK_MS = 7 * DAY_MS


def stream_spec(settings: Settings) -> StreamSpec:
    """How the stream windows, believes and alerts."""
    window, alerting, following, worker = settings.window, settings.alerting, settings.following, settings.worker
    windows = WindowSpec(window.size_ms, window.hop_ms, window.grace_ms, window.idle_ms)
    return StreamSpec(
        window=windows,
        alert=AlertSpec(alerting.k, alerting.n, alerting.clear),
        follow=FollowSpec(
            following.deviations,
            following.memory,
            following.warmup,
            following.least,
            alerting.n,
            following.patience,
            windows.overlap,
        ),
        limits=Limits(max_bytes=worker.max_bytes, max_metrics=worker.max_metrics, max_ahead_ms=worker.max_ahead_ms),
        max_jump_ms=worker.max_jump_ms,
        dedupe=worker.dedupe,
        app=worker.app,
    )


def worker_spec(settings: Settings) -> WorkerSpec:
    """How a worker process runs."""
    worker = settings.worker
    return WorkerSpec(app=worker.app, delivery=worker.delivery, epoch_s=worker.epoch_s)


def train_spec(settings: Settings) -> TrainSpec:
    """How models are trained; held-out windows share no reading with those trained on."""
    training, alerting, gap = settings.training, settings.alerting, stream_spec(settings).window.overlap
    a_week = training.alerts_per_week
    spec = TrainSpec(
        detector=training.detector,
        nu=training.nu,
        gamma=training.gamma,
        outliers=training.outliers,
        false_alarm_rate=training.false_alarm_rate,
        alerts=None if a_week is None else a_week * settings.window.hop_ms / WEEK_MS,
        k=alerting.k,
        n=alerting.n,
        min_windows=training.min_windows,
        max_windows=training.max_windows,
        sampling=training.sampling,
    )
    return replace(spec, gap=gap, min_windows=max(spec.min_windows, least_windows(spec.folds, gap)))


def type_spec(settings: Settings) -> TypeSpec:
    """Which devices are of a type, and lend a new one a model."""
    return TypeSpec(settings.training.types, settings.training.type_devices)


def plan(settings: Settings) -> Plan:
    """What training does with each device."""
    training, spec = settings.training, train_spec(settings)
    return Plan(
        spec=spec,
        check=CheckSpec(training.max_missing, training.min_hours, training.max_shift),
        candidates=grid(spec) if training.choose else (),
        holdout=training.holdout,
        attempts=training.attempts,
        timeout_s=training.timeout_s,
        clock=time.time_ns,
    )


def existing(path: Path, what: str) -> Path:
    """``path``, if something is there.

    Raises:
        ConfigError: nothing is.
    """
    if not path.exists():
        raise ConfigError(f"There is no {what} at {path}; name the right one.")
    return path


@contextmanager
def until_signalled() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second one ends the process at once."""
    stop = threading.Event()

    def ask(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        signal(Signals(number), ask)

    before = {number: signal(number, ask) for number in (SIGINT, SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal(number, handler)
