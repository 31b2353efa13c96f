"""Lets atheris loose on every target in turn; pytest replays what it has found from ``tests/fuzz/corpus``."""

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.fuzz.seeds import WORDS, seeds
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
PROJECT = Path(__file__).parents[2]
_LONGEST = 4_096
_SLOWEST_S = 20

console = Console(stderr=True, highlight=False)


def fuzz(
    *,
    minutes: Annotated[float, typer.Option(min=0.01, help="For all targets together.")] = 5.0,
    target: Annotated[list[str] | None, typer.Option(help="Only this one; may be given again.")] = None,
) -> None:
    """Feed the decoders, a partition and the sinks what a fuzzer makes up; ends with 1 where one breaks a promise."""
    names = target or list(TARGETS)
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is no target; choose among {', '.join(TARGETS)}.")
    if find_spec("atheris") is None:
        console.print("atheris is missing; install it with: .venv/bin/pip install -e '.[fuzz]'")
        raise typer.Exit(3)
    broken = [name for name in names if not _run(name, 60 * minutes / len(names))]
    if broken:
        console.print(f"{', '.join(broken)}: broken by what is now in {CORPUS}; run pytest tests/fuzz to see how")
        raise typer.Exit(1)


def _run(name: str, seconds: float) -> bool:
    """Whether the target held."""
    findings = CORPUS / name
    findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tidewatch-fuzz-") as folder:
        begun = Path(folder) / "corpus"
        begun.mkdir()
        for number, seed in enumerate(seeds(name)):
            (begun / f"seed-{number}").write_bytes(seed)
        words = Path(folder) / "words"
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS), "ascii")
        flags = {
            "max_total_time": max(1, int(seconds)),
            "max_len": _LONGEST,
            "timeout": _SLOWEST_S,
            "dict": words,
            "artifact_prefix": f"{findings}/",
            "print_final_stats": 1,
            "verbosity": 1,
        }
        options = [f"-{flag}={value}" for flag, value in flags.items()]
        console.print(f"{name}: {seconds:.0f} s")
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.child", name, *options, begun, findings], cwd=PROJECT, check=False
        )
    return done.returncode == 0


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"')


if __name__ == "__main__":
    typer.run(fuzz)
