"""The service's log lines: those of a turn of the loop are one write, what cannot wait is written at once."""

import asyncio
import io
import json
import logging
import threading
from collections.abc import Iterator

import pytest

from serving.logs import Turns
from serving.trace import Context, JsonFormatter, tell


class Stream(io.StringIO):
    """Keeps each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)

    @property
    def messages(self) -> list[list[str]]:
        """Messages by write."""
        return [[json.loads(line)["message"] for line in text.splitlines()] for text in self.writes if text]


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def log(stream: Stream) -> Iterator[logging.Logger]:
    handler = Turns()
    handler.setFormatter(JsonFormatter())
    handler.setStream(stream)
    logger = logging.getLogger("tests.turns")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)


def test_lines_of_a_turn_are_one_write(log: logging.Logger, stream: Stream) -> None:
    async def work() -> None:
        log.info("a")
        log.info("b")
        assert stream.messages == []
        await asyncio.sleep(0)
        assert stream.messages == [["a", "b"]]
        log.info("c")

    asyncio.run(work())
    assert stream.messages == [["a", "b"], ["c"]]


def test_errors_and_other_threads_do_not_wait_nor_overtake(log: logging.Logger, stream: Stream) -> None:
    async def work() -> None:
        log.info("a")
        log.error("b")
        assert stream.messages == [["a", "b"]]
        log.info("c")
        thread = threading.Thread(target=log.info, args=("d",))
        thread.start()
        thread.join()
        assert stream.messages[1:] == [["c", "d"]]

    asyncio.run(work())
    log.info("e")
    assert [message for write in stream.messages for message in write] == list("abcde")


def test_nobody_who_reads_is_no_fault(log: logging.Logger, stream: Stream, capsys: pytest.CaptureFixture[str]) -> None:
    stream.close()
    log.info("a")
    log.error("b")
    assert capsys.readouterr().err == ""


def test_a_request_is_told_of_in_whole(log: logging.Logger, stream: Stream) -> None:
    context = Context.of(b"order-66", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    tell(log, "request", {"status": 200, "key": "caf\udce9"}, context)
    line = json.loads(stream.getvalue())

    assert line["request_id"] == "order-66"
    assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert (line["logger"], line["level"], line["status"], line["key"]) == ("tests.turns", "info", 200, "caf\udce9")
    assert line["time"].endswith("+00:00")
