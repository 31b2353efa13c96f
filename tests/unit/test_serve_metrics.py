"""What Prometheus is told of the service, as its own tool reads it."""

import pytest

from tests import schema
from tests.promtool import MISSING, complaints
from tidewatch import smoke


def test_the_page_of_a_service_that_was_asked_much_is_clean(tmp_path_factory: pytest.TempPathFactory) -> None:
    if complaints("") is None:
        pytest.skip(MISSING)
    with schema.running(tmp_path_factory.mktemp("serve")) as site:
        caller = smoke.Caller(site.url, site.keys["admin"], None)
        failed = [step for step in smoke.steps(caller, None) if step.fault]
        for path in ("/devices", "/alerts?which=log", "/devices/device-0/history?format=csv", "/jobs", "/openapi.json"):
            site.get(path)
        page = site.get("/metrics")

    assert not failed
    assert "tidewatch_collected_written" in page
    assert "tidewatch_http_requests_total" in page
    assert complaints(page) == ""
