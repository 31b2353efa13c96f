"""One target under atheris, in a process of its own: libFuzzer never returns."""

import logging
import sys
from random import Random

import atheris

with atheris.instrument_imports(include=["stream", "sinks"]):
    from tests.fuzz.mutate import mutate
    from tests.fuzz.targets import TARGETS


def mutated(data: bytes, longest: int, seed: int) -> bytes:
    """In the form that atheris asks for."""
    return mutate(bytes(data), longest, chance=Random(seed), raw=atheris.Mutate)


if __name__ == "__main__":
    name, *flags = sys.argv[1:]
    logging.disable()
    atheris.Setup([name, *flags], TARGETS[name], custom_mutator=mutated)
    atheris.Fuzz()
