"""Levels of devices: where they lie while they are odd, and the shifts that an operator has accepted.

What is accepted is taken off a device's statistics before the fleet measures them, and what the fleet then says is put
back into the device's own units, so that people read what was measured.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from scorers import levels
from scorers.group import Group
from scorers.statistics import Ints, Statistics
from scorers.verdicts import Verdicts
from stream.contracts import Acceptance, Accepted, Level, Reason
from stream.parse import LARGEST, Fault
from stream.window import Closed

LONGEST_NOTE = 1_000
"""Characters."""
_SETTLED = 60
"""Windows after which what was is forgotten to about 1/e²: a level may take its time to settle."""
_NONE = 0, 0.0
_MOVED = ("mean", "min", "max")
"""What a shift of a metric's level moves, of all that a model looks at."""
_decoder = msgspec.json.Decoder(Acceptance)

Place = tuple[Group, int]
"""Where a model is."""


class Odd(msgspec.Struct, gc=False):
    """Where a device's windows lie since they are odd: those that share no time with the first one.

    That one may lie half before the shift. Of the others the second counts twice as much as the first, and so on.
    """

    first: int
    """End of the first odd window."""
    means: dict[str, tuple[int, float]] = {}
    """By metric, how many windows had it, and its mean over them."""

    def see(self, metrics: Iterable[str], means: Iterable[float]) -> None:
        """Take in a window's means; NaN where it has none."""
        known = self.means
        for name, value in zip(metrics, means, strict=True):
            if value - value == 0:  # finite
                windows, mean = known.get(name, _NONE)
                known[name] = windows + 1, mean + 2.0 / (min(windows, _SETTLED) + 2) * (value - mean)


class RefusedError(Exception):
    """What an operator says cannot be done; ``fault`` tells why."""

    def __init__(self, detail: str, reason: Reason = Reason.NOT_ACCEPTED) -> None:
        super().__init__(detail)
        self.fault: Fault = (reason, detail)


def acceptance(text: bytes) -> Acceptance:
    """What the header of a record says.

    Raises:
        RefusedError: it keeps no contract.
    """
    try:
        word = _decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise RefusedError(f"the acceptance is no use: {error}", Reason.MALFORMED) from error
    if not all(abs(level) <= LARGEST for level in word.levels.values()):
        raise RefusedError("a level is not finite", Reason.NOT_FINITE)
    if len(word.note or "") > LONGEST_NOTE:
        raise RefusedError(f"the note has more than {LONGEST_NOTE} characters", Reason.TOO_LARGE)
    return word


