"""Labelled recordings through the stream, judged by their protocol: through the core alone, or the whole of it.

Models are trained on the rows the protocol gives for training; every other row is then judged by the
window that ends with its second, so no verdict knows the future.
"""

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from producers.batch import Batch
from producers.publish import Target, publish, punctuate
from producers.recordings import Recording, apart, causes, labels, named
from producers.replay import Replay
from scorers import pack
from scorers.errors import ConfigError, UnavailableError
from scorers.fleet import Fleet
from scorers.model import DeviceModel
from scorers.statistics import Ints, Statistics
from scorers.train import fit_fleet
from sinks.read import dataset
from stream.app import sources
from stream.contracts import Contributor, Score
from stream.kafka import Broker
from stream.message import singly
from stream.partition import Partition
from stream.records import PUNCTUATION, Records
from tidewatch.children import Child
from tidewatch.console import err
from tidewatch.planning import train_spec
from tidewatch.protocols import LABEL, SETTINGS, Benchmark, Result, judge_events, judge_points
from tidewatch.servers import KafkaServer
from tidewatch.settings import InForce, override
from tidewatch.tail import drained
from tidewatch.topics import is_embedded, prepare_topics, remove_topics
from tidewatch.wiring import stream_spec
from tidewatch.writing import Kind, write_once

JARS = Path("tests/live/kafka/target/jars")
"""Where ``make setup`` puts Apache Kafka."""
PATIENCE_S = 600.0


