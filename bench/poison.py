"""Readings with poison among them: how fast the worker is then, and whether everything ended up where it should."""

import hashlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench.arena import PARTITIONS, Arena
from bench.check import check, committed
from bench.job import SIZE_MS, START, Job
from bench.kinds import KINDS
from bench.measure import Run, measure
from bench.runners import ours
from bench.setup import console, machine
from producers.publish import Target, punctuate
from scorers.errors import ModelError
from stream.kafka import ensure_topics, producer
from tidewatch.rejects import Id

GOOD = 255
"""In place of a kind's number."""
_LARGE = 5_000
_SHARE = 40
"""Of each kind of large records there is no more than so many bytes for each poison message."""
_NAP_S = 0.02
_DEVICE, _TS = "device-00000", 1_700_000_000_000

Kinds = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Case:
    """A job with poison: as many for each reading, just before it, addressed as it is."""

    name: str
    job: Job
    each: int

    @property
    def poison(self) -> int:
        """How many poison messages there are."""
        return self.job.readings * self.each


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one case came to."""

    case: Case
    run: Run
    rejects: dict[str, int]
    """By reason."""
    digest: str
    """Of all windows, in any order."""

    @property
    def rate(self) -> float:
        """Records a second, poison and readings alike."""
        return (self.case.job.readings + self.case.poison) / self.run.seconds


def play(case: Case, arena: Arena) -> Outcome:
    """Fill the topic anew, let the worker do the job, and look at what came out.

    Raises:
        ModelError: a window or a reject is missing, doubled or wrong.
    """
    arena = replace(arena, job=case.job)
    arena.clear(everything=True)
    ensure_topics(arena.broker, arena.topics, partitions=PARTITIONS)
    began = time.monotonic()
    places = _load(case, arena)
    console.print(
        f"{case.name}: loaded {case.job.readings:,} readings and {case.poison:,} poison messages "
        f"in {time.monotonic() - began:.0f} s"
    )
    run = measure(ours.EXACTLY_ONCE, arena)
    checked = check(arena, ours.EXACTLY_ONCE)
    outcome = Outcome(case, run, _audit(arena, places), _digest(arena))
    console.print(
        f"{case.name}: {outcome.rate:,.0f} records/s in {run.seconds:.1f} s; {checked.windows:,} windows and "
        f"{sum(outcome.rejects.values()):,} rejects, each once"
    )
    return outcome


# --- in ----------------------------------------------------------------------------------------


def plan(poison: int, seed: int) -> Kinds:
    """The kinds of ``poison`` messages, mixed: as many of each, but for large ones."""
    sizes = _sizes()
    most = np.where(sizes > _LARGE, poison * _SHARE // np.maximum(sizes, 1), poison)
    count = np.minimum(most, poison // len(KINDS))
    rest = poison - int(count.sum())
    small = np.flatnonzero(sizes <= _LARGE)
    count[small] += rest // len(small)
    count[small[: rest % len(small)]] += 1
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(KINDS), dtype=np.uint8), count))


def _sizes() -> NDArray[np.int64]:
    """Bytes of a message of each kind."""
    return np.array([len(kind.make(_DEVICE, _TS, b"") or b"") for kind in KINDS])


def _load(case: Case, arena: Arena) -> list[bytearray]:
    """What is at each offset of each partition: the number of a kind, or ``GOOD``."""
    places = [bytearray() for _ in range(PARTITIONS)]
    client = producer(arena.broker, delivery_report_only_error=True)
    for key, value, kind in _records(case):
        partition = crc32(key) % PARTITIONS
        while True:
            try:
                client.produce(arena.topics.readings, value, key, partition=partition)
            except BufferError:
                client.poll(_NAP_S)
            else:
                break
        places[partition].append(kind)
    while client.flush(1.0):
        pass
    punctuate(Target(arena.broker, arena.topics.readings), case.job.end)
    return places


def _records(case: Case) -> Iterator[tuple[bytes, bytes | None, int]]:
    """Key, value and kind of every record, in order."""
    kinds = iter(plan(case.poison, case.job.seed).tolist())
    harmless = [number for number in np.flatnonzero(_sizes() <= _LARGE).tolist() if not KINDS[number].history]
    last: dict[bytes, bytes] = {}
    for batch in case.job.batches():
        for key, value, ts in zip(batch.keys, batch.values, batch.ts.tolist(), strict=True):
            device = key.decode()
            for left in range(case.each, 0, -1):
                kind = next(kinds)
                # what a device's history makes bad must meet that history, and its next reading at once;
                # where little came before it, it would be history itself
                if KINDS[kind].history and (left > 1 or ts < START + SIZE_MS):
                    kind = harmless[kind % len(harmless)]
                yield key, KINDS[kind].make(device, ts, last.get(key, b"")), kind
            yield key, value, GOOD
            last[key] = value


# --- out ---------------------------------------------------------------------------------------


def _audit(arena: Arena, places: list[bytearray]) -> dict[str, int]:
    """Rejects by reason.

    Raises:
        ModelError: a poison message is not among them, or twice, or for another reason; or a reading is.
    """
    seen = [np.zeros(len(kinds), np.uint8) for kinds in places]
    reasons, wrong = Counter[str](), Counter[str]()
    for message in committed(arena, arena.topics.rejects):
        headers = dict(message.headers() or ())
        origin = Id.parse(bytes(headers["ce_id"] or b"").decode())
        partition, offset = origin.partition, origin.offset
        kind, reason = places[partition][offset], bytes(headers["tw_reason"] or b"").decode()
        seen[partition][offset] += 1
        reasons[reason] += 1
        if kind == GOOD or origin.topic != arena.topics.readings or KINDS[kind].reason != reason:
            wrong[f"{'a reading' if kind == GOOD else KINDS[kind].name} for {reason}"] += 1
    poisoned = [np.frombuffer(kinds, np.uint8) != GOOD for kinds in places]
    missing = sum(int((there & (times == 0)).sum()) for there, times in zip(poisoned, seen, strict=True))
    doubled = sum(int((times > 1).sum()) for times in seen)
    if wrong or missing or doubled:
        raise ModelError(f"Rejects: {missing} missing, {doubled} doubled, wrong: {dict(wrong)}.")
    return dict(sorted(reasons.items()))


def _digest(arena: Arena) -> str:
    """The same for the same windows in any order."""
    total = 0
    for message in committed(arena, arena.topics.scores):
        record = (message.key() or b"") + b"\0" + (message.value() or b"")
        total += int.from_bytes(hashlib.blake2b(record, digest_size=16).digest(), "big")
    return f"{total % 2**128:032x}"


# --- told --------------------------------------------------------------------------------------


def document(outcomes: Sequence[Outcome], arena: Arena, load: tuple[float, ...]) -> dict[str, Any]:
    """The JSON object; ratios are to the first of ``outcomes``, the clean one.

    Raises:
        ModelError: the same readings made other windows.
    """
    clean = outcomes[0]
    strange = [one.case.name for one in outcomes if one.case.job == clean.case.job and one.digest != clean.digest]
    if strange:
        raise ModelError(f"Windows of the {strange[0]} readings differ from those of the clean ones.")
    return {
        **{one.case.name: _facts(one, clean) for one in outcomes},
        "kinds": len(KINDS),
        "machine": machine(arena.kafka, load),
    }


def _facts(outcome: Outcome, clean: Outcome) -> dict[str, Any]:
    case, run = outcome.case, outcome.run
    records = case.job.readings + case.poison
    return {
        "records_per_s": round(outcome.rate),
        "ratio": round(outcome.rate / clean.rate, 3),
        "readings": case.job.readings,
        "poison": case.poison,
        "seconds": round(run.seconds, 1),
        "cpu_s_per_million": round(run.cpu_s / records * 1e6, 3),
        "kafka_cpu_s_per_million": None if run.kafka_cpu_s is None else round(run.kafka_cpu_s / records * 1e6, 3),
        "peak_mb": round(run.peak_mb, 1),
        "windows": run.windows,
        "rejects": outcome.rejects,
    }


def show(result: Mapping[str, Any]) -> None:
    """Print the table and the machine."""
    out = Console(file=sys.stdout, highlight=False)
    table = Table("", title=f"readings and poison of {result['kinds']} kinds", box=SIMPLE)
    for heading in ("records/s", "÷ clean", "readings", "poison", "CPU s/M", "Kafka s/M", "peak MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    cases = [(name, facts) for name, facts in result.items() if isinstance(facts, dict) and "ratio" in facts]
    for name, facts in cases:
        kafka = facts["kafka_cpu_s_per_million"]
        table.add_row(
            name, f"{facts['records_per_s']:,}", f"{facts['ratio']:.2f}", f"{facts['readings']:,}",
            f"{facts['poison']:,}", f"{facts['cpu_s_per_million']:.2f}", "" if kafka is None else f"{kafka:.2f}",
            f"{facts['peak_mb']:,.0f}",
        )  # fmt: skip
    out.print(table)
    machine = result["machine"]
    out.print(
        "every poison message is in rejects once, for its reason; the poisoned readings' windows are the clean ones'\n"
        f"{machine['kafka']}, Python {machine['python']}, {machine['cores']} cores, load {machine['load'][0]:.1f}",
        soft_wrap=True,
    )
