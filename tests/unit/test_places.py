"""Paths and URIs; buckets on a real S3 server of our own."""

import gzip
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request as Call
from urllib.request import urlopen

import pyarrow.fs as pafs
import pytest

from scorers.errors import ConfigError, InputError, UnavailableError
from sinks.compare import compare
from tests import batches
from tests.batches import live, readings, train, write
from tidewatch.batch.run import Request, prepare, score
from tidewatch.forecast.etl import Request as Etl
from tidewatch.forecast.etl import etl
from tidewatch.places import Place, fetched, put, remove
from tidewatch.servers import free_ports

KEY, SECRET = "AKIATIDEWATCHTEST", "not-to-be-seen"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Moto's server, as a process of its own."""
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urlopen(Call(f"{address}/moto-api/"), timeout=1):
                    break
            except (URLError, OSError):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield address
        process.terminate()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Place:
    """An empty bucket; keys are in the environment alone."""
    for name, value in (
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    place = Place.of(f"s3://b{abs(hash(request.node.name)) % 10**8}", endpoint)
    host = endpoint.partition("://")[2]
    system = pafs.S3FileSystem(endpoint_override=host, scheme="http", allow_bucket_creation=True)
    system.create_dir(place.path)
    return place


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/a/b c", "/a/b c"),
        ("file:///a/b%20c", "/a/b c"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://bucket", "s3://bucket"),
        ("s3://s3/s3/x", "s3://s3/s3/x"),
        ("s3://bucket/2026-*/x.csv", "s3://bucket/2026-*/x.csv"),
    ],
)
def test_paths_and_uris_name_places(text: str, shown: str) -> None:
    assert str(Place.of(text)) == shown


@pytest.mark.parametrize("text", ["gs://b/x", "http://h/x", "file://host/x", "s3://"])
def test_what_is_no_place_of_ours_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="neither a path"):
        Place.of(text)


def test_an_address_with_a_secret_is_refused_and_the_secret_not_told() -> None:
    with pytest.raises(ConfigError) as refusal:
        Place.of(f"s3://{KEY}:{SECRET}@bucket/x")

    assert SECRET not in str(refusal.value)
    assert KEY not in str(refusal.value)


def test_a_folder_is_its_files_but_hidden_ones_and_a_pattern_those_it_fits(tmp_path: Path) -> None:
    for name in ("a/x.csv", "a/_tmp/y.csv", "b/x.csv", "b/.z.csv", "c.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("1")

    assert [file.within for file in Place.of(str(tmp_path)).files()] == ["a/x.csv", "b/x.csv", "c.csv"]
    assert [file.within for file in Place.of(f"{tmp_path}/[ab]").files()] == ["a/x.csv", "b/x.csv"]
    assert [file.within for file in Place.of(f"{tmp_path}/*.csv").files()] == ["c.csv"]
    assert [file.within for file in Place.of(f"{tmp_path}/c.csv").files()] == ["c.csv"]
    with pytest.raises(InputError, match="There is nothing at"):
        Place.of(f"{tmp_path}/*.json").files()


def test_files_go_to_a_bucket_and_come_back(bucket: Place, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"ts,x\n1,2\n" * 3)
    put(tmp_path / "x.csv", bucket.under("deep", "x.csv"))
    (found,) = bucket.files()
    with fetched(found.place, tmp_path / "copy") as path:
        assert path.name == "x.csv"
        assert path.read_bytes() == (tmp_path / "x.csv").read_bytes()

    assert not (tmp_path / "copy").exists()
    assert found.size == 27
    remove(found.place)
    with pytest.raises(InputError):
        bucket.files()


def test_a_batch_from_a_bucket_to_a_bucket_gives_what_the_stream_gave(bucket: Place, tmp_path: Path) -> None:
    current = batches.settings(tmp_path, **{"batch.s3_endpoint": bucket.endpoint})
    train(current)
    path = write(tmp_path / "in", readings(), files=3)
    for file in path.iterdir():
        put(file, bucket.under("in", file.name))
    request = Request(f"{bucket}/in/part-*.parquet", f"{bucket}/out")
    status = score(current, request, prepare(current, request).id, workers=2)
    for found in bucket.under("out").files():
        with fetched(found.place, tmp_path / "copy") as copy:
            put(copy, Place.of(str(tmp_path / "out" / found.within)))

    assert status.failures == 0
    assert compare(tmp_path / "out", live(path, current, tmp_path / "live"), tolerance=1e-9).same
    assert bucket.under("out", "_jobs", f"{status.id}.json").exists()
    kept = [file.read_bytes() for file in (tmp_path / "jobs").rglob("*") if file.is_file()]
    assert not any(SECRET.encode() in text or KEY.encode() in text for text in kept)


def test_the_endpoint_may_come_from_the_environment(bucket: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)

    assert Place.of(str(bucket)).exists()


def test_a_server_that_does_not_answer_is_told_without_secrets(bucket: Place) -> None:
    (port,) = free_ports(1)
    with pytest.raises(UnavailableError, match="does not answer") as error:
        Place(bucket.scheme, bucket.path, f"http://127.0.0.1:{port}").files()

    assert SECRET not in str(error.value)
    assert "AWS_SECRET_ACCESS_KEY" in str(error.value)
    assert SECRET in os.environ["AWS_SECRET_ACCESS_KEY"]


def test_session_logs_are_read_from_a_bucket(bucket: Place, tmp_path: Path) -> None:
    line = b"http,2024-03-01T%02d:00:00Z,,,1,,,,,,,,,,1,10.0.0.1,c\n"
    (tmp_path / "request.csv.gz").write_bytes(gzip.compress(b"".join(line % hour for hour in range(10)) + b"junk"))
    place = bucket.under("logs", "2024", "03", "request.csv.gz")
    put(tmp_path / "request.csv.gz", place)
    current = batches.settings(tmp_path, **{"batch.s3_endpoint": place.endpoint})
    told = etl(current, Etl((str(bucket.under("logs")),), tmp_path / "out"))

    assert (told["hours"], told["rejects"]) == (9, {"columns": 1})
