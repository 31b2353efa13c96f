"""What Prometheus' own ``promtool check metrics`` says of a page of metrics."""

import shutil
import subprocess

MISSING = "there is no promtool: install prometheus (Debian)"


def complaints(page: str) -> str | None:
    """Its words, empty where it has none to say; None where there is no promtool."""
    promtool = shutil.which("promtool")
    if promtool is None:
        return None
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr or ("" if done.returncode == 0 else f"promtool ended with {done.returncode}")
