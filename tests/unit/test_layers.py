"""The layers hold, and the check that says so would notice if they did not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tidewatch.index import INDEX

PROJECT = Path(__file__).parents[2]
PACKAGES = ("tidewatch", "producers", "stream", "scorers", "sinks", "serving")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_point_one_way() -> None:
    result = lint_imports(PROJECT)

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "planted", "broken"),
    [
        ("scorers/statistics.py", "import confluent_kafka", "scorers.statistics -> confluent_kafka"),
        ("scorers/errors.py", "import stream.contracts", "scorers.errors -> stream.contracts"),
        ("stream/kafka.py", "import sinks", "stream.kafka -> sinks"),
        ("stream/window.py", "import time", "stream.window -> time"),
        ("producers/__init__.py", "import sinks", "producers -> sinks"),
        ("sinks/__init__.py", "import tidewatch", "sinks -> tidewatch"),
    ],
)
def test_a_planted_bad_import_is_caught(copy: Path, module: str, planted: str, broken: str) -> None:
    with (copy / module).open("a") as source:
        source.write(f"\n{planted}\n")
    result = lint_imports(copy)

    assert result.returncode == 1
    assert broken in result.stdout


def test_only_who_trains_pays_for_scikit_learn() -> None:
    modules = ", ".join(sorted({f"tidewatch.commands.{place.module}" for place in INDEX.values()}))
    script = f"import sys, {modules}; print({{'sklearn', 'scipy.stats', 'mlflow'}} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "set()"
