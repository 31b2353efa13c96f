"""The bench's job as sessions of servers: the same windows, from what a server sends."""

import msgspec
import numpy as np
import pytest

from bench.core import records
from bench.job import START, TICKS, Job
from bench.peers.scoring import moment
from stream.app import sources
from stream.contracts import Score, Topics
from stream.message import Message, singly
from stream.partition import Partition, StreamSpec
from stream.sessions import LOADS

TOPICS = Topics()


def test_sessions_make_the_windows_that_their_job_says() -> None:
    job = Job.of_sessions(300, 3)
    core = Partition(sources(TOPICS)[1], 0, StreamSpec(), TOPICS)
    messages: list[Message] = []
    for batch in [*job.batches(), job.last()]:
        messages += singly(core.feed(records(batch, TOPICS.sessions, core.next_offset)))
    scores = [msgspec.json.decode(message.value, type=Score) for message in messages]
    block = job.block(0)
    (first,) = (score for score in scores if (score.device_id, score.window_start) == (job.names[1], START))

    assert {message.topic for message in messages} == {TOPICS.scores}
    assert len(scores) == job.results
    assert {score.count for score in scores} == {TICKS}
    assert sorted(first.metrics) == sorted(LOADS)
    assert [first.metrics[name].mean for name in LOADS] == pytest.approx(block.cube[:, 1].mean(axis=0))
    assert [first.metrics[name].last for name in LOADS] == block.cube[np.argmax(block.ts[:, 1]), 1].tolist()


def test_peers_read_a_sessions_start_as_it_was_written() -> None:
    stamps = [1_700_000_000_000, 1_700_000_000_957, 1_699_999_999_999]
    starts = np.datetime_as_string(np.array(stamps).astype("datetime64[ms]"), timezone="UTC").tolist()

    assert [moment(start) for start in starts] == stamps
