"""The Prometheus of docker-compose.yml: its configuration is sound, and its alerts fire when they are to."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.promtool import MISSING, told

PROJECT = Path(__file__).parents[2]
STATUS = 'tidewatch_http_requests_total{job="tidewatch", method="POST", route="/score", status="%d"}'
BUCKET = 'tidewatch_http_request_duration_seconds_bucket{job="tidewatch", method="POST", route="/score", le="%s"}'
CASES: dict[str, tuple[dict[str, str], set[str]]] = {
    "all is well": ({'up{job="tidewatch"}': "1x40", STATUS % 200: "0+600x40", STATUS % 400: "0+600x40"}, set()),
    "it is away": ({'up{job="tidewatch"}': "0x40"}, {"ServiceAway"}),
    "one in fifty is its fault": ({STATUS % 200: "0+490x40", STATUS % 500: "0+10x40"}, {"ServiceAtFault"}),
    "one in two hundred is": ({STATUS % 200: "0+1990x40", STATUS % 500: "0+10x40"}, set()),
    "some take seconds": (
        {BUCKET % 1.0: "0+90x40", BUCKET % 2.5: "0+100x40", BUCKET % "+Inf": "0+100x40"},
        {"ServiceSlow"},
    ),
    "predictions are lost": ({"tidewatch_collected_dropped_total": "0x30 5x10"}, {"PredictionsDropped"}),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Its files, as a container has them."""
    configs = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["configs"]
    for name in ("prometheus", "rules"):
        (tmp_path / f"{name}.yml").write_text(configs[name]["content"].replace("$$", "$"))
    return tmp_path


def test_the_configuration_is_sound(folder: Path) -> None:
    said = told("check", "config", "--syntax-only", folder / "prometheus.yml")
    if said is None:
        pytest.skip(MISSING)
    assert said == ""
    assert told("check", "rules", folder / "rules.yml") == ""


@pytest.mark.parametrize("name", CASES)
def test_alerts_fire_when_they_are_to(folder: Path, name: str) -> None:
    series, firing = CASES[name]
    alerts = {rule["alert"]: rule for rule in yaml.safe_load((folder / "rules.yml").read_text())["groups"][0]["rules"]}
    checked: list[dict[str, Any]] = [
        {"expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)', "eval_time": "35m",
         "exp_samples": [{"labels": "{}", "value": int(alert in firing)}]}
        for alert in alerts
    ]  # fmt: skip
    given = [{"series": one, "values": values} for one, values in series.items()]
    test = {"interval": "1m", "input_series": given, "promql_expr_test": checked}
    (folder / "test.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": [test]}))

    said = told("test", "rules", folder / "test.yml")

    if said is None:
        pytest.skip(MISSING)
    assert said == ""
