"""Two workers at once: the command line given, twice, ended together."""

import signal
import subprocess
import sys
import time
from pathlib import Path

BEGINS = "both are at work"
SHARE = 8
"""Partitions of each: half of two topics."""
_NAP_S = 0.02


def run(folder: Path, command: list[str]) -> None:
    """Start both, say when each holds its share, and wait for the end."""
    logs = [folder / f"worker-{number}.log" for number in (1, 2)]
    workers = []
    for log in logs:
        with log.open("wb") as out:
            workers.append(subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT))

    def end(*_: object) -> None:
        for worker in workers:
            worker.terminate()

    signal.signal(signal.SIGTERM, end)
    words = f"took over {SHARE} partitions"
    while not all(words in log.read_text("utf-8", errors="replace") for log in logs):
        if any(worker.poll() is not None for worker in workers):
            sys.exit("\n".join(log.read_text("utf-8", errors="replace")[-1_000:] for log in logs))
        time.sleep(_NAP_S)
    print(BEGINS, flush=True)
    for worker in workers:
        worker.wait()


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2:])
