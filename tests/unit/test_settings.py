"""Settings: four sources in order of strength, every value with its origin, every mistake in a sentence."""

import re
import tomllib
from pathlib import Path

import pytest

from scorers.errors import ConfigError
from tidewatch.entries import Entry
from tidewatch.groups import Settings
from tidewatch.reference import example, page
from tidewatch.settings import InForce, described, load

PROJECT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory of its own, so that nobody's tidewatch.toml counts."""
    monkeypatch.chdir(tmp_path)


def shown(in_force: InForce) -> dict[str, str]:
    return {row.field: row.value for row in in_force.masked()}


def test_defaults_hold_where_nothing_is_set() -> None:
    in_force = load(environ={})

    assert in_force.settings == Settings()
    assert {row.origin for row in in_force.masked()} == {"default"}


def test_each_source_is_stronger_than_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "tidewatch.toml").write_text("[alerting]\nk = 3\nn = 4\nclear = 1\n")
    environ = {"TIDEWATCH_ALERTING__N": "5", "TIDEWATCH_ALERTING__K": "4"}
    in_force = load({"alerting.n": 6, "window.size_s": None}, environ=environ)
    alerting = in_force.settings.alerting

    #       default  file  env  flag
    # clear    0       1               -> 1
    # k        2       3    4          -> 4
    # n        3       4    5    6     -> 6
    assert (alerting.clear, alerting.k, alerting.n) == (1, 4, 6)
    assert [in_force.origin(f"alerting.{name}") for name in ("clear", "k", "n")] == ["file", "env", "flag"]
    assert not in_force.configured("window.size_s")


def test_the_short_names_stand_for_kafka_and_redis() -> None:
    in_force = load(environ={"TIDEWATCH_KAFKA": "a:1,b:2", "TIDEWATCH_REDIS": "redis://c:3/0"})

    assert in_force.settings.kafka.broker().bootstrap == "a:1,b:2"
    assert in_force.settings.redis.url.get_secret_value() == "redis://c:3/0"
    assert in_force.configured("kafka.bootstrap")


def test_an_empty_variable_is_an_unset_one() -> None:
    assert not load(environ={"TIDEWATCH_KAFKA": ""}).configured("kafka.bootstrap")


def test_other_programs_variables_are_left_alone() -> None:
    environ = {"TIDEWATCH_DATA": "/data", "TIDEWATCH_TEST_KAFKA": "a:1", "WINDOW__SIZE_S": "x"}

    assert load(environ=environ).settings == Settings()


def test_kafka_options_come_from_the_file_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[kafka.options]\n"security.protocol" = "SASL_SSL"\n')
    in_force = load(config=file, environ={"TIDEWATCH_KAFKA__OPTIONS__SASL_PASSWORD": "hunter2"})

    expected = {"security.protocol": "SASL_SSL", "sasl.password": "hunter2"}
    assert in_force.settings.kafka.broker().options == expected


def test_secrets_are_masked_wherever_settings_are_shown() -> None:
    environ = {
        "TIDEWATCH_KAFKA__OPTIONS__SASL_PASSWORD": "hunter2",
        "TIDEWATCH_REDIS": "rediss://me:hun/ter@2@cache:6379/0?password=hunter2",
    }
    in_force = load(environ=environ)
    told = f"{in_force.masked()} {in_force.settings!r} {in_force!r}"

    assert "hunter2" not in told
    assert "hun/ter" not in told
    assert shown(in_force)["redis.url"] == "rediss://********@cache:6379/0?password=********"
    assert shown(in_force)["kafka.options"] == "sasl.password=********"


def test_seconds_are_given_as_whole_milliseconds() -> None:
    settings = load({"window.size_s": 0.3, "window.hop_s": 0.1, "window.grace_s": 1.0005}, environ={}).settings

    assert (settings.window.size_ms, settings.window.hop_ms, settings.window.grace_ms) == (300, 100, 1000)


def test_without_a_hop_windows_lie_side_by_side() -> None:
    assert load({"window.size_s": 60}, environ={}).settings.window.hop_ms == 60_000


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"TIDEWATCH_WINDOW__SIZE_S": "wide"}, r"window.size_s is 'wide': .*number.* \(set in TIDEWATCH_"),
        ({"TIDEWATCH_WINDOW__GRACE_S": "nan"}, r"window.grace_s is 'nan'"),
        ({"TIDEWATCH_WINDOW__SIZES": "1"}, r"'window.sizes' in TIDEWATCH_.* did you mean window.size_s\?"),
        ({"TIDEWATCH_WINDOW_SIZE_S": "1"}, r"write TIDEWATCH_WINDOW__SIZE_S, with two underscores"),
        ({"TIDEWATCH_WINDOW__HOP_S": "30"}, r"hop_s \(30\) must not exceed size_s \(10\).*WINDOW__HOP_S"),
        ({"TIDEWATCH_ALERTING__K": "9"}, r"clear < k <= n must hold, not clear=0, k=9, n=3"),
        ({"TIDEWATCH_KAFKA": "kafka"}, r"kafka.bootstrap is 'kafka': should be: Brokers as `host:port`"),
        ({"TIDEWATCH_REDIS": "cache:6379"}, r"redis.url: must begin with redis://"),
        ({"TIDEWATCH_KAFKA__OPTIONS": "sasl"}, r"kafka.options in TIDEWATCH_.* needs an option's name"),
        ({"TIDEWATCH_TRAINING__MIN_WINDOWS": "5000"}, r"min_windows \(5000\) must not exceed max_windows \(2000\)"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load(environ=environ)


def test_a_wrong_secret_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        load(environ={"TIDEWATCH_REDIS": "hunter2@cache"})

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[window]\nsize_s = 'x'\n", r"window.size_s is 'x': .* \(set in mine.toml\)"),
        ("[windows]\nsize_s = 1\n", r"'windows.size_s' in mine.toml is not a setting; did you mean window.size_s"),
        ("kafka = 'a:1'\n", r"'kafka' in mine.toml is not a setting"),
        ("[window\n", r"'mine.toml' is not TOML"),
    ],
)
def test_a_mistake_in_the_file_names_the_file(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "mine.toml").write_text(text)

    with pytest.raises(ConfigError, match=sentence):
        load(config=Path("mine.toml"), environ={})


def test_a_named_file_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"'gone.toml' cannot be read .*--config"):
        load(config=Path("gone.toml"), environ={})


def test_every_setting_is_described() -> None:
    assert all(description.endswith((".", "`")) for *_, description in described())


def test_the_documents_are_up_to_date() -> None:
    assert (PROJECT / "docs" / "settings.md").read_text() == page(), "run scripts/reference"
    assert (PROJECT / "tidewatch.example.toml").read_text() == example(), "run scripts/reference"


def test_the_example_is_valid_when_uncommented(tmp_path: Path) -> None:
    text = re.sub("^#(?! )", "", example(), flags=re.MULTILINE)
    (tmp_path / "tidewatch.toml").write_text(text)

    tables = tomllib.loads(text)
    assert set(tables.pop("schedule")["nightly"]) == set(Entry.model_fields) - {"every_s"}
    assert sum(len(table) for table in tables.values()) == len(list(described()))
    assert load(environ={}).configured("training.nu")
