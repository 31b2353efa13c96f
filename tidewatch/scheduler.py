"""The scheduler process: APScheduler wakes and queues, our history remembers, one at a time per folder.

APScheduler keeps nothing on disk here. What was missed or cut while no scheduler ran follows from the history and
from the settings file, so neither can contradict the other (docs/adr/0041-the-schedule-is-declared.md).
"""

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, JobExecutionEvent, JobSubmissionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.job import Job
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.date import DateTrigger

from scorers.errors import TidewatchError
from tidewatch.entries import Entry
from tidewatch.history import Outcome, Why
from tidewatch.locks import only
from tidewatch.runner import OVERLAP, Runner, clock
from tidewatch.timetable import EPOCH, LATE, again, due, following, refused

SWEEP_S = 5.0
"""How often runs under way elsewhere are looked after; also wakes APScheduler on a host that slept."""
QUEUED = "the run before waits for its turn; raise scheduler.concurrency"


class Timetable(BaseTrigger):
    """An entry's times as APScheduler asks for them: of those that have passed, the last alone."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """The time after ``previous_fire_time``, or the last missed since."""
        return following(self._entry, now) if previous_fire_time is None else due(self._entry, previous_fire_time, now)

    def __str__(self) -> str:
        return self._entry.timing


class Queue(ThreadPoolExecutor):
    """Threads that each wait for a run; a job is told which of its times it is for, and when that was noticed."""

    def _do_submit_job(self, job: Job, run_times: list[datetime]) -> None:
        job.kwargs = {"scheduled": run_times[-1], "noticed": clock()}
        super()._do_submit_job(job, run_times)


class Daemon:
    """Makes the runs that are due until it is told to stop; ``told`` hears of each: entry, what, and more of it."""

    def __init__(self, runner: Runner, told: Callable[[str, str, str], object]) -> None:
        self._runner = runner
        self._told = told
        self._enabled = {
            name: entry for name, entry in runner.in_force.settings.schedule.entries.items() if entry.enabled
        }
        self._failure: BaseException | None = None
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        executors = {"default": Queue(runner.spec.concurrency)}
        self._scheduler = BackgroundScheduler(executors=executors, job_defaults=defaults, timezone="UTC")
        self._scheduler.add_listener(self._overlapped, EVENT_JOB_MAX_INSTANCES)
        self._scheduler.add_listener(self._failed, EVENT_JOB_ERROR)

    def run(self, stop: threading.Event) -> None:
        """Until ``stop`` is set; then runs under way have their patience to end.

        Raises:
            UnavailableError: another scheduler runs here, or the history cannot be written.
            InputError: the history is of a newer format, or none.
        """
        with only(self._runner.spec.folder):
            now, history = clock(), self._runner.history
            history.forget(set(self._enabled))
            for name, entry in self._enabled.items():
                settled = history.settled(name, entry.timing, now)
                first = due(entry, settled, now)
                self._add(name, Why.SCHEDULED, Timetable(entry), id=name, next_run_time=first)
                self._recover(name)
            self._sweep()
            self._scheduler.start()
            self._told("scheduler", "started", f"{len(self._enabled)} entries in {self._runner.spec.folder}")
            try:
                while not stop.wait(SWEEP_S) and self._failure is None:
                    self._sweep()
                    self._scheduler.wakeup()
            finally:
                self._close()
        if self._failure is not None:
            raise self._failure

    def _close(self) -> None:
        """Wait for the runs under way, or end them at once when told to stop once more.

        The waiting is on an event: a thread whose ``join`` is interrupted counts as ended from then on.
        """
        stop, closed = self._runner.stop, threading.Event()
        stop.asked.set()

        def shut() -> None:
            try:
                self._scheduler.shutdown(wait=True)
            finally:
                closed.set()

        threading.Thread(target=shut).start()
        try:
            self._told("scheduler", "stopping", f"runs have {stop.patience_s:g} s to end")
            closed.wait()
        except KeyboardInterrupt:
            stop.at_once.set()
            closed.wait()
            raise

    def _sweep(self) -> None:
        """Find runs whose runner died, and make them again where the entry wants it."""
        for run in self._runner.sweep():
            self._told(run.entry, Outcome.CUT, f"run {run.id}, {run.reason}")
            self._recover(run.entry)

    def _recover(self, name: str) -> None:
        entry, run = self._enabled.get(name), self._runner.history.last(name)
        if entry is not None and run is not None and again(entry, run, clock()):
            self._add(name, Why.AGAIN, DateTrigger(run.scheduled), id=f"{name} again", replace_existing=True)

    def _add(self, name: str, why: Why, trigger: BaseTrigger, **more: Any) -> None:
        untold = {"scheduled": EPOCH, "noticed": EPOCH}  # the queue will say
        self._scheduler.add_job(self._fire, trigger, [name, why], untold, **more)

    def _fire(self, name: str, why: Why, scheduled: datetime, noticed: datetime) -> None:
        if self._runner.stop.asked.is_set():
            return
        entry, history = self._enabled[name], self._runner.history
        if why is Why.SCHEDULED:
            reason = refused(entry, scheduled, noticed)
            if reason is not None:
                history.tell(name, Outcome.MISSED, reason, scheduled=scheduled, now=clock())
                history.settle(name, scheduled)
                self._told(name, Outcome.MISSED, reason)
                return
            why = Why.MISSED if noticed - scheduled > LATE else why
        self._told(name, why, f"for {scheduled:%Y-%m-%d %H:%M:%S} UTC")
        run = self._runner.make(name, entry, why, scheduled)
        if run is None:
            history.settle(name, scheduled)
            self._told(name, Outcome.SKIPPED, OVERLAP)
        else:
            self._told(name, run.outcome, f"run {run.id}" + (f", {run.reason}" if run.reason else ""))

    def _overlapped(self, event: JobSubmissionEvent) -> None:
        name, scheduled, history = event.job_id, event.scheduled_run_times[-1], self._runner.history
        try:
            last = history.last(name)
            reason = OVERLAP if last is not None and last.outcome is Outcome.RUNNING else QUEUED
            if history.tell(name, Outcome.SKIPPED, reason, scheduled=scheduled, now=clock()):
                self._told(name, Outcome.SKIPPED, reason)
            if reason is OVERLAP:
                history.settle(name, scheduled)
        except TidewatchError as error:
            self._failure = error

    def _failed(self, event: JobExecutionEvent) -> None:
        self._failure = event.exception
