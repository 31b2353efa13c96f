"""`tidewatch load models` and what belongs to it: which forecasters there are, and which is in force."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scorers.errors import ConfigError, ForecasterFileError, InputError
from scorers.forecast import pack
from tests.loads import DAY_MS, START
from tests.teaching import FILE, made, place, registry, run, trained  # noqa: F401 - fixtures
from tidewatch.cli import app
from tidewatch.follower import Follower
from tidewatch.forecast.record import FORECASTERS, forecasters
from tidewatch.settings import load as load_settings


def test_versions_are_listed_promoted_and_rolled_back() -> None:
    first = trained("--model", "boosting")
    second = trained("--model", "forest", "--force")
    listed = json.loads(run("load", "models", "--json")[1])

    assert [(one["number"], one["aliases"]) for one in listed] == [(2, ["champion"]), (1, [])]
    assert listed[1]["metrics"]["test_accuracy"] == first["test"]["accuracy"]
    assert "champion" in run("load", "models")[1]
    assert json.loads(run("load", "rollback", "--json")[1])["aliases"] == ["champion"]
    assert pack.load(FILE).version == first["version"]
    with pytest.raises(InputError, match="No version of load was in force before"):
        run("load", "rollback")
    code, shown = run("load", "promote", "2", "--force")
    assert (code, "version 2 is in force" in shown) == (0, True)
    assert pack.load(FILE).version == second["version"]


def test_two_versions_are_compared_on_hours_that_neither_has_learned_from() -> None:
    split = START + 16 * DAY_MS
    trained("--model", "boosting", "--split", str(split))
    trained("--model", "boosting", "--split", str(split + 3 * DAY_MS), "--force")
    found = json.loads(run("load", "compare", "1", "champion", "--json")[1])

    assert found["since"] >= split + 3 * DAY_MS
    assert not found["seen"]
    assert [found[side]["version"] for side in ("champion", "challenger")] == [1, 2]
    assert found["champion"]["rows"] == found["challenger"]["rows"]
    assert found["won"] == (found["challenger"]["rps"] < found["champion"]["rps"])
    code, shown = run("load", "compare", "1", "champion")
    assert (code, "is better" in shown) == (0, True)
    earlier = json.loads(run("load", "compare", "1", "2", "--since", str(split), "--json")[1])
    assert earlier["seen"]
    assert earlier["champion"]["rows"] > found["champion"]["rows"]
    with pytest.raises(InputError, match=r"Fewer than 48 hours.*--since"):
        run("load", "compare", "1", "2", "--since", str(START + 400 * DAY_MS))
    with pytest.raises(InputError, match="99"):
        run("load", "compare", "1", "99")


def test_versions_that_part_classes_elsewhere_are_not_compared() -> None:
    trained("--model", "boosting")
    trained("--model", "boosting", "--quantiles", "0.6,0.9", "--force")
    with pytest.raises(ConfigError, match="part classes at other loads, 100, 400 and"):
        run("load", "compare", "1", "2")


def test_a_version_is_deleted_unless_it_is_in_force() -> None:
    trained("--model", "boosting")
    trained("--model", "forest", "--force")

    with pytest.raises(ConfigError, match="Version 2 is in force"):
        run("load", "delete", "champion", "--yes")
    code, _ = run("load", "delete", "1")  # nobody says yes
    assert code == 1
    assert json.loads(run("load", "delete", "1", "--yes", "--json")[1]) == {"deleted": 1}
    assert [one.number for one in registry().versions()] == [2]


def test_a_version_that_lost_is_promoted_only_by_force() -> None:
    trained("--model", "boosting")
    lost = trained("--model", "boosting")
    shown = json.loads(run("load", "models", "challenger", "--json")[1])

    assert shown["training"]["reasons"] == lost["reasons"]
    assert shown["params"]["model"] == "ordinal"
    with pytest.raises(ConfigError, match=r"Version 2 should not be in force.*no better.*--force"):
        run("load", "promote", "challenger")
    assert pack.load(FILE).version != lost["version"]
    run("load", "promote", "challenger", "--force")
    assert pack.load(FILE).version == lost["version"]
    assert [one.aliases for one in registry().versions()] == [("champion",), ()]


def test_a_version_that_was_tampered_with_is_not_put_in_force() -> None:
    first = trained("--model", "boosting")
    trained("--model", "forest", "--force")
    champion = FILE.read_bytes()
    (stored,) = (
        path for path in Path("var/models").rglob("forecaster.twf") if first["version"].encode() in path.read_bytes()
    )
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.write_bytes(content)

    for words in (("rollback",), ("promote", "1", "--force")):
        with pytest.raises(ForecasterFileError, match="changed after it was written"):
            run("load", *words)
    assert FILE.read_bytes() == champion
    assert registry().version("champion").number == 2


def test_without_a_registry_there_are_no_versions() -> None:
    with pytest.raises(ConfigError, match=r"models\.registry is empty"):
        run("--set", "models.registry=", "load", "models")
    assert "run `tidewatch load train`" in CliRunner().invoke(app, ["load", "models"]).stderr
    with pytest.raises(InputError, match="none yet; run `tidewatch load train`"):
        run("load", "promote", "1")


def test_a_follower_of_forecasters_fetches_what_its_alias_names(tmp_path: Path) -> None:
    models = load_settings().settings.models.model_copy(update={"follow": "champion"})
    target = tmp_path / "elsewhere" / "forecaster.twf"
    follower = Follower(forecasters(models), target, FORECASTERS)
    follower.look()
    assert not target.exists()

    first = trained("--model", "boosting")
    follower.look()
    assert pack.load(target).version == first["version"]
    trained("--model", "forest", "--force")
    run("load", "rollback")
    follower.look()
    assert pack.load(target).version == first["version"]
