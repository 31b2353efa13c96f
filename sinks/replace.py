"""One folder in another's place, in one step, while the sink writes to it and anybody reads it.

::

    _compact/lock                       held by the one who replaces
    _compact/draft~<target>~<stamp>/    what will take the target's place; after the exchange, what was there
    _compact/old~<target>~<stamp>/      what was there, kept a while for those who are reading it

The exchange of draft and target is the commit. Before it the draft is worthless; after it everything in
it is also in the target, as a row in a merged file or by a hard link, and is worthless once nobody reads it.

Readers list names, ask for each whether it is there, and then open them. DuckDB, pyarrow and Spark pass
over in silence what is gone when they ask, so one that listed names just before the exchange would miss
rows. That is why one of the names which go stays for a moment as a *notice*, a file that is no Parquet:
whoever listed the old names, or lists them now, fails to read it, and reads again (ADR 17).
"""

import errno
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from scorers.errors import ConfigError, UnavailableError
from sinks.disk import Disk, alone, lock
from sinks.names import ours

AREA = "_compact"
LOCK = "_tidewatch.lock"
"""Whoever adds files to a table holds it together with others, whoever replaces a folder holds it alone."""
NOTICE = b"tidewatch: this file has just been merged into another; list the folder and read again\n"
UNABLE = {errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOTTY}
"""How a file system says that it cannot do something, and not that it cannot do it now."""
SETTLE_S = 0.5
"""How long a notice stays: longer than anybody takes from listing a folder to asking for each name in it."""


class Draft(NamedTuple):
    """A replacement that is being made, or was made a moment ago."""

    path: Path
    target: Path
    stamp: str

    @property
    def written(self) -> bool:
        """Whether it holds what was made for the target, and not what was in the target."""
        return any(name.startswith(f"merged-{self.stamp}") for name in _names(self.path))


