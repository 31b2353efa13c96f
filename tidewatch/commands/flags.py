"""Flags that several commands share."""

from typing import Annotated

import typer

from tidewatch.engines import Engine

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

OnEngine = Annotated[
    Engine,
    typer.Option(
        case_sensitive=False,
        help="Where: here, or on Apache Spark as the group `spark` of the settings says (extra `spark`).",
    ),
]
