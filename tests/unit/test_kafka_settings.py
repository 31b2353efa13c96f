"""How Kafka is reached: what is configured, what wins, and what is never shown."""

from dataclasses import fields
from typing import Any

import pytest

from scorers.errors import ConfigError
from stream import app
from stream.contracts import Topics
from stream.kafka import MAX_MESSAGE_BYTES, MAX_REJECT_BYTES, Broker, new_topics, unreachable

SECRET = "hunter2"
SECURE = Broker("kafka:9092", {"security.protocol": "SASL_SSL", "sasl.password": SECRET})


def test_secrets_are_never_shown() -> None:
    told = unreachable(SECURE, ValueError("refused"))

    assert SECRET not in f"{SECURE!r} {SECURE} {told} {told!r}"
    assert "kafka:9092" in repr(SECURE)


def test_underscores_stand_for_dots() -> None:
    assert Broker("b:1").config(group_id="g", session_timeout_ms=5) == {
        "bootstrap.servers": "b:1",
        "group.id": "g",
        "session.timeout.ms": 5,
    }


def test_what_a_person_configured_wins_over_our_defaults() -> None:
    broker = Broker("b:1", {"socket.timeout.ms": "7"})

    assert broker.config(socket_timeout_ms=10_000)["socket.timeout.ms"] == "7"


def test_every_topic_is_made_with_partitions_and_a_size_limit() -> None:
    topics = Topics.prefixed("p.")
    made = {topic.topic: topic for topic in new_topics(topics, partitions=5, replication=3)}

    assert set(made) == set(topics.names()) == {f"p.{field.default}" for field in fields(Topics)}
    assert {(topic.num_partitions, topic.replication_factor) for topic in made.values()} == {(5, 3)}
    sizes = {name: int((topic.config or {})["max.message.bytes"]) for name, topic in made.items()}
    assert sizes.pop(topics.rejects) == MAX_REJECT_BYTES
    assert set(sizes.values()) == {MAX_MESSAGE_BYTES}


def test_only_states_are_compacted() -> None:
    topics = Topics()
    policies = {topic.topic: (topic.config or {}).get("cleanup.policy") for topic in new_topics(topics, partitions=1)}

    assert {name for name, policy in policies.items() if policy} == {topics.state, topics.load}


def test_a_broker_that_does_not_answer_is_told_with_the_variable_that_names_it() -> None:
    told = unreachable(Broker("kafka:9092"), ValueError("refused"))

    assert told.retryable
    assert "'kafka:9092'" in str(told)
    assert "TIDEWATCH_KAFKA" in str(told)


# --- the same settings for Faust's client ------------------------------------------------------


def test_a_plain_broker_needs_no_credentials() -> None:
    assert app.credentials({}) is None
    assert app.credentials({"security.protocol": "plaintext"}) is None


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_a_login_is_handed_on(protocol: str, mechanism: str) -> None:
    options = {
        "security.protocol": protocol,
        "sasl.mechanism": mechanism,
        "sasl.username": "u",
        "sasl.password": SECRET,
    }
    login: Any = app.credentials(options)

    assert (login.username, login.password, login.mechanism.value) == ("u", SECRET, mechanism)
    assert (login.ssl_context is not None) == protocol.endswith("SSL")
    assert SECRET not in repr(login)


def test_encryption_without_a_login_is_handed_on() -> None:
    found: Any = app.credentials({"security.protocol": "SSL"})

    assert found.context is not None


def test_a_mechanism_that_one_client_lacks_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"kafka\.options sasl\.mechanism 'GSSAPI'"):
        app.credentials({"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "GSSAPI"})