class Area:
    """Replaces folders below ``folder``, one process at a time; all but ``exclusive`` raise OSError."""

    def __init__(self, folder: Path, disk: Disk, *, settle_s: float = SETTLE_S) -> None:
        self._folder = folder
        self._disk = disk
        self._settle_s = settle_s
        self.path = folder / AREA

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be the only one who replaces folders, for the length of the block.

        Raises:
            UnavailableError: another process is at it.
        """
        self._disk.make(self.path)
        descriptor = lock(self.path / "lock")
        if descriptor is None:
            raise UnavailableError(f"Another compaction of {self._folder} is at work; let it end, then try again.")
        try:
            yield
        finally:
            os.close(descriptor)

    def probe(self) -> None:
        """Try on two empty folders what replacing needs.

        Raises:
            ConfigError: the file system cannot do it.
        """
        trial = self.path / f"trial~{os.getpid()}"
        for name in ("a", "b"):
            self._disk.make(trial / name)
        try:
            self._disk.exchange(trial / "a", trial / "b")
            self._disk.write(trial / "a" / "file", lambda file: file.write(NOTICE))
            self._disk.link(trial / "a" / "file", trial / "b" / "link")
        except OSError as error:
            if error.errno not in UNABLE:
                raise
            raise ConfigError(
                f"The file system of {self._folder} cannot exchange folders or link files ({error.strerror}); "
                "keep parquet.folder on ext4, XFS, btrfs or tmpfs of Linux to compact it."
            ) from error
        finally:
            shutil.rmtree(trial, ignore_errors=True)

    def draft(self, target: Path, stamp: str) -> Draft:
        """An empty folder to fill for ``target``; files in it are named ``merged(stamp, …)``."""
        name = "~".join(("draft", *target.relative_to(self._folder).parts, stamp))
        self._disk.make(self.path / name)
        return Draft(self.path / name, target, stamp)

    def spill(self, stamp: str) -> Path:
        """Where temporary files may be, until ``recover``."""
        return self.path / f"spill~{stamp}"

    def replace(self, draft: Draft, gone: Mapping[str, int]) -> None:
        """Put a draft in its target's place, with all that is there by then, but for the names ``gone``.

        Args:
            draft: filled and closed.
            gone: names whose rows the draft holds, and their inodes.

        Raises:
            UnavailableError: one of them is not what it was.
        """
        self._disk.write(draft.path / min(gone), lambda file: file.write(NOTICE))
        _alike(draft.target, draft.path)
        self._carry(draft, gone)
        self._disk.sync(draft.path)
        with alone(self._folder / LOCK):
            self._carry(draft, gone)
            _unchanged(draft.target, gone)
            self._disk.sync(draft.path)
            self._disk.sync(draft.target)
            self._disk.exchange(draft.path, draft.target)
            self._disk.sync(draft.target.parent)
            self._disk.sync(self.path)

    def settle(self, draft: Draft) -> None:
        """After the exchange: take the notice away once nobody needs it, and set aside what was there."""
        time.sleep(self._settle_s)
        if draft.target.is_dir():
            self._adopt(draft.path, draft.target)
            for name in _names(draft.path):
                if noticed(draft.target / name):
                    self._disk.unlink(draft.target / name)
            self._disk.sync(draft.target)
        self._disk.move(draft.path, self.path / draft.path.name.replace("draft~", "old~", 1))
        self._disk.sync(self.path)

    def recover(self) -> None:
        """Finish or undo what was interrupted; only while ``exclusive``."""
        for draft in self.drafts():
            if draft.written or not _names(draft.path):
                self._disk.remove(draft.path)
            else:
                self.settle(draft)
        for pattern in ("spill~*", "trial~*"):
            for path in self.path.glob(pattern):
                shutil.rmtree(path)

    def heal(self) -> None:
        """Take away the notices of a compaction that was interrupted, unless one is at work."""
        with self._interrupted() as drafts:
            for draft in drafts:
                self.settle(draft)

    def unread(self) -> list[Path]:
        """The folders that plain readers fail on until somebody does ``heal`` or ``recover``."""
        with self._interrupted() as drafts:
            return [draft.target for draft in drafts]

    @contextmanager
    def _interrupted(self) -> Iterator[list[Draft]]:
        """Drafts that are exchanged and not settled, none while somebody is at work."""
        if not self.drafts():
            yield []
            return
        descriptor = lock(self.path / "lock")
        if descriptor is None:
            yield []
            return
        try:
            yield [draft for draft in self.drafts() if _names(draft.path) and not draft.written]
        finally:
            os.close(descriptor)

    def dispose(self, before: float) -> list[Path]:
        """Delete what was replaced before a time (epoch seconds); what is not ours in there stays, and is returned."""
        kept: list[Path] = []
        for old in self._entries("old"):
            if old.path.lstat().st_ctime > before:
                continue
            if old.target.is_dir():
                self._adopt(old.path, old.target)
            foreign = [path for path in old.path.iterdir() if not _ours(path)]
            kept += foreign
            if not foreign:
                self._disk.remove(old.path)
        return kept

    def kept(self) -> int:
        """Bytes on disk that only readers of what was replaced still need."""
        found = [path.lstat() for old in self._entries("old") for path in old.path.iterdir()]
        return sum(stat.st_size for stat in found if stat.st_nlink == 1)

    def drafts(self) -> list[Draft]:
        """What is being made, or was when its maker died."""
        return self._entries("draft")

    def replaced(self, target: Path) -> list[Path]:
        """The folders that were in a target's place, and are kept for those who read them."""
        return [entry.path for kind in ("draft", "old") for entry in self._entries(kind) if entry.target == target]

    def _entries(self, kind: str) -> list[Draft]:
        found = []
        for path in sorted(self.path.glob(f"{kind}~*~*")):
            _, *parts, stamp = path.name.split("~")
            found.append(Draft(path, self._folder.joinpath(*parts), stamp))
        return found

    def _carry(self, draft: Draft, gone: Mapping[str, int]) -> None:
        """Make the draft hold every name of the target that does not go."""
        for name in _names(draft.path) - gone.keys():
            path = draft.path / name
            if not name.startswith(f"merged-{draft.stamp}") and not _same(path, draft.target / name):
                self._disk.unlink(path)
        for name in sorted(_names(draft.target) - gone.keys() - _names(draft.path)):
            self._disk.link(draft.target / name, draft.path / name)

    def _adopt(self, old: Path, target: Path) -> None:
        """Leave nothing in ``old`` that is not ours; what came too late to be carried over still is."""
        for path in [path for path in old.iterdir() if not _ours(path)]:
            there = target / path.name
            if not os.path.lexists(there) and not path.is_dir():
                self._disk.link(path, there)
            if _same(path, there):
                self._disk.unlink(path)


def noticed(path: Path) -> bool:
    """Whether a file is there only to say that its rows are in another one."""
    try:
        return not path.is_symlink() and path.stat().st_size == len(NOTICE) and path.read_bytes() == NOTICE
    except FileNotFoundError:
        return False


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _alike(folder: Path, other: Path) -> None:
    """Give ``other`` the mode, owner and attributes of ``folder``, so that whoever could use it still can."""
    shutil.copystat(folder, other)
    held = folder.stat()
    with suppress(PermissionError):  # not root: it is ours already, or its group lets us in
        os.chown(other, held.st_uid, held.st_gid)


def _unchanged(target: Path, gone: Mapping[str, int]) -> None:
    for name, inode in gone.items():
        path = target / name
        if not os.path.lexists(path) or path.lstat().st_ino != inode:
            raise UnavailableError(f"{path} was deleted while it was merged; compact again.")


def _same(left: Path, right: Path) -> bool:
    return os.path.lexists(right) and os.path.samestat(left.lstat(), right.lstat())


def _ours(path: Path) -> bool:
    return ours(path.name) and path.is_file() and not path.is_symlink()
