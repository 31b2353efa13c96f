"""Batch jobs of the service: each in a process of its own, a few at a time, the same as ``tidewatch score`` runs them.

A job that waits or runs when the service ends can be taken up again: the same ``POST /jobs`` with its id, or
``tidewatch score --job-id``.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from typing import Any

import msgspec

from scorers.errors import TidewatchError
from serving.jobs import Fields, Order
from stream.decode import EARLIEST, LATEST
from tidewatch.batch import run as batch
from tidewatch.batch.spec import Span
from tidewatch.groups import Settings
from tidewatch.jobs import Cancelled, Jobs, State


class BatchWork:
    """Runs batch jobs in the background."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._jobs = Jobs(settings.jobs.folder)
        self._pool = ThreadPoolExecutor(settings.serving.batch_parallel, "batch")
        self._lock = threading.Lock()
        self._held: set[str] = set()
        """Jobs that wait or run here."""
        self._stopped: set[str] = set()
        """Those of them that are not to begin."""
        self._closed = False

    def submit(self, order: Order) -> Fields:
        """Take a job on, or up again; see ``serving.jobs.Work``."""
        span = Span(
            EARLIEST if order.since is None else order.since, LATEST if order.until is None else order.until, None
        )
        request = batch.Request(order.source, order.target, devices=order.devices, span=span)
        with self._lock:
            status = batch.prepare(self._settings, request, order.id)
            self._stopped.discard(status.id)
            if status.state not in {State.DONE, State.RUNNING} and status.id not in self._held:
                self._held.add(status.id)
                self._pool.submit(self._run, request, status.id)
        return _fields(status)

    def list(self) -> list[Fields]:
        """All jobs, those of the command line too."""
        return [_fields(status) for status in self._jobs.list()]

    def get(self, name: str) -> Fields:
        """One job."""
        return _fields(self._jobs.get(name))

    def cancel(self, name: str) -> Fields:
        """Ask a job to stop."""
        status = self._jobs.cancel(name)
        with self._lock:
            self._stopped.add(name)
        return _fields(status)

    def close(self) -> None:
        """Stop what runs; what waits stays as it is."""
        self._closed = True
        with self._lock:
            for name in self._held:
                with suppress(TidewatchError):
                    if self._jobs.get(name).state is State.RUNNING:
                        self._jobs.cancel(name)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, request: batch.Request, name: str) -> None:
        try:
            if not self._closed and name not in self._stopped:
                process = get_context("spawn").Process(target=_score, args=(self._settings, request, name))
                process.start()
                process.join()
        finally:
            with self._lock:
                self._held.discard(name)
                self._stopped.discard(name)


def _score(settings: Settings, request: batch.Request, name: str) -> None:
    """What the process of a job does; how it ended is in its status."""
    with suppress(Cancelled, TidewatchError, KeyboardInterrupt):
        batch.score(settings, request, name)


def _fields(status: Any) -> Fields:
    fields: Fields = msgspec.to_builtins(status)
    return fields
