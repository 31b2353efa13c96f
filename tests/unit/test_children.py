"""Commands of ours as child processes: under the same settings, and ended with us."""

import json
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from scorers.errors import UnavailableError
from tidewatch.children import Child, environment
from tidewatch.settings import InForce, load, override

FLAGS = {
    "window.size_s": 5,
    "worker.fleet": Path("some where/fleet.arrow"),
    "redis.url": "redis://:hunter2@here:1/0",
    "kafka.options.sasl.password": "hunter2",
    "kafka.options.security.protocol": "SASL_SSL",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory of its own, and nobody's settings."""
    monkeypatch.chdir(tmp_path)
    for variable in ("TIDEWATCH_KAFKA", "TIDEWATCH_REDIS"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def in_force() -> InForce:
    return load(FLAGS, environ={})


def shown(in_force: InForce) -> dict[str, str]:
    return {row.field: row.value for row in in_force.masked()}


def test_a_child_reads_the_settings_that_are_in_force_here(in_force: InForce) -> None:
    child = load(environ=environment(in_force))

    assert child.settings == in_force.settings


def test_a_child_outranks_a_file_with_what_was_given_here(in_force: InForce) -> None:
    Path("tidewatch.toml").write_text("[window]\nsize_s = 60\nhop_s = 1\n")
    child = load(environ=environment(in_force))

    assert (child.settings.window.size_s, child.settings.window.hop_s) == (5, 1)


def test_settings_of_ours_that_are_no_longer_in_force_are_not_inherited(
    in_force: InForce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEWATCH_WINDOW__GRACE_S", "77")

    assert load(environ=environment(in_force)).settings.window.grace_s == 2


def test_changes_leave_the_other_settings_as_they_are(in_force: InForce) -> None:
    changed = override(in_force, {"window.size_s": 9, "topics.prefix": "x."})
    before, after = shown(in_force), shown(changed)

    assert {name for name in after if after[name] != before[name]} == {"window.size_s", "topics.prefix"}
    assert isinstance(changed.settings.redis.url, SecretStr)


def test_a_child_that_ends_by_itself_is_told_with_the_end_of_its_log(in_force: InForce, tmp_path: Path) -> None:
    words = ["--set", "nonsense", "config"]
    with Child(in_force, tmp_path / "child.log", *words) as child:
        process = child._process  # noqa: SLF001 - to wait for its end without a sleep
        assert process is not None
        process.wait(60)

        with pytest.raises(UnavailableError, match="ended with code 2:") as told:
            child.check()
    assert "group.name=value" in str(told.value)


def test_secrets_are_in_no_list_of_processes(in_force: InForce, tmp_path: Path) -> None:
    with Child(in_force, tmp_path / "child.log", "config", "--json") as child:
        process = child._process  # noqa: SLF001 - as above
        assert isinstance(process, subprocess.Popen)
        listed = Path(f"/proc/{process.pid}/cmdline").read_text()
        process.wait(60)
    rows = {row["field"]: row for row in json.loads(child.tail())}

    assert "hunter2" not in listed + child.tail()
    assert rows["redis.url"]["origin"] == "env"
