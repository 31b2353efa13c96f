"""Those who read datasets of many files never wait for each other for ever."""

import subprocess
import sys
from pathlib import Path

from tests.compaction import fill

JOIN_BY_DUCKDB = """
import sys
from pathlib import Path
import duckdb
from sinks.read import dataset

for _ in range(60):
    one, other = dataset(Path(sys.argv[1]), "predictions"), dataset(Path(sys.argv[1]), "predictions")
    joined = "FROM one FULL JOIN other USING (kafka_offset) WHERE one.date > '2023-11-15'"
    print(*duckdb.execute(f"SELECT count(*), sum(kafka_offset) {joined}").fetchone())
"""


def test_duckdb_reads_two_datasets_of_many_files_at_once(tmp_path: Path) -> None:
    fill(tmp_path, count=40)

    # A process of its own: threads that wait for each other cannot be interrupted.
    command = [sys.executable, "-c", JOIN_BY_DUCKDB, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "18 360\n" * 60