class Levels:
    """Those of one partition's devices, by number."""

    def __init__(self) -> None:
        self.accepted: dict[int, Accepted] = {}
        self.odd: dict[int, Odd] = {}
        self._shift: dict[int, dict[str, float]] = {}
        """What is taken off, by metric, of devices whose models do not know their levels themselves."""

    # --- windows -------------------------------------------------------------------------------

    def see(self, device: int, closed: Closed, row: int) -> None:
        """Take in a window of a device that is not calm."""
        odd = self.odd.get(device)
        if odd is None:
            self.odd[device] = Odd(int(closed.end[row]))
        elif closed.start[row] >= odd.first:
            odd.see(closed.statistics.metrics, closed.statistics.mean[row].tolist())

    def shifted(self, device: Ints) -> list[int]:
        """The rows of devices with a shift in force."""
        if not self._shift:
            return []
        rows: list[int] = np.flatnonzero(np.isin(device, np.fromiter(self._shift, np.int64))).tolist()
        return rows

    def lowered(self, closed: Closed, rows: Sequence[int]) -> Statistics:
        """The statistics as they would be, had no level in these rows shifted."""
        block = closed.statistics
        if not rows:
            return block
        off = np.zeros(block.mean.shape)
        place = {name: column for column, name in enumerate(block.metrics)}
        for row in rows:
            for name, shift in self._shift[int(closed.device[row])].items():
                if name in place:
                    off[row, place[name]] = shift
        return replace(block, **{kind: getattr(block, kind) - off for kind in _MOVED})

    def tell(self, verdicts: Verdicts, closed: Closed, rows: Sequence[int]) -> None:
        """Put into these rows of verdicts what was measured, and what is typical since the shift."""
        block = closed.statistics
        for row in rows:
            shift = self._shift[int(closed.device[row])]
            for at in np.flatnonzero(verdicts.feature[row] >= 0).tolist():
                name, _, kind = verdicts.names[verdicts.feature[row, at]].rpartition(".")
                if kind in _MOVED and name in shift:
                    verdicts.typical[row, at] += shift[name]
                    if name in block.metrics:
                        verdicts.actual[row, at] = getattr(block, kind)[row, block.metrics.index(name)]

    # --- what is accepted ----------------------------------------------------------------------

    def use(self, places: Mapping[int, Place | None]) -> list[int]:
        """Judge by these models of the devices with something accepted; those of which less is accepted now.

        A model to which a level now is nearer than the one before has learned it.
        """
        changed = []
        for device, place in places.items():
            accepted, known = self.accepted[device], _typical(place)
            left = {name: level for name, level in accepted.levels.items() if not _learned(level, known.get(name))}
            if len(left) < len(accepted.levels):
                changed.append(device)
            self._keep(device, msgspec.structs.replace(accepted, levels=left), known)
        return changed

    def _keep(self, device: int, accepted: Accepted, known: Mapping[str, float]) -> None:
        """Judge by what is accepted of a device whose model has these typical levels."""
        self.accepted.pop(device, None)
        self._shift.pop(device, None)
        if accepted.levels:
            self.accepted[device] = accepted
            self._shift[device] = {
                name: level.now - known[name] for name, level in accepted.levels.items() if name in known
            }

    def accept(self, device: int, word: Acceptance, at: int, place: Place | None) -> Accepted:
        """Do as an operator says; what is accepted of the device from now on.

        Raises:
            RefusedError: it cannot be.
        """
        before = self.accepted.get(device, Accepted({}, at))
        if word.revoke:
            accepted = msgspec.structs.replace(before, levels=_revoked(before.levels, word.metrics))
        elif place is None:
            raise RefusedError("the device has no model, so that nothing is typical of it yet; train one")
        else:
            accepted = Accepted(before.levels | self._moved(device, before.levels, word, place), at, word.note)
        self._keep(device, accepted, _typical(place))
        return accepted

    def _moved(self, device: int, before: Mapping[str, Level], word: Acceptance, place: Place) -> dict[str, Level]:
        """The levels that an acceptance changes."""
        group, model = place
        means, shift = word.levels or self._means(device), self._shift.get(device, {})
        level = np.array([means.get(name, np.nan) - shift.get(name, 0.0) for name in group.metrics])
        for name in word.metrics:
            if name not in group.metrics or name not in means:
                raise RefusedError(f"the model does not know {name!r}, or the windows do not have it")
        named = np.isin(group.metrics, word.metrics)
        off = levels.shift(group, model, level, named)
        if not off.any():
            raise RefusedError("no level has moved; what is odd is something else, as the alert's contributors tell")
        if not named.any() and levels.odd(group, model, level - off):
            raise RefusedError("no shift of levels makes these windows typical; train the device anew")
        changed = {}
        for name, typical, more in zip(group.metrics, levels.typical(group, model).tolist(), off.tolist(), strict=True):
            if more:
                now = typical + shift.get(name, 0.0) + more
                changed[name] = Level(before[name].before if name in before else typical, now)
        return changed

    def _means(self, device: int) -> dict[str, float]:
        """Where the windows of the open alert lie."""
        odd = self.odd.get(device)
        if odd is None or not odd.means:
            raise RefusedError("the new level is not known yet; say it again when one more window has closed")
        return {name: mean for name, (_, mean) in odd.means.items()}


def _revoked(before: Mapping[str, Level], names: Sequence[str]) -> dict[str, Level]:
    """What is left of what was accepted."""
    if not before:
        raise RefusedError("no shift of the device is in force")
    if unknown := [name for name in names if name not in before]:
        raise RefusedError(f"no shift of {unknown[0]!r} is in force; those of {', '.join(before)} are")
    return {name: level for name, level in before.items() if names and name not in names}


def _typical(place: Place | None) -> dict[str, float]:
    """The typical levels that a model knows, by metric."""
    if place is None:
        return {}
    group, model = place
    return dict(zip(group.metrics, levels.typical(group, model).tolist(), strict=True))


def _learned(level: Level, typical: float | None) -> bool:
    return typical is not None and abs(typical - level.now) < abs(typical - level.before)
