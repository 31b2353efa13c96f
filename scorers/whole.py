"""Files that appear whole: their readers see what was there before or all of the new, even after a power cut."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedRandom
from pathlib import Path


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[BufferedRandom]:
    """A file to write and read that takes the place of ``path`` in one step; where that fails nothing of it stays.

    Args:
        path: the file; its folder must exist.
        mode: who may read and write it, from the beginning on; less what the process's mask takes away.

    Raises:
        OSError: the disk does not take it.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        with open(part, "x+b", opener=partial(os.open, mode=mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def copied(source: Path, target: Path) -> None:
    """Copy a file so that it appears whole; makes the folder.

    Raises:
        OSError: the disk does not take it, or the source cannot be read.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as given, replacing(target) as file:
        shutil.copyfileobj(given, file)


def _sync(folder: Path) -> None:
    """Make a rename within ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
