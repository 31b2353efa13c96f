"""What every test may ask for."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
"""No test fails for its time: a first example may compile, and machines are slow at times."""

PROJECT = Path(__file__).parents[1]
collect_ignore = ["fuzz/child.py"]
"""Runs only under a fuzzer that is an extra."""


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of recordings: ``TIDEWATCH_DATA``, or ``../shared/data`` beside the project."""
    root = Path(os.environ.get("TIDEWATCH_DATA") or PROJECT.parent / "shared" / "data")
    if not root.is_dir():
        pytest.skip(f"no recordings in {root}; set TIDEWATCH_DATA to where they are")
    return root
