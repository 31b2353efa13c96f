"""No row is lost, doubled or left behind, wherever a compaction ends."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from scorers.errors import UnavailableError
from sinks.compact import compact
from sinks.disk import Disk
from sinks.parquet import ParquetSink, ParquetSpec
from sinks.replace import AREA
from tests.compaction import DAY, HERE, LATER, SOURCE, compacted, fill, names, plain, readable, specified
from tests.disks import Countdown, CrashError, Hooked
from tests.laws.sink_kit import TOPICS, ParquetStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path / "windows")
    return tmp_path / "windows"


@pytest.fixture
def expected(folder: Path) -> Any:
    return ParquetStore(folder).content()


@pytest.fixture
def little(tmp_path: Path) -> Path:
    """Four files to merge, one to leave alone in another date, and a stray."""
    folder = tmp_path / "little"
    fill(folder, count=7)
    for path in sorted((folder / "predictions" / "date=2023-11-16").iterdir())[1:]:
        path.unlink()
    (folder / "predictions" / DAY / "notes.txt").write_text("mine")
    return folder


def crash_points(little: Path, error: BaseException) -> Iterator[Path]:
    """A copy for every place where a compaction can end; it first disposes of what an earlier one replaced."""
    operations, crashed = 0, True
    while crashed:
        folder = little.parent / f"crash-{operations}"
        shutil.copytree(little, folder)
        disk = Hooked(Countdown(operations, error))
        try:
            compact(specified(folder, tables=("predictions",)), LATER, disk=disk)
            crashed = False
        except (CrashError, UnavailableError):
            pass
        operations += 1
        yield folder
    assert operations > 25


def test_after_a_crash_anywhere_readers_see_all_rows_once_and_the_next_compaction_cleans_up(
    little: Path,
) -> None:
    before, expected = plain(little), ParquetStore(little).content()
    failed = 0
    for crashed in crash_points(little, CrashError()):
        seen = readable(crashed)
        failed += seen is None

        assert seen in (before, None)
        assert ParquetStore(crashed).content() == expected

        compacted(crashed)
        compacted(crashed, now=LATER)

        assert plain(crashed) == before
        assert [path.name for path in (crashed / AREA).iterdir()] == ["lock"]
        assert len(names(crashed, "predictions/**/*")) == 3

    assert failed > 0  # the notice was seen


def test_after_a_crash_anywhere_a_starting_sink_mends_what_plain_readers_see(little: Path) -> None:
    before = plain(little)
    for crashed in crash_points(little, CrashError()):
        sink = ParquetSink(ParquetSpec(crashed), TOPICS)
        sink.bind(HERE)
        ahead = sink.resume(SOURCE)
        sink.close()

        assert ahead == 7
        assert plain(crashed) == before


def test_a_crash_while_cleaning_up_loses_nothing(little: Path) -> None:
    expected = ParquetStore(little).content()
    for crashed in crash_points(little, CrashError()):
        for operations in range(9, 24, 5):
            with suppress(CrashError):
                compact(specified(crashed), LATER, disk=Hooked(Countdown(operations, CrashError())))
        compacted(crashed, now=LATER)

        assert ParquetStore(crashed).content() == expected


def test_a_full_disk_anywhere_is_named_and_changes_nothing_a_reader_sees(little: Path) -> None:
    before = plain(little)
    for full in crash_points(little, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))):
        compacted(full)

        assert plain(full) == before


class Full(Disk):
    """Has no room for merged files."""

    def write(self, path: Path, content: Any) -> None:
        if path.name.startswith("merged-"):
            path.write_bytes(b"PAR1")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(path, content)


def test_a_full_disk_leaves_nothing_behind(folder: Path) -> None:
    before = names(folder)

    with pytest.raises(UnavailableError, match=r"Cannot compact .*windows \(No space left on device\); free space"):
        compacted(folder, disk=Full())

    assert names(folder) == before
    assert [path.name for path in (folder / AREA).iterdir()] == ["lock"]


@contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[None]:
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tidewatch-test", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full_changes_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 2048):
        folder = tmp_path / "small" / "windows"
        fill(folder)
        before = plain(folder)
        ballast = tmp_path / "small" / "ballast"
        free = shutil.disk_usage(folder).free
        ballast.write_bytes(b"\0" * (free - 4 * 4096))

        with pytest.raises(UnavailableError, match="free"):
            compacted(folder)

        left = [path.name for path in (folder / AREA).iterdir() if not path.name.startswith("old~")]
        unchanged = plain(folder) == before
        ballast.unlink()
        compacted(folder)

        assert left == ["lock"]
        assert unchanged
        assert len(names(folder, "*/**/*.parquet")) == 5
        assert plain(folder) == before
