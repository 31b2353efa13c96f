"""Settings to the specs of training."""

import time
from dataclasses import replace

from scorers.check import CheckSpec
from scorers.choose import grid
from scorers.fit import TrainSpec, least_windows
from scorers.panel import TypeSpec
from scorers.train import Plan
from stream.kafka import DAY_MS
from tidewatch.groups import Settings
from tidewatch.wiring import stream_spec

WEEK_MS = 7 * DAY_MS


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
