"""What a person can set about forecasting the load of servers."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _words(given: object) -> object:
    """Several values written as one, with commas between: what a flag and the environment can give."""
    return tuple(word.strip() for word in given.split(",") if word.strip()) if isinstance(given, str) else given


def _rising(given: tuple[float, float]) -> tuple[float, float]:
    if not given[0] < given[1]:
        raise ValueError("the second number must be larger than the first")
    return given


Pair = Annotated[tuple[float, float], BeforeValidator(_words), AfterValidator(_rising)]


class Load(BaseModel):
    """Forecasting the load of servers: `tidewatch load`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        default=Path("var/load"), description="Where hours, features, rejected rows and models are kept."
    )
    timezone: str = Field(default="UTC", description="Where the servers' day begins, such as `America/New_York`.")
    country: str = Field(
        default="US", description="Whose public holidays count, as `US`, `US-CA` or `DE-BY`; empty for none."
    )
    thresholds: Pair = Field(
        default=(100.0, 500.0), description="Peak load of an hour up to which it is low, and up to which medium."
    )
    scale: float = Field(default=1.0, gt=0, description="Both thresholds are multiplied by it; 7 on the full set.")
    quantiles: Pair | None = Field(
        default=None,
        description="Instead, from the loads trained on: shares that are low, and at most medium, as `0.6,0.9`.",
    )
    alive_h: int = Field(
        default=24,
        ge=1,
        le=24 * 366,
        description="Hours after its last session in which a server's load is taken for 0; later hours are missing.",
    )
    exclude: Annotated[tuple[str, ...], BeforeValidator(_words)] = Field(
        default=(),
        description="Intervals FROM/TO that the log does not know, such as outages of what records it; their hours are "
        "missing.",
    )
    grace_s: float = Field(
        default=300.0,
        ge=0,
        le=31_536_000,
        description="How long a live hour waits for sessions that come late, on the clock of their partition.",
    )
    idle_s: float = Field(
        default=600.0,
        ge=1,
        le=31_536_000,
        description="How long an hour waits where a partition's sessions have ceased altogether.",
    )
    max_jump_s: float = Field(
        default=86_400.0,
        ge=1,
        le=31_536_000,
        description="A live session further ahead of its partition's clock, and as far from its record's Kafka "
        "timestamp, waits for the server's next one to confirm it.",
    )


def model_file(load: Load) -> Path:
    """The forecaster in force."""
    return load.folder / "models" / "forecaster.twf"
