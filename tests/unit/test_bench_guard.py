"""The guard against getting slower."""

from pathlib import Path

import pytest

from bench.guard import record, recorded, worse
from bench.job import Job
from scorers.errors import ConfigError

RESULT = {
    "ours": {"runs": [1, 2, 3]},
    "ratios": {"faust": 80.0, "librdkafka": 0.4},
    "job": {"windows": 40, "devices": 500, "metrics": 8, "seed": 1, "readings": 200_000, "results": 20_000},
    "machine": {"cores": 2},
}


def test_what_was_recorded_is_the_job_to_do_again(tmp_path: Path) -> None:
    record(RESULT, tmp_path / "recorded.json")
    kept = recorded(tmp_path / "recorded.json")

    assert kept.job == Job(40, 500, 8, 1)
    assert (kept.repeat, kept.ratios) == (3, RESULT["ratios"])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"job": 1}'])
def test_a_record_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "recorded.json").write_text(text)

    with pytest.raises(ConfigError, match="--record"):
        recorded(tmp_path / "recorded.json")
    with pytest.raises(ConfigError, match="--record"):
        recorded(tmp_path / "none.json")


def test_a_ratio_may_lose_15_percent() -> None:
    before = {"faust": 80.0, "librdkafka": 0.4}

    assert worse(before, {"faust": 70.0, "librdkafka": 0.9}) == {}
    assert worse(before, {"faust": 60.0, "librdkafka": 0.35}) == {"faust": (80.0, 60.0)}
