"""What Ctrl-C and SIGTERM do: before a command has begun, and to what goes on for ever."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGINT, SIGTERM, Signals, default_int_handler, getsignal, signal
from types import FrameType

INTERRUPTED = 130


def at_once() -> None:
    """Let Ctrl-C end the process without more ado: nothing has begun, and what is imported may lose an exception."""
    if getsignal(SIGINT) is default_int_handler:  # and is not ignored, as in the background
        signal(SIGINT, _leave)


def as_usual() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if getsignal(SIGINT) is _leave:
        signal(SIGINT, default_int_handler)


def _leave(_: int, __: FrameType | None) -> None:
    os._exit(INTERRUPTED)


@contextmanager
def until_signalled() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second one ends the process at once."""
    stop = threading.Event()

    def ask(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        signal(Signals(number), ask)

    before = {number: signal(number, ask) for number in (SIGINT, SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal(number, handler)
