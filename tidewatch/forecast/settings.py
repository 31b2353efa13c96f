"""What a person can set about forecasting the load of servers."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _words(given: object) -> object:
    """Several values written as one, with commas between: what a flag and the environment can give."""
    return tuple(word.strip() for word in given.split(",") if word.strip()) if isinstance(given, str) else given


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
