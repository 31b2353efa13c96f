"""What a person can set about where training and scoring run: here, or on Apache Spark."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr


class Engine(StrEnum):
    """Where the work is done."""

    LOCAL = "local"
    SPARK = "spark"


class Spark(BaseModel):
    """Apache Spark, for `--engine spark`; needs the extra `spark` and Java 17."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    master: str = Field(
        default="local[*]",
        pattern=r"^(local(\[[^\]]+\])?|local-cluster\[[^\]]+\]|spark://.+|k8s://.+|yarn)$",
        description="Spark's master: `local[4]`: four cores here (`*`: all); `spark://host:7077`, `k8s://…`, `yarn`.",
    )
    options: dict[str, SecretStr] = Field(
        default={},
        description="Spark's own settings, such as `spark.driver.memory`; kept secret. In the environment one variable "
        "each, for names without capitals: `TIDEWATCH_SPARK__OPTIONS__SPARK_DRIVER_MEMORY` is `spark.driver.memory`.",
    )
    log: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        default=Path("var/spark.log"), description="Where Spark writes its messages, anew for each run."
    )
