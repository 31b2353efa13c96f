"""What the doctor sees of real servers."""

from stream.contracts import Topics
from stream.kafka import Broker
from tidewatch.doctor import Finding, RedisFacts, diagnose, probe_kafka, probe_redis
from tidewatch.servers import free_ports
from tidewatch.settings import load


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_topics_as_the_stream_makes_them_are_well_made(kafka: Broker, redis_url: str, topics: Topics) -> None:
    prefix = topics.rejects.removesuffix("rejects")
    flags = {"kafka.bootstrap": kafka.bootstrap, "redis.url": redis_url, "topics.prefix": prefix}
    found = by_name(diagnose(load(flags, environ={}).settings))

    assert {found[name].state for name in ("kafka", "topics", "redis", "packages", "python")} == {"ok"}


def test_redis_is_known_by_what_it_says(redis_url: str) -> None:
    facts = probe_redis(load({"redis.url": redis_url}, environ={}).settings.redis)

    assert isinstance(facts, RedisFacts)
    assert facts.limit == 0


def test_servers_that_do_not_answer_fail_with_the_fix() -> None:
    kafka, store = free_ports(2)
    flags = {"kafka.bootstrap": f"127.0.0.1:{kafka}", "redis.url": f"redis://127.0.0.1:{store}/0"}
    found = by_name(diagnose(load(flags, environ={}).settings))

    assert (found["kafka"].state, found["redis"].state) == ("fail", "fail")
    assert "TIDEWATCH_KAFKA" in found["kafka"].fix
    assert "TIDEWATCH_REDIS" in found["redis"].fix


def test_an_option_librdkafka_does_not_know_is_named() -> None:
    found = probe_kafka(Broker("127.0.0.1:1", {"sasl.pasword": "x"}), Topics())

    assert isinstance(found, Finding)
    assert "sasl.pasword" in found.detail
