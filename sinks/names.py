"""The names that Parquet files of ours have; any other file in a table's folder is a stray."""

import re
from typing import NamedTuple

from sinks.base import Source

MERGED = re.compile(r"merged-\d{8}T\d{6}Z-[0-9a-f]{16}-\d{4}")
DATED = re.compile(r"date=\d{4}-\d{2}-\d{2}")
"""The name of a folder that holds the rows of one date."""


class Range(NamedTuple):
    """Offsets ``first`` to ``last`` of a source, both included."""

    source: Source
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.source.topic}-{self.source.partition:04d}-{self.first:020d}-{self.last:020d}"

    @classmethod
    def parse(cls, name: str) -> "Range | None":
        """The range that a name spells, None for any other name.

        >>> Range.parse("device.scores-0003-07-09")
        Range(source=Source(topic='device.scores', partition=3), first=7, last=9)
        >>> Range.parse(merged("20261121T120000Z-00c0ffee00c0ffee", 0))
        """
        topic, *numbers = name.rsplit("-", 3)
        if len(numbers) != 3 or not all(number.isdecimal() for number in numbers):  # noqa: PLR2004  # three dashes
            return None
        partition, first, last = map(int, numbers)
        return cls(Source(topic, partition), first, last)


def merged(stamp: str, number: int) -> str:
    """The name, without ending, of the file ``number`` that a compaction with the unique ``stamp`` wrote."""
    return f"merged-{stamp}-{number:04d}"


def ours(name: str) -> bool:
    """Whether the sink or a compaction may have given a file this name.

    >>> ours("device.scores-0003-07-09.parquet"), ours("part-00000-5f.snappy.parquet")
    (True, False)
    """
    stem, _, ending = name.rpartition(".")
    return ending == "parquet" and bool(Range.parse(stem) or MERGED.fullmatch(stem))
