"""What an owner asks of a partition's core: the pure half, bytes in, messages out, no clock and no I/O."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from stream.message import Output
from stream.records import Records

Model = TypeVar("Model", bound=Sized)
"""What the cores of a worker judge by; its length is how many models it holds."""
Judging_contra = TypeVar("Judging_contra", bound=Sized, contravariant=True)


class Core(Protocol[Judging_contra]):
    """One partition of one input. Records, their order and the checkpoints alone decide what comes out."""

    number: int
    next_offset: int
    """The first record not yet fed."""

    @property
    def topic(self) -> str:
        """The input."""

    @property
    def floor(self) -> int:
        """The first record that must be read again to go on; never above ``next_offset``."""

    @property
    def reliving(self) -> bool:
        """Whether the log must still be read again up to the last checkpoint; nothing comes out till then."""

    @property
    def open_windows(self) -> int:
        """How much a silence may still close."""

    @property
    def counts(self) -> Counter[str]:
        """What has happened here; ``alerts`` among it let an epoch end sooner."""

    def feed(self, records: Records) -> list[Output]:
        """Take in the next records; what they bring about."""

    def hush(self, silent_ms: int) -> list[Output]:
        """The partition has been silent for so long."""

    def use(self, model: Judging_contra) -> None:
        """Judge by ``model`` from now on."""

    def checkpoint(self) -> Sequence[Output]:
        """What changed since the last checkpoint, for the state topic."""

    def recall(self, records: Mapping[bytes, bytes]) -> int | None:
        """Become what the last checkpoint was, by what the state topic holds; where to read on.

        None: nothing is remembered; start wherever the group does.
        """


@dataclass(frozen=True, slots=True)
class Cores(Generic[Model]):
    """What the partitions of a worker are made of."""

    born: Mapping[str, Callable[[int], Core[Model]]]
    """By input topic, what makes the core of a partition."""
    state: str
    """The topic that their checkpoints go to, partition by partition."""
    model: Model
    """What they judge by until there is another."""
