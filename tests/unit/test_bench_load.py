"""The bench of what it costs to read session logs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench import load
from bench.__main__ import app
from bench.load import Point, fit

DONE: list[list[str]] = []
"""Commands that were run."""


def command(place: Path, _: str, words: Sequence[object]) -> tuple[dict[str, Any], dict[str, float]]:
    """As if it were run: a second and 10 more a GB, 500 MB."""
    DONE.append(list(map(str, words)))
    given = dict(zip(DONE[-1][1::2], DONE[-1][2::2], strict=True))
    if words[0] == "generate":
        log = Path(given["--out"])
        log.mkdir()
        size = float(given["--gigabytes"]) * 1e9
        (log / "size").write_text(str(size))
        return {"rows": int(size / 155), "bytes": int(size)}, {"seconds": 2.0, "peak_mb": 300.0, "cores": 1.9}
    (place / given["--engine"]).mkdir()
    seconds = 1 + 10 * float((Path(given["--in"]) / "size").read_text()) / 1e9
    seconds *= 5 if given["--engine"] == "spark" else 1
    return {"fingerprint": {"hours": "a"}}, {"seconds": seconds, "peak_mb": 500.0, "cores": 1.5}


@pytest.fixture(autouse=True)
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    DONE.clear()
    monkeypatch.setattr(load, "_command", command)


def told(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["load", *words, "--json"], catch_exceptions=False)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_spark_reads_the_smallest_log_and_duckdb_all(tmp_path: Path) -> None:
    result = told("--size", "2", "--size", "1", "--plot", str(tmp_path / "load.svg"))

    assert [(point["engine"], point["bytes"]) for point in result["points"]] == [
        ("duckdb", 10**9),
        ("spark", 10**9),
        ("duckdb", 2 * 10**9),
    ]
    assert result["fit"]["s_per_gb"] == pytest.approx(10)
    assert result["fit"]["start_s"] == pytest.approx(1)
    assert result["fit"]["memory_power"] == pytest.approx(0)
    assert "Spark" in (tmp_path / "load.svg").read_text()


def test_a_longer_log_has_more_days() -> None:
    told("--size", "1", "--size", "3", "--longer", "--no-spark")

    assert [words[words.index("--days") + 1] for words in DONE if words[0] == "generate"][1:] == ["31", "93"]


def test_engines_that_differ_are_told() -> None:
    one, other = (Point(engine, 1, 1, 1.0, 1.0, 1.0, 1.0, {"hours": engine}) for engine in ("duckdb", "spark"))

    with pytest.raises(AssertionError, match="differ"):
        load._same(one, other)  # noqa: SLF001 - the whole bench takes long


def test_a_fit_tells_linear_from_squared_and_flat_from_growing() -> None:
    squared = [Point("duckdb", 1, gb * 10**9, 1.0, float(gb * gb), 100.0 * gb, 1.0, {}) for gb in (1, 2, 4, 8)]
    found = fit(squared)

    assert found["seconds_power"] == pytest.approx(2)
    assert found["memory_power"] == pytest.approx(1)
    assert found["mb_per_gb"] == pytest.approx(100)
    assert found["r2"] < 0.99