class Job:
    """One benchmark under the settings in force, with its own windows unless they were set."""

    def __init__(self, in_force: InForce, benchmark: Benchmark, root: Path) -> None:
        wanted = {name: value for name, value in SETTINGS[benchmark].items() if not in_force.configured(name)}
        self.in_force = override(in_force, wanted)
        self.settings = self.in_force.settings
        self.benchmark, self.root = benchmark, root
        self.recording: Recording = named(benchmark, root)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Every row's device, ts, split and label."""
        return labels(self.recording).rename(columns={LABEL[self.benchmark]: "label"})

    @cached_property
    def trained(self) -> dict[str, int]:
        """Each device's last row that the protocol gives for training, epoch ms."""
        train = self.rows[self.rows.split == "train"]
        return {str(device): int(rows.ts.max()) for device, rows in train.groupby("device")}

    def fleet(self, path: Path) -> None:
        """Train on the protocol's training rows and save the fleet."""
        spec = train_spec(self.settings)
        models: dict[str, DeviceModel] = {}
        for recording in apart(self.recording):
            windows, ends = blocks(self.windows(recording, Fleet.empty(), until=self.trained))
            training = fit_fleet(windows, spec, ends)
            models |= training.models
            for result in training.results:
                if result.status != "trained":
                    err.print(f"  {result.device}: {result.status}, {result.reason}")
        pack.save(Fleet.of(models, f"{self.benchmark}-1"), path, 0)

    def scores(self, fleet: Path) -> Iterator[Score]:
        """The whole recording through the core."""
        models = pack.load(fleet)
        for recording in apart(self.recording):
            yield from self.windows(recording, models)

    def windows(self, recording: Recording, fleet: Fleet, until: dict[str, int] | None = None) -> Iterator[Score]:
        """Part of the recording through the core, of each device no row later than ``until``."""
        feed = self.core(fleet)
        for records in self.records(recording, until):
            yield from feed(records)

    def core(self, fleet: Fleet) -> Callable[[Records], Iterator[Score]]:
        """A stream of its own: records in, in order; the windows that they close out."""
        topics = self.settings.topics.names()
        partition = Partition(sources(topics)[0], 0, stream_spec(self.settings), topics)
        partition.use(fleet)

        def feed(records: Records) -> Iterator[Score]:
            for message in singly(partition.feed(records)):
                if message.topic == topics.scores:
                    yield msgspec.json.decode(message.value, type=Score)

        return feed

    def records(self, recording: Recording, until: dict[str, int] | None = None) -> Iterator[Records]:
        """The recording as one partition would hold it, of each device no row later than ``until``, and its end."""
        player = Replay(recording).open()
        yield from _records(self.settings.topics.names().readings, player.batches(), player.last, until)

    def judged(self, verdicts: pd.DataFrame) -> pd.DataFrame:
        """The test rows, each with the verdict of the window that ends with it; its row number is the index."""
        hop = self.settings.window.hop_ms
        test = self.rows[self.rows.split == "test"]
        found = test.assign(end=test.ts // hop * hop + hop).merge(verdicts, "left", on=["device", "end"])
        return found.set_index(test.index)

    def judge(self, verdicts: pd.DataFrame) -> Result:
        """Figures of ``verdicts``: device, end (epoch ms), scored, anomaly, severity, top; one row a window."""
        judged, alert = self.judged(verdicts), stream_spec(self.settings).alert
        hop = self.settings.window.hop_ms
        if self.benchmark is Benchmark.SKAB:
            return judge_points(judged, len(verdicts), alert, hop)
        steps = dict.fromkeys(judged.device.unique(), hop)
        return judge_events(judged, len(verdicts), alert, causes(self.recording), steps)


def through_core(job: Job, folder: Path) -> Result:
    """Without a broker: the pure core in this process."""
    job.fleet(folder / "fleet.arrow")
    columns = [
        (
            s.device_id,
            s.window_end,
            s.state == "scored",
            s.anomaly,
            s.decision,
            s.score,
            s.severity,
            _metrics(s.contributors),
        )
        for s in job.scores(folder / "fleet.arrow")
    ]
    verdicts = pd.DataFrame(
        columns, columns=["device", "end", "scored", "anomaly", "decision", "score", "severity", "top"]
    )
    verdicts.to_parquet(folder / "verdicts.parquet")
    return job.judge(verdicts)


def through_kafka(job: Job, folder: Path) -> Result:
    """Producer, broker, worker and Parquet sink; the verdicts are read back from Parquet.

    Raises:
        UnavailableError: a part does not answer, or did not finish.
        ConfigError: there is no real Kafka to run on.
    """
    job.fleet(folder / "fleet.arrow")
    with ExitStack() as stack:
        broker = stack.enter_context(_broker(job.in_force, folder))
        name = f"evaluate-{secrets.token_hex(4)}"
        changes = {"kafka.bootstrap": broker.bootstrap, "topics.prefix": f"{name}.", "worker.app": name}
        files = {"worker.fleet": folder / "fleet.arrow", "parquet.folder": folder / "parquet"}
        in_force = override(job.in_force, {**changes, **files})
        stack.callback(remove_topics, broker, in_force.settings.topics.names())
        _stream(in_force, job.recording, folder)
    found = (
        dataset(folder / "parquet", "predictions")
        .to_table(
            columns=["device_id", "window_end", "state", "anomaly", "decision", "score", "severity", "contributors"]
        )
        .to_pandas()
    )
    verdicts = pd.DataFrame({
        "device": found.device_id,
        "end": found.window_end.astype("datetime64[ms, UTC]").astype("int64"),
        "scored": found.state == "scored",
        "anomaly": found.anomaly,
        "decision": found.decision,
        "score": found.score,
        "severity": found.severity,
        "top": [sorted({_metric(one["feature"]) for one in of}) for of in found.contributors],
    })  # fmt: skip
    verdicts.to_parquet(folder / "verdicts.parquet")
    return job.judge(verdicts)


def _stream(in_force: InForce, recorded: Recording, folder: Path) -> None:
    """Replay through a worker of our own, and write what comes out."""
    current = in_force.settings
    broker, topics = current.kafka.broker(), current.topics.names()
    prepare_topics(broker, topics, partitions=current.topics.partitions, replication=current.topics.replication)
    player = Replay(recorded).open()
    with Child(in_force, folder / "worker.log", "worker") as worker:
        publish(player.batches(), Target(broker, topics.readings))
        punctuate(Target(broker, topics.readings), player.last)
        done = drained(broker, current.worker.app, [topics.readings], within_s=PATIENCE_S)
        worker.check()
        if not done:
            raise UnavailableError(f"The worker is not done after {PATIENCE_S:g} s:\n{worker.tail()}")
    write_once(current, Kind.PARQUET)


@contextmanager
def _broker(in_force: InForce, folder: Path) -> Iterator[Broker]:
    """The configured Kafka, else a throwaway one of our own."""
    if in_force.configured("kafka.bootstrap"):
        broker = in_force.settings.kafka.broker()
        if is_embedded(broker):
            raise ConfigError("The configured Kafka is an embedded stand-in; set TIDEWATCH_KAFKA to a real one.")
        yield broker
    elif JARS.is_dir():
        with KafkaServer(JARS, folder / "kafka") as server:
            err.print(f"Apache Kafka {server.version} of our own at {server.broker.bootstrap}")
            yield server.broker
    else:
        raise ConfigError(
            "There is no Kafka to run on; set TIDEWATCH_KAFKA, or run `make setup` with Java 17 and Maven."
        )


@contextmanager
def workplace(keep: Path | None) -> Iterator[Path]:
    """A folder for predictions and fleet, gone afterwards unless it is to be kept."""
    folder = Path(tempfile.mkdtemp(prefix="tidewatch-")) if keep is None else keep
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _records(topic: str, batches: Iterable[Batch], last: int, until: dict[str, int] | None) -> Iterator[Records]:
    """Batches as one partition would hold them, ended by a punctuation; ``until`` keeps each device's first rows."""
    at = 0
    for batch in batches:
        whole = np.arange(at, at + len(batch))
        at += len(batch)
        records = Records(topic, 0, whole, batch.ts, list(batch.keys), list(batch.values), [()] * len(batch))
        if until is not None:
            stamps = zip(batch.keys, batch.ts.tolist(), strict=True)
            records = records.pick([row for row, (key, ts) in enumerate(stamps) if ts <= until.get(key.decode(), -1)])
        yield records
    mark = [(PUNCTUATION, str(last).encode())]
    yield Records(topic, 0, np.array([at]), np.array([last]), [None], [None], [mark])


def _metric(feature: str) -> str:
    """The metric of a feature such as ``temperature.mean``."""
    return feature.rpartition(".")[0]


def _metrics(contributors: Iterable[Contributor]) -> list[str]:
    return sorted({_metric(one.feature) for one in contributors})


def blocks(scores: Iterable[Score]) -> tuple[dict[str, Statistics], dict[str, Ints]]:
    """Statistics by device, in order of time, and the end of each window."""
    devices: dict[str, list[Score]] = {}
    for score in scores:
        devices.setdefault(score.device_id, []).append(score)
    for of in devices.values():
        of.sort(key=lambda score: score.window_end)
    ends = {device: np.array([score.window_end for score in of]) for device, of in devices.items()}
    return {device: _statistics(of) for device, of in devices.items()}, ends


def _statistics(scores: list[Score]) -> Statistics:
    metrics = tuple(sorted({name for score in scores for name in score.metrics}))

    def column(field: str, absent: float) -> list[list[float]]:
        rows = ([score.metrics.get(name) for name in metrics] for score in scores)
        values = ([absent if cell is None else getattr(cell, field) for cell in row] for row in rows)
        return [[np.nan if value is None else value for value in row] for row in values]

    floats = {field: np.array(column(field, np.nan), np.float64) for field in ("mean", "std", "min", "max", "last")}
    return Statistics(metrics, np.array(column("count", 0), np.int64), **floats)
