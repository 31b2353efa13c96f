"""What is scheduled as a person writes it: read from the settings file, and refused where it is wrong."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from scorers.errors import ConfigError
from tidewatch.children import environment
from tidewatch.cli import app
from tidewatch.entries import COMMANDS, Entry, Missed
from tidewatch.settings import load, override

PROJECT = Path(__file__).parents[2]
GOOD = '[schedule.nightly]\ncommand = "train"\ncron = "30 2 * * *"\n'
DAY = datetime(2026, 11, 25, 2, 30, tzinfo=UTC), datetime(2026, 11, 26, 2, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory of its own, and nobody's settings."""
    monkeypatch.chdir(tmp_path)
    for variable in ("TIDEWATCH_KAFKA", "TIDEWATCH_REDIS"):
        monkeypatch.delenv(variable, raising=False)


def entries(toml: str) -> dict[str, Entry]:
    Path("tidewatch.toml").write_text(toml)
    return load(environ={}).settings.schedule.entries


def test_a_table_of_the_settings_file_is_an_entry() -> None:
    toml = (
        GOOD + 'args = ["--workers", "2"]\ntimezone = "Europe/Berlin"\nmissed = "skip"\ntimeout_s = 60\nenabled = false'
    )
    found = entries(toml + '\n[schedule.Merge_2]\ncommand = "compact"\nevery_s = 60\n')

    assert list(found) == ["nightly", "Merge_2"]
    assert found["nightly"] == Entry(
        command="train", args=("--workers", "2"), cron="30 2 * * *", timezone="Europe/Berlin", missed=Missed.SKIP,
        timeout_s=60, enabled=False,
    )  # fmt: skip
    assert found["Merge_2"].timing == "every 60 s"


def test_nothing_is_scheduled_unless_it_is_written() -> None:
    assert entries("[window]\nsize_s = 5\n") == {}


def test_arguments_may_be_one_text_as_a_shell_would_split_it() -> None:
    assert entries(GOOD + "args = '--fleet \"a b\"'\n")["nightly"].args == ("--fleet", "a b")


