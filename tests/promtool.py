"""What Prometheus' own ``promtool`` says: of a page of metrics, of a configuration, of rules."""

import shutil
import subprocess
from pathlib import Path

MISSING = "there is no promtool: install prometheus (Debian)"


def complaints(page: str) -> str | None:
    """Its words on a page of metrics, empty where it has none to say; None where there is no promtool."""
    return _said(["check", "metrics"], page)


def told(*words: str | Path) -> str | None:
    """Its words where a command fails, empty where it does not; None where there is no promtool."""
    return _said([str(word) for word in words], "", quiet=True)


def _said(words: list[str], given: str, *, quiet: bool = False) -> str | None:
    promtool = shutil.which("promtool")
    if promtool is None:
        return None
    done = subprocess.run([promtool, *words], input=given, capture_output=True, text=True, check=False)
    if quiet and done.returncode == 0:
        return ""
    return done.stdout + done.stderr or ("" if done.returncode == 0 else f"promtool ended with {done.returncode}")
