"""Inputs and predictions reach a real Kafka; while it is down requests go on, and what is lost is counted."""

import json
import re
from pathlib import Path

from tests import schema
from tests.live.support import PARTITIONS, eventually, read
from tidewatch.servers import KafkaServer

TOPIC = "service.predictions"


def counted(site: schema.Site) -> dict[str, float]:
    """Predictions that were written and dropped, as the metrics have them."""
    return {
        name: float(value)
        for name, value in re.findall(r"^tidewatch_collected_(\w+)_total (\S+)", site.get("/metrics"), re.MULTILINE)
    }


def scored(site: schema.Site, count: int) -> None:
    sample = json.loads(site.get("/api/v1/service/device-0"))["sample"]
    for number in range(count):
        name = {"x-request-id": f"request-{number}"}
        answer = json.loads(site.get("/api/v1/service/device-0/score", sample, **name))
        assert answer["results"]


def test_predictions_reach_kafka_and_while_it_is_down_requests_go_on(own_kafka: KafkaServer, tmp_path: Path) -> None:
    changes = {
        "kafka.bootstrap": own_kafka.broker.bootstrap,
        "topics.partitions": PARTITIONS,
        "serving.collect": "kafka",
        "serving.canary": 0,
    }
    with schema.running(tmp_path, changes) as site:
        scored(site, 20)
        eventually(lambda: counted(site) == {"written": 20, "dropped": 0}, "all are written")
        messages = read(own_kafka.broker, [TOPIC])
        own_kafka.kill()
        scored(site, 10)
        eventually(lambda: counted(site) == {"written": 20, "dropped": 10}, "what is lost is counted")
        own_kafka.start()
        scored(site, 5)
        eventually(lambda: counted(site)["written"] == 25, "they are written again")
    events = [json.loads(message.value() or b"") for message in messages]
    headers = dict(messages[0].headers() or ())

    assert len(read(own_kafka.broker, [TOPIC])) == 25
    assert sorted(event["request_id"] for event in events) == sorted(f"request-{number}" for number in range(20))
    assert {message.key() for message in messages} == {b"device-0"}
    assert {event["version"] for event in events} == {"v1"}
    assert all(event["outputs"]["score"] and event["inputs"]["features"] for event in events)
    assert (headers["ce_specversion"], headers["ce_type"]) == (b"1.0", b"tidewatch.prediction")
    assert headers["content-type"] == b"application/json"
    assert "Predictions could not be collected" in site.log