def test_a_run_is_told_its_period() -> None:
    entry = Entry(
        command="score", args=("--from", "{start}", "--to={end}", "--job-id", "day-{end:%Y-%m-%d}"), every_s=1
    )

    assert entry.words(*DAY) == [
        "score", "--from", "2026-11-25T02:30:00Z", "--to=2026-11-26T02:30:00Z", "--job-id", "day-2026-11-26",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        (GOOD.replace("train", "worker"), f"command is 'worker': cannot be scheduled; choose from {COMMANDS[0]}"),
        ('[schedule.nightly]\ncron = "30 2 * * *"', "schedule.nightly.command: it is missing"),
        (GOOD.replace("30 2 * * *", "30 25 * * *"), "is no cron expression (bad hour); give minute, hour"),
        (GOOD.replace("30 2 * * *", "0 30 2 * * *"), "is no cron expression (wrong number of fields)"),
        (GOOD.replace("30 2 * * *", "@daily"), "is no cron expression (wrong number of fields)"),
        (GOOD.replace("30 2 * * *", "0 0 31 2 *"), "is no cron expression (bad day-of-month)"),
        (GOOD.replace("30 2 * * *", ""), "is no cron expression (wrong number of fields)"),
        (GOOD + "every_s = 60", "schedule.nightly: needs one of cron and every_s, not both"),
        ('[schedule.nightly]\ncommand = "train"', "schedule.nightly: needs one of cron and every_s, not none"),
        ('[schedule.nightly]\ncommand = "train"\nevery_s = 0', "nightly.every_s is 0: Input should be greater"),
        ('[schedule.n]\ncommand = "train"\nevery_s = 9\ntimezone = "Asia/Tokyo"', "timezone is for cron alone"),
        (GOOD + 'timezone = "Mars/Base"', "timezone is 'Mars/Base': is no timezone; give a name of"),
        (GOOD + 'timezone = "../passwd"', "is no timezone"),
        (GOOD + 'missed = "twice"', "schedule.nightly.missed is 'twice'"),
        (GOOD + "timeout_s = 0", "schedule.nightly.timeout_s is 0"),
        (GOOD + 'args = ["{end.__class__}"]', "means nothing; write {start}, {end}"),
        (GOOD + 'args = ["x", 3]', "schedule.nightly.args.1"),
        (GOOD + "corn = 3", "did you mean cron?"),
        (GOOD + "[schedule.nightly.options]\na = 3", "choose from command, args"),
        ("[schedule]\nnightly = 3", "schedule.nightly in tidewatch.toml must be a table"),
        ("[schedule.nightly]\n", "schedule.nightly in tidewatch.toml must be a table"),
        ('[schedule."a b"]\ncommand = "train"\nevery_s = 3', "'a b' is no name for an entry"),
        ('[schedule."../b"]\ncommand = "train"\nevery_s = 3', "is not a setting"),
        ("[scheduler]\nconcurrency = 0", "scheduler.concurrency is 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_fix(toml: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        entries(toml)

    assert told in str(error.value)
    assert "tidewatch.toml" in str(error.value)


def test_the_environment_schedules_nothing() -> None:
    with pytest.raises(ConfigError, match="the settings file says what runs when"):
        load(environ={"TIDEWATCH_SCHEDULE__NIGHTLY__COMMAND": "train"})


def test_children_are_told_how_runs_go_but_not_what_is_scheduled() -> None:
    Path("tidewatch.toml").write_text(GOOD + "[scheduler]\nconcurrency = 3\n")
    given = environment(override(load(environ={}), {"window.size_s": 7}))

    assert {name for name in given if name.startswith("TIDEWATCH_")} == {
        "TIDEWATCH_SCHEDULER__CONCURRENCY",
        "TIDEWATCH_WINDOW__SIZE_S",
    }


def test_config_shows_what_is_scheduled() -> None:
    Path("tidewatch.toml").write_text(GOOD + 'args = ["--workers", "2"]\n')
    rows = {row.field: (row.value, row.origin) for row in load(environ={}).masked()}

    assert rows["schedule.nightly.cron"] == ("30 2 * * *", "file")
    assert rows["schedule.nightly.args"] == ("--workers 2", "file")
    assert rows["schedule.nightly.missed"] == ("once", "default")


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        (GOOD + 'args = ["--worker", "2"]', "schedule.nightly.args: `tidewatch train --worker 2`: No such option"),
        (GOOD + 'args = ["--workers", "0"]', "--workers"),
        (GOOD + 'args = ["--help"]', "only prints help"),
        (GOOD.replace('"train"', '"evaluate"'), "Missing argument"),
        ("", "Nothing is scheduled; write a table [schedule.NAME]"),
        (GOOD + "enabled = false", "Nothing is scheduled"),
    ],
)
def test_wrong_arguments_are_told_before_the_first_run(toml: str, told: str) -> None:
    Path("tidewatch.toml").write_text(toml)
    error = CliRunner().invoke(app, ["schedule", "run"]).exception

    assert isinstance(error, ConfigError)
    assert told in str(error)


def test_a_name_that_is_not_scheduled_is_told_with_those_that_are() -> None:
    Path("tidewatch.toml").write_text(GOOD)
    for words in (["now", "noon"], ["logs", "noon"], ["history", "noon"]):
        error = CliRunner().invoke(app, ["schedule", *words]).exception

        assert isinstance(error, ConfigError)
        assert "there are: nightly" in str(error)


def test_the_schedule_of_docker_compose_is_one() -> None:
    compose = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
    found = entries(compose["configs"]["schedule"]["content"])

    assert {name: entry.command for name, entry in found.items()} == {"train": "train", "compact": "compact"}
    assert CliRunner().invoke(app, ["schedule", "list"]).exit_code == 0


def test_the_schedule_of_the_guide_is_one() -> None:
    guide = (PROJECT / "docs" / "guide.md").read_text()
    toml = "\n".join(re.findall(r"```toml\n(\[schedule.*?)```", guide, re.DOTALL))

    assert list(entries(toml)) == ["train", "compact", "weekly"]
    assert CliRunner().invoke(app, ["schedule", "list"]).exit_code == 0
