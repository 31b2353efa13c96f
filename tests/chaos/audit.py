"""The account: what came out against the truth, and against an undisturbed run on the very same log."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import redis
from confluent_kafka import Message

from sinks.compare import TableDifference, compare
from stream.contracts import Score, Topics
from stream.kafka import Broker
from tests.chaos.load import METRICS, Truth, short
from tidewatch.tail import gather

TOPICS = Topics()
OUTPUTS = (TOPICS.scores, TOPICS.alerts, TOPICS.rejects)
EXAMPLES = 5
CLOSE = 1e-9


@dataclass(slots=True)
class Part:
    """What is wrong with one kind of output, and a few examples."""

    name: str
    checked: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, what: str, fault: str, times: int = 1) -> None:
        """Count something that is ``lost``, ``doubled`` or ``wrong``."""
        setattr(self, fault, getattr(self, fault) + times)
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{fault}: {what}")

    @property
    def clean(self) -> bool:
        """Whether nothing is."""
        return not (self.lost or self.doubled or self.wrong)


@dataclass(slots=True)
class Emitted:
    """Every committed output of one broker: identity to how often, and a digest of what."""

    times: Counter[tuple[str, str]] = field(default_factory=Counter)
    digests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    scores: list[Score] = field(default_factory=list)
    """Of readings."""
    rejects: Counter[tuple[bytes, bytes, str]] = field(default_factory=Counter)

    @classmethod
    def of(cls, broker: Broker, *, whole: bool) -> "Emitted":
        """Read it all; ``whole`` keeps scores and rejects to be compared with the truth."""
        found = cls()
        for message in gather(broker, OUTPUTS):
            found.add(message, whole=whole)
        return found

    def add(self, message: Message, *, whole: bool) -> None:
        """Take in one record."""
        headers = _headers(message)
        key, value = message.key() or b"", message.value() or b""
        identity = (message.topic() or "", headers["ce_id"].decode())
        self.times[identity] += 1
        self.digests[identity] = blake2b(repr((key, value, sorted(headers.items()))).encode()).digest()
        if not whole:
            return
        if message.topic() == TOPICS.scores and headers["ce_source"].decode() == TOPICS.readings:
            self.scores.append(msgspec.json.decode(value, type=Score))
        elif message.topic() == TOPICS.rejects and headers["ce_source"].decode() == TOPICS.readings:
            self.rejects[(key, short(value), headers["tw_reason"].decode())] += 1


def _headers(message: Message) -> dict[str, bytes]:
    return {name: bytes(value or b"") for name, value in dict(message.headers() or ()).items()}


def log(truth: Truth, records: int, partitions: int) -> Part:
    """What the input topics hold against what was sent, and the punctuation that ended them."""
    part = Part("the input log", records)
    missing = truth.sent + truth.sessions + 2 * partitions - records
    if missing:
        part.note(f"{missing} records", "lost" if missing > 0 else "doubled", abs(missing))
    return part


def against_twin(found: Emitted, twin: Emitted) -> list[Part]:
    """Every output against the undisturbed run's, byte by byte."""
    parts = []
    for topic in OUTPUTS:
        part = Part(topic)
        for identity in found.times.keys() | twin.times.keys():
            if identity[0] == topic:
                _weigh(part, identity[1], found, twin, identity)
        parts.append(part)
    return parts


def _weigh(part: Part, name: str, found: Emitted, twin: Emitted, identity: tuple[str, str]) -> None:
    part.checked += 1
    times, wanted = found.times[identity], twin.times[identity]
    if times < wanted:
        part.note(name, "lost", wanted - times)
    elif times > wanted:
        part.note(name, "doubled" if wanted else "wrong", times - wanted)
    elif found.digests[identity] != twin.digests[identity]:
        part.note(name, "wrong")


def against_truth(found: Emitted, truth: Truth) -> list[Part]:
    """Windows against pandas, rejects against what was sent to be rejected."""
    return [_windows(found.scores, truth.windows()), _rejects(found, truth)]


def _windows(scores: Iterable[Score], wanted: pd.DataFrame) -> Part:
    part = Part("windows against the truth", len(wanted))
    seen: Counter[tuple[str, int]] = Counter()
    expected = {key: tuple(row) for key, row in zip(wanted.index, wanted.to_numpy(), strict=True)}
    for score in scores:
        key = (score.device_id, score.window_start)
        seen[key] += 1
        if key not in expected or not _same(score, expected[key]):
            part.note(str(key), "wrong")
    for key in expected.keys() - seen.keys():
        part.note(str(key), "lost")
    for key, times in seen.items():
        if times > 1:
            part.note(str(key), "doubled", times - 1)
    return part


def _same(score: Score, row: tuple[float, ...]) -> bool:
    told = [float(score.count)]
    for name in METRICS:
        metric = score.metrics[name]
        told += [metric.mean, metric.min, metric.max]
    return all(abs(left - right) <= CLOSE * max(1.0, abs(right)) for left, right in zip(told, row, strict=True))


def _rejects(found: Emitted, truth: Truth) -> Part:
    part = Part("rejects against the truth", truth.rejects.total())
    wanted = truth.rejects
    for record, times in (wanted - found.rejects).items():
        part.note(f"{record[0]!r} {record[1][:60]!r} {record[2]}", "lost", times)
    for record, times in (found.rejects - wanted).items():
        known = wanted[record] > 0
        part.note(f"{record[0]!r} {record[1][:60]!r} {record[2]}", "doubled" if known else "wrong", times)
    return part


def parquet(folder: Path, twin: Path) -> list[Part]:
    """The Parquet folder against the undisturbed run's, row by row."""
    return [_table(table) for table in compare(folder, twin).tables]


def _table(table: TableDifference) -> Part:
    wrong = table.differing + table.left_only
    return Part(
        f"parquet {table.table}", table.right_rows, table.right_only, table.left_duplicated, wrong, [*table.examples]
    )


def in_redis(url: str, twin: str) -> Part:
    """Every key in Redis against the undisturbed run's."""
    part = Part("redis")
    found, wanted = _dump(url), _dump(twin)
    part.checked = len(wanted)
    for key in wanted.keys() - found.keys():
        part.note(key, "lost")
    for key, value in found.items():
        if key not in wanted or value != wanted[key]:
            part.note(f"{key}: {value!r:.200} against {wanted.get(key)!r:.200}", "wrong")
    return part


def _dump(url: str) -> dict[str, Any]:
    """What Redis holds, but for offsets and wall-clock times."""
    with redis.Redis.from_url(url) as client:
        reader: Any = client
        keys = [
            key for key in reader.scan_iter(count=1_000) if b":offsets:" not in key and not key.endswith(b":origin")
        ]
        return {key.decode(): _read(reader, key) for key in keys}


def _read(reader: Any, key: bytes) -> Any:
    kind = reader.type(key)
    if kind == b"hash":
        return reader.hgetall(key)
    if kind == b"stream":  # the order between partitions, and the ids, are of the moment
        return sorted(repr(sorted(fields.items())) for _, fields in reader.xrange(key))
    if key.endswith(b":devices"):  # scored by when they were heard of
        return sorted(reader.zrange(key, 0, -1))
    return reader.zrange(key, 0, -1, withscores=True)


def told(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """For ``--json``."""
    return [asdict(part) for part in parts]
