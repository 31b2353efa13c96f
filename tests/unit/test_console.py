"""What commands say on stderr."""

import logging

from tidewatch.console import Seldom


def said(name: str, message: str, at: float) -> logging.LogRecord:
    record = logging.makeLogRecord({"name": name, "msg": message, "levelno": logging.ERROR})
    record.created = at
    return record


def test_kafkas_client_repeats_itself_seldom() -> None:
    seldom = Seldom()
    times = [100.0, 100.1, 105.0, 111.0, 112.0]
    passed = [at for at in times if seldom.filter(said("aiokafka.consumer.fetcher", "Failed fetch %s", at))]

    assert passed == [100.0, 111.0]


def test_what_is_ours_is_always_said() -> None:
    seldom = Seldom()

    assert all(seldom.filter(said("stream.owners", "took over", at)) for at in (1.0, 1.0, 1.1))
