from pathlib import Path

import pytest

from scorers.errors import ConfigError, InputError
from tidewatch.spans import duration, faults, period

DAY = 86_400_000


@pytest.mark.parametrize(("text", "length"), [("36h", 36 * 3_600_000), ("2d", 2 * DAY), ("0.5m", 30_000)])
def test_lengths_of_time_are_a_number_and_a_unit(text: str, length: int) -> None:
    assert duration(text, "--last") == length


@pytest.mark.parametrize("text", ["", "36", "h", "-1h", "0d", "1 year"])
def test_anything_else_is_refused_with_the_flag(text: str) -> None:
    with pytest.raises(ConfigError, match="--last"):
        duration(text, "--last")


def test_periods_have_intervals_left_out() -> None:
    found = period("1970-01-02", None, ["1970-01-03/1970-01-04"])

    assert (found.since, found.until, found.excluded) == (DAY, None, ((2 * DAY, 3 * DAY),))


@pytest.mark.parametrize("text", ["1970-01-03", "1970-01-04/1970-01-03", "x/y"])
def test_intervals_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--exclude"):
        period(None, None, [text])


def test_known_faults_are_read_by_device(tmp_path: Path) -> None:
    path = tmp_path / "faults.csv"
    path.write_text("device_id,start,end,note\na,1970-01-02,1970-01-03,x\nb,0,5\na,86400000,172800000,\n")

    assert faults(path) == {"a": ((DAY, 2 * DAY), (DAY, 2 * DAY)), "b": ((0, 5),)}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("device,from,to\n", "lacks columns"),
        ("device_id,start,end\na,x,1970-01-03\n", "faults.csv:2 start 'x'"),
        ("device_id,start,end\na,1970-01-03,1970-01-02\n", "faults.csv:2: end is not later"),
        ("device_id,start,end\na,1970-01-03\n", "faults.csv:2 end ''"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "faults.csv"
    path.write_text(content)

    with pytest.raises(InputError, match=told):
        faults(path)
