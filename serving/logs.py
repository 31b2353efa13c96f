"""The service's logs: JSON lines on stderr, those of one turn of the event loop written together."""

import asyncio
import logging
from contextlib import suppress
from typing import TextIO

from serving.trace import JsonFormatter


class Turns(logging.StreamHandler[TextIO]):
    """Writes the lines of a turn of the event loop at its end, in one call; outside of a loop, and errors, at once."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._due = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line until the end of the turn."""
        try:
            self._lines.append(self.format(record) + self.terminator)
            loop = None if record.levelno >= logging.ERROR else _loop()
            if loop is None:
                self.flush()
            elif not self._due:
                self._due = True
                loop.call_soon(self.flush)
        except Exception:  # noqa: BLE001 - as logging has it
            self.handleError(record)

    def flush(self) -> None:
        """Write what is there."""
        with self.lock:  # type: ignore[union-attr]  # there is one from the beginning
            lines, self._lines, self._due = self._lines, [], False
            with suppress(OSError, ValueError):  # nobody reads any more, and there is no other place to say so
                self.stream.write("".join(lines))
                super().flush()


def _loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def as_json(level: int) -> None:
    """Send this process's logs to stderr as JSON lines, uvicorn's too."""
    handler = Turns()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("serving.requests", "serving.wire"):
        logging.getLogger(name).setLevel(logging.INFO)
