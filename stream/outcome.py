"""Closed windows to verdicts, verdicts to alerts, both to messages."""

from collections import Counter

import numpy as np

from scorers.fleet import Fleet
from stream.alert import Alerting, AlertSpec, Verdict
from stream.contracts import Score, Topics
from stream.encode import Origin, alert_message, score_messages, scores
from stream.message import Message
from stream.names import Names
from stream.window import Closed


class Outcomes:
    """What one partition's windows mean: the fleet in force and the alerts under way; ``names`` are its devices."""

    def __init__(self, source: str, topics: Topics, alert: AlertSpec, names: Names, *, sums: bool) -> None:
        self.alerting = Alerting(alert, source)
        self.counts: Counter[str] = Counter()
        self._source = source
        self._topics = topics
        self._sums = sums
        self._fleet = Fleet.empty()
        self._names = names
        self._model = np.empty(0, np.int64)
        """By device number."""

    def use(self, fleet: Fleet) -> None:
        """Score by ``fleet`` from the next window on."""
        self._fleet = fleet
        self._model = np.empty(0, np.int64)
        self.meet()

    def meet(self) -> None:
        """Find the models of devices that have come since."""
        new = self._names.pick(range(len(self._model), len(self._names)))
        self._model = np.append(self._model, self._fleet.index(new))

    def tell(self, closed: Closed) -> list[Message]:
        """The scores and alerts of closed windows, each device's in time order."""
        verdicts = self._fleet.score(self._model[closed.device], closed.statistics)
        devices = closed.device.tolist()
        names = self._names.pick(devices)
        records = list(scores(closed, verdicts, names, Origin(self._source, self._sums, self._fleet.version)))
        messages = score_messages(self._topics.scores, records)
        if self.alerting.watched or verdicts.anomaly.any():
            for device, score in zip(devices, records, strict=True):
                if score.anomaly or (score.state == "scored" and device in self.alerting.watched):
                    messages += self._alert(device, score)
        self.counts["windows"] += len(names)
        self.counts["scores"] += int(verdicts.scored.sum())
        self.counts["anomalies"] += int(verdicts.anomaly.sum())
        return messages

    def _alert(self, device: int, score: Score) -> list[Message]:
        verdict = Verdict(
            score.device_id,
            score.window_start,
            score.window_end,
            score.anomaly,
            score.score or 0.0,
            score.severity or 0.0,
            score.contributors,
        )
        alert = self.alerting.see(device, verdict, score.model_version)
        if alert is None:
            return []
        self.counts["alerts"] += alert.state == "firing"
        return [alert_message(self._topics.alerts, alert)]
