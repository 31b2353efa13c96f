"""What a person can set about forecasting the load of servers."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Load(BaseModel):
    """Forecasting the load of servers: `tidewatch load`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        default=Path("var/load"), description="Where hours, features, rejected rows and models are kept."
    )
    timezone: str = Field(default="UTC", description="Where the servers' day begins, such as `America/New_York`.")
