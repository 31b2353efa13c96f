"""What commands say on stderr."""

import logging

from rich.text import Text

from scorers.behaviour import Behaviour
from stream.contracts import Alert, Contributor
from tidewatch.console import Seldom, alert_line


def said(name: str, message: str, at: float) -> logging.LogRecord:
    record = logging.makeLogRecord({"name": name, "msg": message, "levelno": logging.ERROR})
    record.created = at
    return record


def test_kafkas_client_repeats_itself_seldom() -> None:
    seldom = Seldom()
    times = [100.0, 100.1, 105.0, 111.0, 112.0]
    passed = [at for at in times if seldom.filter(said("aiokafka.consumer.fetcher", "Failed fetch %s", at))]

    assert passed == [100.0, 111.0]


def test_what_is_ours_is_always_said() -> None:
    seldom = Seldom()

    assert all(seldom.filter(said("stream.owners", "took over", at)) for at in (1.0, 1.0, 1.1))


def line(device: str = "pump-1", **about: object) -> str:
    """What a terminal shows of an alert."""
    why = [Contributor("pressure.mean", 0.9, 7.25, 6.0)]
    known: dict[str, object] = {"state": "firing", "behaviour": None, "metric": None} | about
    state = known.pop("state")
    alert = Alert("id", device, "t", state, 0, 0, 88.4, 4.2, why, None, **known)  # type: ignore[arg-type]
    return Text.from_markup(alert_line(alert)).plain


def test_an_alert_says_what_kind_of_behaviour_and_why() -> None:
    assert line(behaviour=Behaviour.LEVEL, metric="pressure").endswith(
        "score  88.4  level pressure  pressure.mean 7.25 (typically 6)"
    )
    assert line(state="resolved", behaviour=Behaviour.DRIFT, metric="pressure").endswith("score  88.4  drift pressure")


def test_an_alert_without_a_behaviour_or_a_metric_is_a_line_too() -> None:
    assert line(behaviour=Behaviour.UNKNOWN, state="resolved").endswith("score  88.4  unknown")
    assert line(state="resolved").endswith("score  88.4")


def test_names_from_outside_are_neither_markup_nor_escape_sequences() -> None:
    shown = line("[/red]\x1b[2J", behaviour=Behaviour.STUCK, metric="[bold]x")

    assert "[/red]\\x1b[2J" in shown
    assert "stuck [bold]x" in shown
