"""k of n: an alert fires when k of a device's last n windows are anomalous, and ends when few are.

Pure and by event time: windows in, changes of state out. A calm device costs nothing here.
"""

from dataclasses import dataclass

import msgspec

from scorers.behaviour import Behaviour, Evidence, Finding, tell
from scorers.errors import ConfigError
from stream.contracts import Accepted, Alert, Contributor


@dataclass(frozen=True, slots=True)
class AlertSpec:
    """Fire at ``k`` anomalous windows of the last ``n``; resolve at ``clear`` or fewer (hysteresis).

    Raises:
        ConfigError: the three do not fit together.
    """

    k: int = 2
    n: int = 3
    clear: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.clear < self.k <= self.n:
            raise ConfigError(f"alert needs 0 <= clear < k <= n, not clear={self.clear}, k={self.k}, n={self.n}.")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One scored window of one device, as far as alerts care."""

    device_id: str
    start: int
    end: int
    anomaly: bool
    score: float
    severity: float
    contributors: list[Contributor]
    finding: Finding | None = None
    """What it shows, if it is an anomaly."""


class Watch(msgspec.Struct):
    """What is remembered of one device that is not calm; travels in ``device.state``."""

    recent: list[int | None] = []
    """Starts of the last n windows that were anomalous, None for the calm ones."""
    since: int | None = None
    """Start of the first anomalous window of the firing alert; None while none fires."""
    score: float = 0.0
    severity: float = 0.0
    evidence: dict[str, Evidence] = {}
    """What the anomalous windows showed, by metric."""
    behaviour: Behaviour | None = None
    """What that comes to."""
    metric: str | None = None


class Alerting:
    """The alert state of one partition's devices."""

    def __init__(self, spec: AlertSpec, source: str) -> None:
        self._spec = spec
        self._source = source
        self.watched: dict[int, Watch] = {}
        """Devices that are not calm, by number."""

    def see(self, device: int, verdict: Verdict, version: str | None) -> Alert | None:
        """The change of state this window brings, if any; windows of a device come in order."""
        watch = self.watched.setdefault(device, Watch())
        watch.recent = [*watch.recent, verdict.start if verdict.anomaly else None][-self._spec.n :]
        hits = [start for start in watch.recent if start is not None]
        if watch.since is not None or verdict.anomaly:
            watch.score, watch.severity = max(watch.score, verdict.score), max(watch.severity, verdict.severity)
        if verdict.finding:
            if watch.since is None and len(hits) == 1:
                watch.evidence = {}  # what came before is no part of this
            watch.behaviour, watch.metric = tell(watch.evidence, verdict.finding, verdict.end)
        alert = None
        if watch.since is None and len(hits) >= self._spec.k:
            watch.since = hits[0]
            alert = self._alert("firing", watch, verdict, version)
        elif watch.since is not None and len(hits) <= self._spec.clear:
            alert = self._alert("resolved", watch, verdict, version)
            watch.since, watch.score, watch.severity = None, 0.0, 0.0
            watch.evidence, watch.behaviour, watch.metric = {}, None, None
        if not hits and watch.since is None:
            del self.watched[device]
        return alert

    def firing(self, device: int) -> bool:
        """Whether an alert of the device is."""
        watch = self.watched.get(device)
        return watch is not None and watch.since is not None

    def accept(self, device: int, verdict: Verdict, version: str | None, accepted: Accepted) -> Alert | None:
        """Begin anew with a device that is well as it is; the end of its alert, if one is firing."""
        watch = self.watched.pop(device, None)
        if watch is None or watch.since is None:
            return None
        return msgspec.structs.replace(self._alert("resolved", watch, verdict, version), accepted=accepted)

    def _alert(self, state: str, watch: Watch, verdict: Verdict, version: str | None) -> Alert:
        return Alert(
            alert_id=f"{self._source}/{verdict.device_id}/{watch.since}",
            device_id=verdict.device_id,
            source=self._source,
            state="firing" if state == "firing" else "resolved",
            since=watch.since or 0,
            at=verdict.end,
            score=watch.score,
            severity=watch.severity,
            contributors=verdict.contributors,
            model_version=version,
            behaviour=watch.behaviour,
            metric=watch.metric,
        )
