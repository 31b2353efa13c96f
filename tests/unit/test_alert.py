"""k of n with hysteresis, drawn: a dot is a calm window, an X an anomalous one; F fires, R resolves."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.behaviour import Behaviour, Finding, Sign
from scorers.errors import ConfigError
from stream.alert import Alerting, AlertSpec, Verdict, Watch
from stream.contracts import Alert, Contributor

SIZE = 10_000


def verdict(number: int, *, anomaly: bool, score: float = 0.0) -> Verdict:
    why = [Contributor("x.mean", 1.0, 2.0, 1.0)] if anomaly else []
    found = showing(number) if anomaly else None
    score = score or 90.0 * anomaly
    return Verdict("pump", number * SIZE, (number + 1) * SIZE, anomaly, score, 7.0 * anomaly, why, found)


def showing(number: int) -> Finding:
    """A mean that moves on in every window, by a metric that others take turns with."""
    away = 5.0 + 3 * number
    return Finding("xxy"[number % 3], Sign.MOVED, away, None, {"x": away, "y": away / 7})


def alerts(windows: str, spec: AlertSpec, scores: dict[int, float] | None = None) -> list[tuple[int, Alert]]:
    """(window, change) of every change."""
    alerting = Alerting(spec, "sensor.readings")
    seen = []
    for number, mark in enumerate(windows):
        told = verdict(number, anomaly=mark == "X", score=(scores or {}).get(number, 0.0))
        seen.append((number, alerting.see(0, told, "v1")))
    return [(number, alert) for number, alert in seen if alert]


def drawn(windows: str, spec: AlertSpec) -> str:
    letters = {number: alert.state[0].upper() for number, alert in alerts(windows, spec)}
    return "".join(letters.get(number, ".") for number in range(len(windows)))


@pytest.mark.parametrize(
    ("spec", "windows", "changes"),
    [
        # k  n  clear
        (AlertSpec(1, 1, 0), ".X.XX.", ".FRF.R"),
        (AlertSpec(2, 3, 0), "..X..X..", "........"),
        (AlertSpec(2, 3, 0), "..X.XX...", "....F...R"),
        (AlertSpec(2, 3, 0), "XX.X.X...X", ".F......R."),
        (AlertSpec(2, 2, 0), "X.XX.X.X..", "...F.....R"),
        # resolved as soon as one or none of the last three is left
        (AlertSpec(2, 3, 1), "..X.XX...", "....F..R."),
        (AlertSpec(2, 3, 1), ".XX..XX..X", "..F.R.F.R."),
        (AlertSpec(3, 5, 1), "X.X.X......", "....F..R..."),
        # a second alert begins anew
        (AlertSpec(2, 3, 0), "XX...XX...", ".F..R.F..R"),
    ],
)
def test_an_alert_fires_at_k_of_n_and_resolves_at_clear(spec: AlertSpec, windows: str, changes: str) -> None:
    assert drawn(windows, spec) == changes


@given(windows=st.text(".X", max_size=40), n=st.integers(1, 6), data=st.data())
def test_changes_alternate_and_follow_from_the_last_n_windows(windows: str, n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    clear = data.draw(st.integers(0, k - 1))
    expected, firing = "", False
    for number in range(len(windows)):
        hits = windows[max(0, number + 1 - n) : number + 1].count("X")
        change = hits <= clear if firing else hits >= k
        expected += "." if not change else "R" if firing else "F"
        firing ^= change

    assert drawn(windows, AlertSpec(k, n, clear)) == expected


def test_both_changes_of_an_alert_carry_its_name_and_beginning() -> None:
    (at, fired), (end, resolved) = alerts("..X.XX...", AlertSpec(2, 3, 0))

    assert fired.alert_id == resolved.alert_id == f"sensor.readings/pump/{2 * SIZE}"
    assert fired.since == resolved.since == 2 * SIZE
    assert (fired.at, resolved.at) == ((at + 1) * SIZE, (end + 1) * SIZE)
    assert fired.contributors == [Contributor("x.mean", 1.0, 2.0, 1.0)]
    assert resolved.model_version == "v1"


def test_an_alert_tells_its_highest_score() -> None:
    (_, fired), (_, resolved) = alerts("XXX..", AlertSpec(2, 3, 1), {0: 70.0, 1: 60.0, 2: 95.0})

    assert (fired.score, resolved.score) == (70.0, 95.0)


def test_the_next_alert_begins_with_its_own_score() -> None:
    *_, (_, second), _ = alerts("XX...XX...", AlertSpec(2, 3, 0), {0: 99.0, 1: 99.0, 5: 60.0, 6: 61.0})

    assert second.score == 61.0


def test_a_calm_device_is_forgotten() -> None:
    alerting = Alerting(AlertSpec(2, 3, 0), "sensor.readings")
    sizes = []
    for number, mark in enumerate("X...XX..."):
        alerting.see(0, verdict(number, anomaly=mark == "X"), None)
        sizes.append(len(alerting.watched))

    assert sizes == [1, 1, 1, 0, 1, 1, 1, 1, 0]


def test_devices_do_not_share_their_windows() -> None:
    alerting = Alerting(AlertSpec(2, 2, 0), "sensor.readings")
    changes = [alerting.see(device, verdict(number, anomaly=True), None) for number in (0, 1) for device in (0, 1)]

    assert [change and change.state for change in changes] == [None, None, "firing", "firing"]


@given(windows=st.text(".X", max_size=20), cut=st.integers(0, 20))
def test_an_alert_goes_on_where_its_memory_ends(windows: str, cut: int) -> None:
    spec = AlertSpec(2, 3, 1)
    before, after = Alerting(spec, "t"), Alerting(spec, "t")
    whole = Alerting(spec, "t")
    told = [verdict(number, anomaly=mark == "X") for number, mark in enumerate(windows)]
    halves = [before.see(0, one, None) for one in told[:cut]]
    for device, watch in before.watched.items():
        after.watched[device] = msgspec.json.decode(msgspec.json.encode(watch), type=Watch)
    halves += [after.see(0, one, None) for one in told[cut:]]

    assert halves == [whole.see(0, one, None) for one in told]


def test_an_alert_tells_what_is_known_when_it_fires_and_all_when_it_ends() -> None:
    (_, fired), (_, resolved) = alerts("XXXXXXXX...", AlertSpec(2, 3, 0))

    assert (fired.behaviour, fired.metric) == (Behaviour.LEVEL, "x")
    assert (resolved.behaviour, resolved.metric) == (Behaviour.DRIFT, "x")


def test_what_an_earlier_alert_showed_is_no_part_of_the_next() -> None:
    *_, (_, fired), (_, resolved) = alerts("XXXXXXXX...XX...", AlertSpec(2, 3, 0))

    assert fired.behaviour == resolved.behaviour == Behaviour.LEVEL


def test_a_stray_window_that_slid_out_is_no_part_of_an_alert() -> None:
    spec, found = AlertSpec(2, 2, 0), []
    for windows in ("X.XX..", "..XX.."):
        alerting = Alerting(spec, "t")
        told = [verdict(number, anomaly=mark == "X") for number, mark in enumerate(windows)]
        seen = [alerting.see(0, one, None) for one in told]
        found.append([alert for alert in seen if alert])

    assert found[0] == found[1]


def test_memories_of_before_behaviours_were_told_are_taken_up() -> None:
    old = b'{"recent":[null,0],"since":null,"score":88.4,"severity":4.2}'
    alerting = Alerting(AlertSpec(2, 3, 0), "t")
    alerting.watched[0] = msgspec.json.decode(old, type=Watch)
    alert = alerting.see(0, verdict(1, anomaly=True), None)

    assert alert is not None
    assert (alert.since, alert.behaviour) == (0, Behaviour.LEVEL)


def test_alerts_of_before_behaviours_were_told_can_be_read() -> None:
    old = (
        b'{"alert_id":"t/a/1","device_id":"a","source":"t","state":"firing","since":1,"at":2,'
        b'"score":81.0,"severity":4.0,"contributors":[]}'
    )
    alert = msgspec.json.decode(old, type=Alert)

    assert (alert.behaviour, alert.metric) == (None, None)


@pytest.mark.parametrize(("k", "n", "clear"), [(0, 3, 0), (4, 3, 0), (2, 3, 2), (2, 3, -1)])
def test_a_spec_that_does_not_fit_together_is_refused(k: int, n: int, clear: int) -> None:
    with pytest.raises(ConfigError, match="clear < k <= n"):
        AlertSpec(k, n, clear)
