"""Which behaviour alerts name, beside the faults of a simulated fleet that no threshold was set by."""

import pytest

from bench.behaviours import MISSED, NAMED, PACES, Case, Outcome, document, judged, show
from scorers.behaviour import Behaviour


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """Five devices at each pace, one of every type, 63 faults each."""
    return {pace: judged(Case(5, pace, 4_000)) for pace in PACES}


LEAST = {
    "spike": 0.6,
    "level_shift": 0.75,
    "stuck": 0.9,
    "drift": 0.65,
    "noise_burst": 0.85,
    "dropout": 0.9,
    "broken_correlation": 0.6,
}
"""Share of each kind's faults, of all sizes and found at all, whose resolved alert names it; at either pace."""


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("kind", LEAST)
def test_most_faults_are_called_by_their_name(outcomes: dict[str, Outcome], pace: str, kind: str) -> None:
    row = document(outcomes[pace])["resolved"][kind]
    found = sum(row.values()) - row.get(MISSED, 0)

    assert found >= 40
    assert row.get(NAMED[kind], 0) >= LEAST[kind] * found


@pytest.mark.parametrize("pace", PACES)
def test_faults_of_the_usual_size_are_hardly_ever_confused(outcomes: dict[str, Outcome], pace: str) -> None:
    told = document(outcomes[pace])

    assert told["right_by_size"]["1.0"] >= 0.88
    assert told["right"]["resolved"] >= 0.85
    assert told["right"]["firing"] >= 0.6
    assert told["metric_right"] >= 0.93


@pytest.mark.parametrize("pace", PACES)
def test_what_is_named_at_the_end_is_mostly_so(outcomes: dict[str, Outcome], pace: str) -> None:
    table = document(outcomes[pace])["resolved"]
    for kind, behaviour in NAMED.items():
        called = sum(row.get(behaviour, 0) for row in table.values())

        assert table[kind].get(behaviour, 0) >= 0.65 * called, kind


def test_the_table_has_a_row_for_each_kind(
    outcomes: dict[str, Outcome], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    show({"devices": 5, "paces": {pace: document(of) for pace, of in outcomes.items()}})
    shown = capsys.readouterr().out

    assert all(kind in shown for kind in NAMED)
    assert Behaviour.UNKNOWN in shown
