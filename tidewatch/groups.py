"""Everything that can be set, in groups: names, types, defaults and what each means."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from scorers import naming
from scorers.fit import Detector, Sampling
from stream.contracts import Topics
from stream.kafka import Broker
from stream.outbox import Delivery
from tidewatch.engines import Spark
from tidewatch.entries import Schedule, Scheduler
from tidewatch.forecast.settings import Load
from tidewatch.serve_settings import Serving

Folder = Annotated[Path, AfterValidator(Path.expanduser)]
Seconds = Annotated[float, Field(ge=0.001, le=31_536_000)]
"""At least a millisecond, at most a year."""


def _address(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must begin with redis://, rediss:// or unix://")
    return url


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Kafka(_Group):
    """Where Kafka is and how to log in."""

    bootstrap: str = Field(
        default="localhost:9092",
        pattern=r"^[^\s,]+:\d+(,[^\s,]+:\d+)*$",
        description="Brokers as `host:port`, separated by commas.",
    )
    options: dict[str, SecretStr] = Field(
        default={},
        description="librdkafka settings for security, such as `security.protocol`; kept secret. "
        "In the environment one variable each: `TIDEWATCH_KAFKA__OPTIONS__SASL_PASSWORD` is `sasl.password`.",
    )

    def broker(self) -> Broker:
        """The broker these settings describe."""
        return Broker(self.bootstrap, {name: value.get_secret_value() for name, value in self.options.items()})


class Redis(_Group):
    """Where Redis is."""

    url: Annotated[SecretStr, AfterValidator(_address)] = Field(
        default=SecretStr("redis://localhost:6379/0"),
        description="`redis://`, `rediss://` (TLS) or `unix://` address, with the password if there is one.",
    )


class TopicNames(_Group):
    """How the topics are named and cut."""

    prefix: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]{0,100}$",
        description="Put before every topic name, so that installations can share a broker.",
    )
    partitions: int = Field(default=8, ge=1, le=10_000, description="Partitions of every topic; workers share them.")
    replication: int = Field(default=1, ge=1, le=32, description="Copies Kafka keeps of every topic; 3 in production.")

    def names(self) -> Topics:
        """Every topic under the prefix."""
        return Topics.prefixed(self.prefix)


class Window(_Group):
    """How readings are gathered, in event time."""

    size_s: Seconds = Field(default=10.0, description="Length of a window.")
    hop_s: Seconds | None = Field(
        default=None, description="Distance between window starts; none means `size_s`, windows side by side."
    )
    grace_s: float = Field(
        default=2.0,
        ge=0,
        le=31_536_000,
        description="How long a window waits for stragglers on its device's own clock.",
    )
    idle_s: Seconds = Field(
        default=30.0, description="How long a quiet device's window waits on the clock of its partition."
    )

    @model_validator(mode="after")
    def _hops_within(self) -> Self:
        if self.hop_s is not None and self.hop_s > self.size_s:
            raise ValueError(f"hop_s ({self.hop_s:g}) must not exceed size_s ({self.size_s:g}), or readings are lost")
        return self

    @property
    def size_ms(self) -> int:
        """Length in whole milliseconds."""
        return whole_ms(self.size_s)

    @property
    def hop_ms(self) -> int:
        """Distance between starts in whole milliseconds."""
        return whole_ms(self.hop_s or self.size_s)

    @property
    def grace_ms(self) -> int:
        """Grace in whole milliseconds."""
        return whole_ms(self.grace_s)

    @property
    def idle_ms(self) -> int:
        """Idle time in whole milliseconds."""
        return whole_ms(self.idle_s)


class Alerting(_Group):
    """When odd windows become an alert: k of n, with hysteresis."""

    k: int = Field(default=2, ge=1, description="Anomalous windows among the last `n` that fire an alert.")
    n: int = Field(default=3, ge=1, le=1000, description="How many of a device's last windows count.")
    clear: int = Field(
        default=0, ge=0, description="Anomalous windows among the last `n` at or below which it resolves."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.clear < self.k <= self.n:
            raise ValueError(f"clear < k <= n must hold, not clear={self.clear}, k={self.k}, n={self.n}")
        return self


class Following(_Group):
    """How the limit of each device follows its own recent windows."""

    deviations: float = Field(
        default=5.0,
        ge=0,
        description="Standard deviations above a device's recent mean distance that make a window odd; "
        "0 judges by the trained limit alone.",
    )
    memory: int = Field(default=1000, ge=1, description="Windows over which a device's recent distances are forgotten.")
    warmup: int = Field(default=60, ge=2, description="Healthy windows of a device before its limit follows.")
    least: float = Field(default=0.05, gt=0, le=1, description="The lowest limit, as a share of the trained one.")
    patience: int = Field(
        default=300,
        ge=0,
        description="Odd windows at one distance after which a device has settled there, and of all beyond 2 % before "
        "its limit rises; 0: neither ever happens.",
    )


class Worker(_Group):
    """The stream: one or more processes that share the partitions."""

    app: str = Field(
        default="tidewatch",
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="Name of the consumer group and of its transactions; workers with the same name share the work.",
    )
    delivery: Delivery = Field(
        default=Delivery.EXACTLY_ONCE,
        description="`exactly-once`, or `at-least-once`: faster, but a crash doubles the outputs of its last epoch.",
    )
    epoch_s: Seconds = Field(
        default=1.0,
        description="How often outputs, state and progress are committed together; sooner in a lull or with an alert.",
    )
    fleet: Folder = Field(
        default=Path("var/fleet.arrow"), description="The trained models; picked up anew when they change."
    )
    dedupe: bool = Field(default=True, description="Count readings of the same device and timestamp once.")
    max_bytes: int = Field(default=262_144, ge=1, le=4_194_304, description="Longer records go to `rejects`.")
    max_metrics: int = Field(
        default=256, ge=1, description="More metrics in a reading, or of a device, go to `rejects`."
    )
    max_ahead_s: Seconds = Field(
        default=600.0, description="How far a reading may lie ahead of its record's Kafka timestamp."
    )
    max_jump_s: Seconds = Field(
        default=60.0,
        description="A reading further ahead of its partition's clock, and as far from its record's Kafka timestamp, "
        "waits for the device's next one to confirm it.",
    )

    @property
    def epoch_ms(self) -> int:
        """Commit interval in whole milliseconds."""
        return whole_ms(self.epoch_s)

    @property
    def max_ahead_ms(self) -> int:
        """Tolerance for the future in whole milliseconds."""
        return whole_ms(self.max_ahead_s)

    @property
    def max_jump_ms(self) -> int:
        """Longest unconfirmed leap in whole milliseconds."""
        return whole_ms(self.max_jump_s)


class Parquet(_Group):
    """The Parquet sink."""

    folder: Folder = Field(
        default=Path("var/parquet"), description="Where `predictions/`, `statistics/` and `forecasts/` are written."
    )
    max_rows: int = Field(
        default=500_000, ge=1, description="Rows held in memory, all tables together, before files are written."
    )
    max_seconds: Seconds = Field(default=30.0, description="Rows wait at most this long for their file.")


class RedisSink(_Group):
    """The Redis sink."""

    prefix: str = Field(
        default="tw",
        pattern=r"^[A-Za-z0-9._-]{1,50}$",
        description="Begins every key, so installations can share a Redis.",
    )
    history: int = Field(default=100, ge=1, description="Windows kept per device in its recent history.")
    expire_s: int = Field(default=86_400, ge=1, description="Seconds after which a silent device is forgotten.")


class Training(_Group):
    """How models are trained."""

    detector: Detector = Field(
        default=Detector.ONE_CLASS_SVM, description="What tells how far a window lies from the healthy ones."
    )
    nu: float = Field(
        default=0.05, gt=0, le=1, description="Share of training windows allowed outside (Schölkopf 2001)."
    )
    gamma: float = Field(
        default=0.1,
        gt=0,
        allow_inf_nan=False,
        description="Kernel width, divided by the number of features; higher tells apart more kinds of health.",
    )
    outliers: float = Field(
        default=0.05,
        ge=0,
        lt=0.5,
        description="Share of training windows, the farthest, that scales and correlations are not taken from.",
    )
    false_alarm_rate: float = Field(
        default=0.002,
        gt=0,
        lt=0.5,
        description="Share of healthy windows that may be flagged; set on held-out windows.",
    )
    alerts_per_week: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="False alerts a healthy device may raise a week; sets limits in place of `false_alarm_rate`.",
    )
    min_windows: int = Field(
        default=50, ge=10, description="Devices with fewer windows are judged by their type's model, or keep learning."
    )
    max_windows: int = Field(default=2_000, ge=10, description="Only so many windows of a device are used.")
    sampling: Sampling = Field(
        default=Sampling.RECENT, description="Which of more windows: the most `recent`, or any of them (`reservoir`)."
    )
    choose: bool = Field(
        default=False,
        description="Try twelve ways to train each device and take the one that finds most faults: 60 times the work.",
    )
    holdout: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="Share of a device's windows, the latest, on which a new fleet is compared with the one in force.",
    )
    max_missing: float = Field(
        default=0.2, ge=0, le=1, description="Share of windows in which a metric may have no finite mean."
    )
    min_hours: float = Field(default=0.0, ge=0, description="A device's windows must cover so many hours.")
    max_shift: float = Field(
        default=20.0,
        ge=0,
        allow_inf_nan=False,
        description="Standard deviations a metric may have moved since the model in force was trained; 0: any number.",
    )
    types: str = Field(
        default=naming.DEFAULT,
        description="Which type a device is of: a regular expression (RE2) with a group named `type`, found in its id; "
        "empty: devices have no types.",
    )
    type_devices: int = Field(
        default=5, ge=3, description="A type with so many devices lends new ones a model until they have their own."
    )
    attempts: int = Field(default=2, ge=1, le=10, description="Times a device is tried where something breaks.")
    timeout_s: Seconds = Field(default=120.0, description="A device whose training takes longer is given up.")

    @field_validator("types")
    @classmethod
    def _a_rule(cls, rule: str) -> str:
        if why := naming.flaw(rule):
            raise ValueError(why)
        return rule

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_windows > self.max_windows:
            raise ValueError(f"min_windows ({self.min_windows}) must not exceed max_windows ({self.max_windows})")
        return self


class Models(_Group):
    """Where trainings, and the fleets and forecasters that came of them, are kept."""

    registry: SecretStr = Field(
        default=SecretStr("sqlite:///var/mlflow.db"),
        description="MLflow's tracking address: `sqlite:///FILE`, or `http(s)://` of a server; empty: none is kept.",
    )
    folder: Folder = Field(
        default=Path("var/models"), description="Trainings under way, and the artefacts of a registry in a file."
    )
    experiment: str = Field(
        default="tidewatch", min_length=1, max_length=200, description="Name of MLflow's experiment."
    )
    name: str = Field(default="fleet", pattern=r"^[A-Za-z0-9._-]{1,100}$", description="Name of the registered model.")
    follow: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9_-]{0,100}$",
        description="Workers keep `worker.fleet`, load workers their forecaster, the service both, equal to the "
        "version with this alias, such as `champion`; empty: they take the file as it is.",
    )
    follow_s: Seconds = Field(default=10.0, description="How often they look.")


class Jobs(_Group):
    """Long work with a name: `tidewatch score`, and what `tidewatch jobs` shows."""

    folder: Folder = Field(
        default=Path("var/jobs"), description="Where jobs keep status, log and what a later run goes on with."
    )


class Batch(_Group):
    """Scoring recordings in batch."""

    shards: int = Field(
        default=16, ge=1, le=10_000, description="Devices are cut into so many tasks; more take less memory each."
    )
    memory_mb: int = Field(
        default=512, ge=16, description="Megabytes that each process may keep for sorting; beyond it the disk is used."
    )
    s3_endpoint: str = Field(
        default="",
        pattern=r"^(https?://[^\s/@]+)?$",
        description="Address of an S3 server that is not Amazon's, such as `http://localhost:9000`; "
        "also AWS_ENDPOINT_URL. Keys are taken from the environment alone.",
    )


class Settings(_Group):
    """Everything that can be set, in groups."""

    kafka: Kafka = Kafka()
    redis: Redis = Redis()
    topics: TopicNames = TopicNames()
    window: Window = Window()
    alerting: Alerting = Alerting()
    following: Following = Following()
    worker: Worker = Worker()
    parquet: Parquet = Parquet()
    redis_sink: RedisSink = RedisSink()
    training: Training = Training()
    models: Models = Models()
    spark: Spark = Spark()
    scheduler: Scheduler = Scheduler()
    schedule: Schedule = Schedule()
    jobs: Jobs = Jobs()
    batch: Batch = Batch()
    load: Load = Load()
    serving: Serving = Serving()


def whole_ms(seconds: float) -> int:
    """Seconds to the nearest whole millisecond."""
    return round(seconds * 1000)
