"""Which fetched records count, whatever the client does while partitions change hands."""

import random

import numpy as np
import pytest

from scorers.statistics import Ints
from stream.cursor import Cursor


class Run:
    def __init__(self, offsets: Ints) -> None:
        self.offsets = offsets

    def __len__(self) -> int:
        return len(self.offsets)

    def since(self, offset: int) -> "Run":
        return Run(self.offsets[self.offsets >= offset])


def run(first: int, last: int) -> Run:
    return Run(np.arange(first, last))


def taken(cursor: Cursor[str], fetched: Run, ticket: int | None) -> list[int]:
    counted = cursor.take("p", fetched, ticket)
    return [] if counted is None else counted.offsets.tolist()


def test_what_was_asked_for_before_the_seek_does_not_count_and_is_sought_again() -> None:
    cursor: Cursor[str] = Cursor()
    cursor.place({"p": 0})
    ticket = cursor.ticket
    cursor.lift()
    cursor.place({"p": 5})

    assert taken(cursor, run(8, 12), ticket) == []
    assert cursor.overdue() == {"p": 5}
    assert cursor.overdue() == {}


def test_what_comes_twice_counts_once() -> None:
    cursor: Cursor[str] = Cursor()
    cursor.place({"p": 5})

    assert taken(cursor, run(3, 8), cursor.ticket) == list(range(5, 8))
    assert taken(cursor, run(5, 9), cursor.ticket) == list(range(8, 9))
    assert taken(cursor, run(5, 9), cursor.ticket) == []


def test_nothing_counts_while_partitions_change_hands() -> None:
    cursor: Cursor[str] = Cursor()
    cursor.place({"p": 0})
    cursor.lift()

    assert cursor.ticket is None
    assert taken(cursor, run(0, 3), cursor.ticket) == []
    assert cursor.overdue() == {}


class Client:
    """A client as Kafka's are: one position, moved by what it hands over, and by seeks."""

    def __init__(self, chance: random.Random) -> None:
        self.position = 0
        self._chance = chance

    def fetch(self) -> Run:
        first = self.position
        self.position += self._chance.randrange(5)
        return run(first, self.position)


@pytest.mark.parametrize("seed", range(200))
def test_in_every_life_all_that_follows_the_start_counts_once(seed: int) -> None:
    chance = random.Random(seed)
    client, cursor = Client(chance), Cursor[str]()
    life: list[int] = []
    start = 0
    ticket: int | None = None
    for _ in range(100):
        move = chance.randrange(6)
        if move == 0:  # partitions change hands; fetches go on meanwhile
            cursor.lift()
        elif move == 1 and cursor.ticket is None:
            start, life = chance.randrange(20), []
            client.position = start
            cursor.place({"p": start})
        elif move == 2:
            client.position = cursor.overdue().get("p", client.position)
            ticket = cursor.ticket
        else:  # hand over what the last question brings, perhaps much later
            life += taken(cursor, client.fetch(), ticket)
            client.position = cursor.overdue().get("p", client.position)
            ticket = cursor.ticket

        assert life == list(range(start, start + len(life)))
