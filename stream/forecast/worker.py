"""The forecaster's shell: its cores for a worker, and the model's file that they follow."""

from functools import partial
from pathlib import Path

from scorers.forecast.pack import load
from stream.app import App, Followed, follow
from stream.contracts import Topics
from stream.core import Cores
from stream.forecast.core import Forecasting, LoadSpec
from stream.forecast.issue import Champion

_ABSENT = "there is no forecaster at %s; hours are kept, and nothing is forecast until `tidewatch load train` makes one"


def forecasting(topics: Topics, spec: LoadSpec) -> Cores[Champion]:
    """Cores that forecast by the sessions."""
    born = partial(Forecasting, spec=spec, topics=topics)
    return Cores({topics.sessions: born}, topics.load, Champion())


def follow_forecaster(app: App, path: Path) -> None:
    """Forecast by the model at ``path``; see ``stream.app.follow``."""
    follow(app, path, Followed(_champion, _told, _ABSENT))


def _champion(path: Path) -> Champion:
    return Champion(load(path))


def _told(champion: Champion) -> str:
    return f"forecaster {champion.forecaster.version}" if champion.forecaster else "no forecaster"
