"""Closed windows to verdicts, verdicts to alerts, both to messages."""

from collections import Counter
from dataclasses import replace

import numpy as np

from scorers.behaviour import Finding
from scorers.fleet import Fleet
from scorers.follow import FollowSpec, Trails
from scorers.statistics import Ints
from scorers.verdicts import Verdicts
from stream.alert import Alerting, AlertSpec, Verdict
from stream.contracts import Contributor, Topics
from stream.encode import alert_message
from stream.levels import Levels, Place, RefusedError, acceptance
from stream.message import Message, Output
from stream.names import Names
from stream.score import Origin, score_bulk
from stream.window import Closed


class Outcomes:
    """What one partition's windows mean: the fleet in force and the alerts under way; ``names`` are its devices."""

    def __init__(  # noqa: PLR0913 - what windows mean hangs on all of these
        self, source: str, topics: Topics, alert: AlertSpec, follow: FollowSpec, names: Names, *, sums: bool
    ) -> None:
        self.alerting = Alerting(alert, source)
        self.trails = Trails(follow)
        self.levels = Levels()
        self.counts: Counter[str] = Counter()
        self._source = source
        self._topics = topics
        self._sums = sums
        self._fleet = Fleet.empty()
        self._names = names
        self._model = np.empty(0, np.int64)
        """By device number."""

    def use(self, fleet: Fleet) -> list[int]:
        """Score by ``fleet`` from the next window on; the devices of which less is accepted now."""
        self._fleet = fleet
        self._model = np.empty(0, np.int64)
        self.meet()
        return self.settle()

    def settle(self) -> list[int]:
        """Judge by what is accepted, as far as models have not learned it; the devices of which less is now."""
        return self.levels.use({device: self._place(device) for device in self.levels.accepted})

    def _place(self, device: int) -> Place | None:
        """Where a device's model is."""
        model = int(self._model[device])
        return self._fleet.locate(model) if model >= 0 else None

    def meet(self) -> None:
        """Find the models of devices that have come since."""
        new = self._names.pick(range(len(self._model), len(self._names)))
        self._model = np.append(self._model, self._fleet.assign(new))
        self.trails.grow(len(self._names))

    def tell(self, closed: Closed) -> list[Output]:
        """The scores and alerts of closed windows, each device's in time order."""
        shifted = self.levels.shifted(closed.device)
        measured = self._fleet.measure(self._model[closed.device], self.levels.lowered(closed, shifted))
        fresh = closed.end > measured.until
        share = self.trails.follow(closed.device, measured.distance, measured.reach, fresh)
        verdicts = self._fleet.judge(measured, share)
        verdicts = replace(verdicts, severity=self.trails.last(closed.device, verdicts.severity))
        self.levels.tell(verdicts, closed, shifted)
        origin = Origin(self._source, self._sums, self._fleet.version)
        outputs: list[Output] = [
            score_bulk(self._topics.scores, closed, verdicts, self._names.gather(closed.device), origin)
        ]
        rows = self._alarming(closed.device, verdicts)
        findings = self._fleet.find(measured, verdicts.anomaly) if rows else {}
        for row in rows:
            outputs += self._alert(row, closed, verdicts, findings.get(row))
        self.counts["windows"] += len(verdicts)
        self.counts["scores"] += int(verdicts.scored.sum())
        self.counts["scores.by_type"] += int(verdicts.lent.sum())
        self.counts["anomalies"] += int(verdicts.anomaly.sum())
        return outputs

    def _alarming(self, device: Ints, verdicts: Verdicts) -> list[int]:
        """The windows that may change an alert: scored ones of devices that are not calm, or are not to be."""
        watched = np.fromiter(self.alerting.watched, np.int64)
        if not len(watched) and not verdicts.anomaly.any():
            return []
        restless = np.isin(device, np.append(watched, device[verdicts.anomaly]))
        rows: list[int] = np.flatnonzero(verdicts.scored & restless).tolist()
        return rows

    def _alert(self, row: int, closed: Closed, verdicts: Verdicts, finding: Finding | None) -> list[Message]:
        device, anomaly = int(closed.device[row]), bool(verdicts.anomaly[row])
        if not anomaly and device not in self.alerting.watched:
            return []
        verdict = Verdict(
            self._names[device],
            int(closed.start[row]),
            int(closed.end[row]),
            anomaly,
            float(verdicts.score[row]),
            float(verdicts.severity[row]),
            _contributors(verdicts, row),
            finding,
        )
        alert = self.alerting.see(device, verdict, self._fleet.version)
        if device in self.alerting.watched:
            self.levels.see(device, closed, row)
        else:
            self.levels.odd.pop(device, None)
        if alert is None:
            return []
        self.counts["alerts"] += alert.state == "firing"
        return [alert_message(self._topics.alerts, alert)]

    def accept(self, device: int, text: bytes, at: int) -> list[Message]:
        """Do as an operator says of a device whose windows up to ``at`` are closed; the end of its alert, if one fires.

        Raises:
            RefusedError: it cannot be.
        """
        word = acceptance(text)
        if device < 0:
            raise RefusedError("no device of this name was ever heard in this partition")
        if not (word.revoke or word.levels or self.alerting.firing(device)):
            raise RefusedError("no alert of the device is firing")
        accepted = self.levels.accept(device, word, at, self._place(device))
        self.trails.forgive(device)
        self.counts["acceptances"] += 1
        if word.revoke:
            return []
        self.levels.odd.pop(device, None)
        verdict = Verdict(self._names[device], at, at, anomaly=False, score=0.0, severity=0.0, contributors=[])
        alert = self.alerting.accept(device, verdict, self._fleet.version, accepted)
        return [alert_message(self._topics.alerts, alert)] if alert else []


def _contributors(verdicts: Verdicts, row: int) -> list[Contributor]:
    """Those of a window; what it has no value for is NaN, which is encoded as null."""
    numbers = (column[row].tolist() for column in (verdicts.feature, verdicts.share, verdicts.actual, verdicts.typical))
    return [
        Contributor(verdicts.names[feature], *about) for feature, *about in zip(*numbers, strict=True) if feature >= 0
    ]
