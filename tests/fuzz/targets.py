"""What must hold whatever bytes arrive: a target takes bytes and raises where a promise is broken.

The bytes are records, parted by ASCII's record separator; a lone NUL is a record without a value. Where a partition
is fed, the first of them is a plan instead: how many records come at once, where it crashes, when they arrived.
"""

from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import numpy as np

from sinks import base, decode, summary, table
from stream.contracts import Alert, Score, Topics
from stream.decode import LATEST, Decoded, Limits, Parser
from stream.decode import decode as decode_readings
from stream.encode import reject_messages
from stream.message import Message, singly
from stream.partition import Partition, Source, StreamSpec
from stream.readings import READINGS
from stream.records import ACCEPTANCE, PUNCTUATION, Headers, Records, marks
from stream.sessions import SESSIONS
from stream.state import recall
from stream.window import WindowSpec

SEPARATOR = b"\x1e"
NOTHING = b"\x00"
MARK = b"\x01"
"""Begins a punctuation, or with a brace an acceptance: a record without a value, with the rest in its header."""
MOST = 64
"""Records looked at; more would only cost time."""
NOW = 1_700_000_000_000
ARRIVALS = (NOW, NOW + 400_000_000, 0, -1, 2**62, 2**63 - 1, -(2**63), NOW - 10**9)
"""When records claim to have arrived: the time is the client's to write."""
TOPICS = Topics()
LIMITS = Limits(max_bytes=2_000, max_metrics=9, max_name=12)
SPEC = StreamSpec(window=WindowSpec(size_ms=10_000, hop_ms=10_000, grace_ms=2_000, idle_ms=30_000), limits=LIMITS)

Bytes = bytes | None
Target = Callable[[bytes], None]


def split(data: bytes) -> list[Bytes]:
    """The records in ``data``."""
    return [None if part == NOTHING else part for part in data.split(SEPARATOR)[:MOST]]


def records(values: Sequence[Bytes], topic: str = TOPICS.readings, arrivals: Sequence[int] = (NOW,)) -> Records:
    """A batch of one partition."""
    count = len(values)
    marked = [value is not None and value.startswith(MARK) for value in values]
    headers: list[Headers] = [
        [(ACCEPTANCE if value[1:2] == b"{" else PUNCTUATION, value[1:] or None)] if mark and value else ()
        for mark, value in zip(marked, values, strict=True)
    ]
    stamps = np.array([arrivals[row % len(arrivals)] for row in range(count)], np.int64)
    plain = [b"" if mark else value for mark, value in zip(marked, values, strict=True)]
    return Records(topic, 0, np.arange(count), stamps, [b"key"] * count, plain, headers)


def sendable(message: Message) -> None:
    """It is what librdkafka takes."""
    assert isinstance(message.value, bytes)
    assert message.key is None or isinstance(message.key, bytes)
    assert all(isinstance(name, str) and isinstance(value, bytes) for name, value in message.headers)


# --- one batch ---------------------------------------------------------------------------------


def batch(data: bytes, *, parser: Parser) -> None:
    """Every record is readings or rejects, each once, and is the same alone as in company."""
    whole = records(split(data))
    together = decode_readings(whole, LIMITS, parser)
    alone = [decode_readings(whole.pick([row]), LIMITS, parser) for row in range(len(whole))]
    places = [*zip(together.row.tolist(), together.part.tolist(), strict=True)]
    places += [(reject.row, reject.part) for reject in together.rejects]
    for message in reject_messages(TOPICS.rejects, whole, together.rejects):
        sendable(message)

    assert {row for row, _ in places} == set(range(len(whole)))
    assert len(set(places)) == len(places)
    assert readings(together) == {
        (row, at[1]): one for row, own in enumerate(alone) for at, one in readings(own).items()
    }
    assert refusals(together) == {
        (row, at[1]): one for row, own in enumerate(alone) for at, one in refusals(own).items()
    }


Place = tuple[int, int]


def readings(decoded: Decoded) -> dict[Place, tuple[str, int, dict[str, str]]]:
    """Device, stamp and values by row and part; values as text, as -0.0 is not 0.0."""
    found = {}
    for at, device in enumerate((decoded.names[code] or b"").decode() for code in decoded.device):
        names = decoded.shapes[int(decoded.shape[at])]
        values = decoded.flat[decoded.start[at] :][: len(names)].tolist()
        assert np.isfinite(values).all()
        found[int(decoded.row[at]), int(decoded.part[at])] = (
            device,
            int(decoded.ts[at]),
            dict(zip(names, map(repr, values), strict=True)),
        )
    return found


