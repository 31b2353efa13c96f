"""Two folders are the same when their rows are, whatever files they came in."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scorers.errors import InputError
from sinks.base import Source
from sinks.compare import TableDifference, compare
from stream.contracts import Contributor, Score
from tests.laws.sink_kit import NOW, TOPICS, ParquetStore, batch, encoded, score, started

SCORES = [score(device, hour) for device in ("a", "b") for hour in range(3)]


def written(folder: Path, scores: Sequence[Score], *, partition: int = 0, at_once: int = 100) -> Path:
    source = Source(TOPICS.scores, partition)
    log = {source: encoded(scores)}
    sink, _ = started(ParquetStore(folder), log)
    for first in range(0, len(scores), at_once):
        sink.write(batch(log, source, first, first + at_once))
        sink.flush(NOW, force=True)
    sink.close()
    return folder


def compared(
    tmp_path: Path, left: Sequence[Score], right: Sequence[Score], **options: Any
) -> tuple[TableDifference, ...]:
    return compare(written(tmp_path / "left", left), written(tmp_path / "right", right), **options).tables


def changed(**fields: Any) -> list[Score]:
    """The scores with something else in the first one."""
    return [msgspec.structs.replace(SCORES[0], **fields), *SCORES[1:]]


def test_other_files_partitions_and_order_are_the_same(tmp_path: Path) -> None:
    left = written(tmp_path / "left", SCORES)
    right = written(tmp_path / "right", SCORES[::-1], partition=2, at_once=1)

    assert compare(left, right).same


def test_rows_on_one_side_are_counted_and_shown(tmp_path: Path) -> None:
    predictions, statistics = compared(tmp_path, SCORES, SCORES[1:])

    assert (predictions.left_rows, predictions.right_rows, predictions.left_only, predictions.right_only) == (
        6,
        5,
        1,
        0,
    )
    assert predictions.examples == ("sensors/a 2023-11-15 12:00:00Z: left only",)
    assert statistics.examples == (
        "sensors/a 2023-11-15 12:00:00Z load: left only",
        "sensors/a 2023-11-15 12:00:00Z temperature: left only",
    )


def test_rows_too_many_are_counted(tmp_path: Path) -> None:
    predictions, statistics = compared(tmp_path, SCORES, [*SCORES, SCORES[0], SCORES[0]])

    assert (predictions.left_duplicated, predictions.right_duplicated, statistics.right_duplicated) == (0, 2, 4)
    assert predictions.examples == ("sensors/a 2023-11-15 12:00:00Z: 1 times left, 3 times right",)
    assert not predictions.same


def test_the_same_row_twice_on_both_sides_is_not_the_same(tmp_path: Path) -> None:
    twice = [*SCORES, SCORES[0]]

    assert not any(table.same for table in compared(tmp_path, twice, twice))


def test_a_value_that_differs_is_measured_and_shown(tmp_path: Path) -> None:
    predictions, statistics = compared(tmp_path, SCORES, changed(decision=-1.25, count=62))

    assert (predictions.differing, predictions.largest) == (1, 1.0)
    assert predictions.examples == ("sensors/a 2023-11-15 12:00:00Z: count 61 against 62, decision -1.5 against -1.25",)
    assert statistics.same


def test_within_the_tolerance_values_are_the_same(tmp_path: Path) -> None:
    folders = written(tmp_path / "left", SCORES), written(tmp_path / "right", changed(decision=-1.5 + 1e-10))
    strict, loose = compare(*folders), compare(*folders, tolerance=1e-9)

    assert (strict.same, loose.same) == (False, True)
    assert loose.tables[0].largest == pytest.approx(1e-10, rel=1e-3)


@pytest.mark.parametrize(
    "fields",
    [{"severity": None}, {"state": "learning"}, {"model_version": "v2"}, {"contributors": []}, {"anomaly": False}],
)
def test_no_tolerance_covers_what_is_no_number(tmp_path: Path, fields: dict[str, Any]) -> None:
    predictions, _ = compared(tmp_path, SCORES, changed(**fields), tolerance=1e300)

    assert (predictions.differing, predictions.largest) == (1, float("inf"))


@pytest.mark.parametrize(
    ("contributors", "largest"),
    [
        ([Contributor("temperature.mean", 0.75, 1.5, 1.0), Contributor("load.std", 0.25, None, 0.75)], 0.25),
        ([Contributor("temperature.mean", 0.75, 1.5, 1.0), Contributor("load.std", 0.25, 0.5, 0.5)], float("inf")),
        ([Contributor("load.std", 0.25, None, 0.5), Contributor("temperature.mean", 0.75, 1.5, 1.0)], float("inf")),
    ],
    ids=["typical", "null", "order"],
)
def test_contributors_are_compared_one_by_one(tmp_path: Path, contributors: list[Contributor], largest: float) -> None:
    predictions, _ = compared(tmp_path, SCORES, changed(contributors=contributors))

    assert (predictions.differing, predictions.largest) == (1, largest)


def test_empty_folders_are_the_same(tmp_path: Path) -> None:
    assert all(table.same for table in compared(tmp_path, [], []))


def test_examples_are_few_and_differences_come_first(tmp_path: Path) -> None:
    many = [score("pump", hour) for hour in range(30)]
    predictions, _ = compared(tmp_path, many, [*many[:9], score("pump", 9, value=3.0)])

    assert (predictions.left_only, predictions.differing, len(predictions.examples)) == (20, 1, 5)
    assert "score 51.5 against 53.0" in predictions.examples[0]


def test_a_folder_that_is_not_the_sinks_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no predictions table in {tmp_path}"):
        compare(tmp_path, tmp_path)


def test_a_difference_is_told_in_a_line_and_its_examples() -> None:
    same = TableDifference("predictions", (), 2_000, 2_000, 0, 0, 0, 0, 0, 0.0)
    apart = TableDifference("predictions", ("a/pump 1: left only",), 3, 2, 1, 0, 0, 0, 2, 0.5)
    unknown = TableDifference("predictions", (), 1, 1, 0, 0, 0, 0, 1, math.inf)

    assert str(same) == "predictions: the same 2,000 rows"
    assert str(apart).splitlines() == [
        "predictions: 3 rows left, 2 right; 1 left only, 2 differing by up to 0.5",
        "  a/pump 1: left only",
    ]
    assert str(unknown) == "predictions: 1 rows left, 1 right; 1 differing"
