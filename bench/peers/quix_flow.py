"""Quix Streams: tumbling windows of event time, their state in RocksDB; runs in an environment of its own."""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows.aggregations import Aggregator

from bench.peers.scoring import Scorer, features, moment

BEGINS = "reading begins"
GRACE_MS = 2_000
"""How long a window waits for stragglers, by the readings' own time."""

Moments = dict[str, list[float]]
"""Of each metric: count, mean, sum of squared deviations, min, max and last."""


class Describe(Aggregator):
    """The moments of a window, one reading after another.

    Its result is what it holds: Quix Streams asks for it with every reading, not only when the window is closed.
    """

    def initialize(self) -> Moments:
        """Nothing of any metric."""
        return {}

    def agg(self, old: Moments, new: dict[str, Any], timestamp: int) -> Moments:
        """Take Welford's step for each metric of a reading."""
        del timestamp
        for name, value in new["values"].items():
            if name not in old:
                old[name] = [1, value, 0.0, value, value, value]
                continue
            count, mean, squares, low, high, _ = old[name]
            count += 1
            apart = value - mean
            mean += apart / count
            squares += apart * (value - mean)
            low = value if value < low else low  # noqa: FURB136 - quicker than min
            high = value if value > high else high  # noqa: FURB136
            old[name] = [count, mean, squares, low, high, value]
        return old

    def result(self, value: Moments) -> Moments:
        """The moments, as they are."""
        return value


def build(job: dict[str, Any]) -> Application:
    """An application that does the job, at least once as is its default."""
    scorer, begins = Scorer(Path(job["past"])), iter([BEGINS])

    def tell(*_: Any) -> None:
        for words in begins:  # there is no hook for the partitions' arrival: with the first reading of all
            print(words, flush=True)

    def score(window: dict[str, Any], key: bytes, *_: Any) -> dict[str, Any]:
        device = key.decode()
        metrics = {name: _statistics(moments) for name, moments in window["moments"].items()}
        return {
            "device_id": device,
            "window_start": window["start"],
            "window_end": window["end"],
            "metrics": metrics,
            "decision": scorer.decide(device, features(metrics)),
        }

    app = Application(
        job["bootstrap"],
        consumer_group=job["name"],
        auto_offset_reset="earliest",
        state_dir=Path(job["folder"]) / job["name"],
        on_message_processed=tell,
    )
    loads = job["loads"].split(",") if job["loads"] else []
    when = (lambda session, *_: moment(session["SessionStart"])) if loads else (lambda reading, *_: reading["ts"])
    stream = app.dataframe(app.topic(job["readings"], timestamp_extractor=when))
    if loads:
        stream = stream.apply(lambda session: {"values": {name: session[name] for name in loads}})
    windows = stream.tumbling_window(job["window_ms"], grace_ms=GRACE_MS)
    # by partition, a window is looked for when its time has come; by key, RocksDB is searched with every reading
    closed = windows.agg(moments=Describe()).final(closing_strategy="partition")
    # a record has its window's time, which is from the past: the topic's retention would take it away
    scores = closed.apply(score, metadata=True).set_timestamp(lambda *_: time.time_ns() // 1_000_000)
    scores.to_topic(app.topic(job["scores"]))
    return app


def _statistics(moments: list[float]) -> dict[str, float]:
    count, mean, squares, low, high, last = moments
    std = math.sqrt(squares / (count - 1)) if count > 1 else 0.0
    return {"count": count, "mean": mean, "std": std, "min": low, "max": high, "last": last}


if __name__ == "__main__":
    build(json.loads(sys.argv[1])).run()
