"""Types by the ids of devices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers import naming
from scorers.errors import ConfigError
from scorers.panel import TypeSpec
from tidewatch.settings import load


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("pump-0007", "pump"),
        ("pump7", "pump"),
        ("machine-1-1", "machine-1"),
        ("hall a:fan 12", "hall a:fan"),
        ("水-3", "水"),
        ("10.0.0.1", None),
        ("0007", None),
        ("pump", None),
    ],
)
def test_a_type_is_what_stands_before_the_last_number(device: str, kind: str | None) -> None:
    assert naming.types([device], naming.DEFAULT) == [kind]


def test_an_empty_rule_finds_no_types() -> None:
    assert naming.flaw("") is None
    assert naming.types(["pump-1", "pump-2"], "") == [None, None]


def test_an_empty_type_is_none() -> None:
    assert naming.types(["-1", "a-1"], "^(?P<type>a?)-1$") == [None, "a"]


@given(st.text(max_size=300))
def test_any_id_is_taken(device: str) -> None:
    (kind,) = naming.types([device], naming.DEFAULT)

    assert kind is None or device.startswith(kind)


@given(st.text(max_size=60) | st.from_regex(r"\(\?P<type>.{1,20}\)", fullmatch=True))
def test_a_rule_without_flaw_works(rule: str) -> None:
    if naming.flaw(rule) is None:
        assert len(naming.types(["pump-1", ""], rule)) == 2


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("(", "no regular expression"),
        ("pump", "needs one group, named type"),
        ("(?P<kind>pump)", "needs one group, named type"),
        ("(?P<type>a)(?P<more>b)", "needs one group, named type"),
        (r"(?P<type>a)\1", "no regular expression"),
        ("(?P<type>" + "a" * 200 + ")", "has 210 characters"),
    ],
)
def test_a_rule_with_a_flaw_is_refused_with_the_fix(rule: str, why: str) -> None:
    assert why in str(naming.flaw(rule))
    with pytest.raises(ConfigError, match=r"types\.rule"):
        TypeSpec(rule)
    with pytest.raises(ConfigError, match=r"training\.types"):
        load({"training.types": rule}, environ={})


def test_too_few_devices_for_a_type_are_named() -> None:
    with pytest.raises(ConfigError, match=r"types\.devices is 2; make it at least 3"):
        TypeSpec(devices=2)


def test_a_pattern_that_others_drown_in_is_matched_in_linear_time() -> None:
    """Backtracking would take 2 to the power of 250 steps."""
    assert naming.types(["a" * 250 + "!"], "^(?P<type>(?:a+)+)$") == [None]
