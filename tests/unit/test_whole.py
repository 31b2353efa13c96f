"""Files appear whole or not at all."""

import stat
from pathlib import Path

import pytest

from scorers.whole import replacing


def test_a_file_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("before")
    with replacing(path) as file:
        file.write(b"after")

        assert path.read_text() == "before"

    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def fail(path: Path, error: type[BaseException]) -> None:
    with replacing(path) as file:
        file.write(b"half")
        raise error


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_nothing_stays_of_what_failed(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("before")
    with pytest.raises(error):
        fail(path, error)

    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_secret_is_nobody_elses_even_while_it_is_written(tmp_path: Path) -> None:
    with replacing(tmp_path / "a", 0o600):
        (part,) = tmp_path.iterdir()

        assert stat.S_IMODE(part.stat().st_mode) == 0o600

    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
