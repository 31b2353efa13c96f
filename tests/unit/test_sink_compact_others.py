"""A compaction neither disturbs nor is disturbed: the sink, readers, other tools, other compactions."""

import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scorers.errors import ConfigError, UnavailableError
from sinks.disk import Disk, together
from sinks.names import Range
from sinks.read import dataset
from sinks.replace import AREA, LOCK, Area
from tests.compaction import DAY, LATER, Before, compacted, fill, names, plain, readable
from tests.disks import Hooked
from tests.laws.sink_kit import ParquetStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path / "windows")
    return tmp_path / "windows"


@pytest.fixture
def expected(folder: Path) -> Any:
    return ParquetStore(folder).content()


def test_a_file_written_meanwhile_is_carried_over(folder: Path) -> None:
    def late() -> None:
        fill(folder, first=24, count=4)

    compacted(folder, disk=Before("write", late), tables=("predictions",))

    assert {row[2] for row in plain(folder)} == set(range(28))
    assert len(names(folder, f"predictions/{DAY}/*")) == 3


def test_the_sink_waits_while_a_folder_is_exchanged(folder: Path) -> None:
    held = []

    def probe() -> None:
        command = ["flock", "--nonblock", "--shared", str(folder / LOCK), "true"]
        held.append(subprocess.run(command, check=False).returncode)

    compacted(folder, disk=Before("exchange", probe), tables=("predictions",))

    assert held == [1]
    with together(folder / LOCK):
        pass


def test_a_file_that_vanished_meanwhile_does_not_come_back(folder: Path) -> None:
    gone = min((folder / "predictions" / DAY).iterdir())
    before = plain(folder)

    with pytest.raises(UnavailableError, match="was deleted while it was merged; compact again"):
        compacted(folder, disk=Before("write", gone.unlink))

    assert len(plain(folder)) < len(before)
    assert [path.name for path in (folder / AREA).iterdir()] == ["lock"]


def test_a_date_deleted_meanwhile_does_not_come_back(folder: Path) -> None:
    with pytest.raises(UnavailableError):
        compacted(folder, disk=Before("write", lambda: shutil.rmtree(folder / "predictions" / DAY)))

    compacted(folder)

    assert not (folder / "predictions" / DAY).exists()


def test_a_second_compaction_is_refused(folder: Path) -> None:
    with Area(folder, Disk()).exclusive(), pytest.raises(UnavailableError, match="Another compaction of"):
        compacted(folder)

    assert len(compacted(folder).merges) == 5


def test_an_interruption_leaves_nothing_behind(folder: Path, expected: Any) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    for operation in ("write", "exchange"):
        with pytest.raises(KeyboardInterrupt):
            compacted(folder, disk=Before(operation, interrupt))

        assert [path.name for path in (folder / AREA).iterdir()] == ["lock"]
        assert ParquetStore(folder).content() == expected


def test_a_file_system_that_cannot_exchange_is_refused(folder: Path) -> None:
    class Old(Disk):
        def exchange(self, path: Path, target: Path) -> None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path), None, str(target))

    before = names(folder)

    with pytest.raises(ConfigError, match=r"cannot exchange folders or link files \(Invalid argument\); keep"):
        compacted(folder, disk=Old())

    assert names(folder) == before


def test_a_dataset_opened_before_a_compaction_reads_the_same_after_it(folder: Path) -> None:
    opened = dataset(folder, "predictions")
    before = sorted(opened.to_table().to_pylist(), key=repr)
    compacted(folder)
    fill(folder, first=24, count=8)
    compacted(folder, keep_s=3600)

    assert sorted(opened.to_table().to_pylist(), key=repr) == before
    assert opened.count_rows() == len(before)


def test_a_dataset_says_so_when_what_it_read_is_deleted(folder: Path) -> None:
    opened = dataset(folder, "predictions")
    compacted(folder)
    compacted(folder, now=LATER)

    with pytest.raises(FileNotFoundError, match="read again"):
        opened.to_table()


def test_what_was_replaced_is_kept_for_readers_and_counted(folder: Path) -> None:
    done = compacted(folder)
    kept = compacted(folder, keep_s=3600)
    later = compacted(folder, now=LATER)

    assert done.kept_bytes == kept.kept_bytes == sum(merge.bytes_before for merge in done.merges)
    assert later.kept_bytes == 0


def test_at_every_step_a_plain_reader_sees_all_rows_once_or_fails(folder: Path) -> None:
    before = plain(folder)
    seen = []
    compacted(folder, disk=Hooked(lambda: seen.append(readable(folder))))

    assert all(rows in (before, None) for rows in seen)
    assert None in seen


def test_at_every_step_a_dataset_has_all_rows_once(folder: Path, expected: Any) -> None:
    seen = []
    compacted(folder, disk=Hooked(lambda: seen.append(ParquetStore(folder).content())), tables=("predictions",))

    assert all(content == expected for content in seen)


def test_who_listed_the_old_names_fails_to_read_the_new_ones(folder: Path) -> None:
    target = folder / "predictions" / DAY
    listed = sorted(target.iterdir())
    left: list[list[Path]] = []

    class Watched(Disk):
        def unlink(self, path: Path) -> None:
            if path.parent == target:
                left.append([old for old in listed if old.exists()])
            super().unlink(path)

    compacted(folder, disk=Watched())
    ((notice,),) = left

    assert not notice.exists()
    assert Range.parse(notice.stem)