def refusals(decoded: Decoded) -> dict[Place, tuple[str, str]]:
    """Reason and detail by row and part."""
    return {(reject.row, reject.part): (reject.reason, reject.detail) for reject in decoded.rejects}


# --- a whole partition -------------------------------------------------------------------------


def life(data: bytes, *, source: Source) -> None:
    """What comes out is valid, accounts for every record, and is the same however it is cut and broken."""
    plan, *values = split(data)
    steps = list(plan or b"\x00")
    arrivals = [ARRIVALS[step >> 5] for step in steps]
    log = records([*values, MARK + str(LATEST - 1).encode()], source.topic, arrivals)
    core = Partition(source, 0, SPEC, TOPICS)
    whole = [*singly(core.feed(log))]
    scores = [msgspec.json.decode(message.value, type=Score) for message in whole if message.topic == TOPICS.scores]
    rejects = sum(message.topic == TOPICS.rejects for message in whole)
    for message in whole:
        sendable(message)
        if message.topic == TOPICS.alerts:
            msgspec.json.decode(message.value, type=Alert)

    assert sum(score.count for score in scores) + rejects == core.counts["readings"]
    assert core.counts["readings"] >= len(log) - len(marks(log))
    assert in_order(disturbed(log, source, steps)) == in_order(whole)


def in_order(messages: Sequence[Message]) -> list[str]:
    """The same whatever devices' windows closed together."""
    return sorted(map(repr, messages))


def disturbed(log: Records, source: Source, steps: Sequence[int]) -> list[Message]:
    """What comes out where some records come at a time, and after each an epoch ends or the process."""
    begin = partial(Partition, source, 0, SPEC, TOPICS)
    core, at, turn = begin(), 0, 0
    state: list[tuple[bytes, bytes]] = []
    pending: list[Message] = []
    out: list[Message] = []
    while at < len(log):
        step = steps[turn % len(steps)]
        until = min(at + 1 + (step & 7), len(log))
        pending += singly(core.feed(log.pick(range(at, until))))
        at, turn, fate = until, turn + 1, step >> 3 & 3
        if at == len(log) or (fate == 1 and not core.reliving):
            state += [(message.key or b"", message.value) for message in core.checkpoint()]
            out, pending = out + pending, []
        elif fate == 2 and turn < 2 * MOST:  # the plan's code; without end it would never get on
            core, pending = begin(), []
            at = core.restore(recall(core.scope, 0, state)) or 0
    return out


# --- the sinks ---------------------------------------------------------------------------------


def sink(data: bytes) -> None:
    """Every record is a score or a reject, and both become rows; an alert or a reject, likewise."""
    values = [value or b"" for value in split(data)]
    whole = base.Batch(base.Source(TOPICS.scores, 0), range(len(values)), values)
    scores, alerts = decode.decode(whole, decode.SCORES), decode.decode(whole, decode.ALERTS)
    rows = table.tables(whole.source, scores)
    for day, part in table.by_date(rows.predictions):
        assert day and len(part)  # noqa: PT018  # both in one breath
    summaries = summary.statistics({}, scores.records, 0.9)
    for score in scores.records:
        summary.latest(score)
        summary.history(score)
    for encoded in summaries.values():
        msgspec.json.decode(encoded)

    assert len(rows.predictions) + len(rows.rejects) == len(values)
    assert sorted([*scores.offsets, *(reject.offset for reject in scores.rejects)]) == list(range(len(values)))
    assert len(alerts.records) + len(alerts.rejects) == len(values)


TARGETS: dict[str, Target] = {
    "readings": partial(batch, parser=READINGS),
    "sessions": partial(batch, parser=SESSIONS),
    "stream": partial(life, source=Source(TOPICS.readings, READINGS)),
    "sums": partial(life, source=Source(TOPICS.sessions, SESSIONS, sums=True, distinct=False)),
    "sink": sink,
}
"""By the name that ``--target`` takes and that its findings' folder has."""
