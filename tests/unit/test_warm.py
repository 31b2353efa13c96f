"""After warming up nothing is left to compile."""

import numpy as np

from scorers import follow, group
from scorers.fit import TrainSpec, fit_device
from scorers.fleet import Fleet
from stream import clock, index, producer, syntax, template, texts, unpack, window
from stream.warm import warm, warm_fleet
from tests.simulator import Device


def test_all_loops_are_compiled_once_warm() -> None:
    warm()
    warm_fleet(Fleet.of({"a": fit_device(Device(1, 4).windows(80), np.arange(80), TrainSpec())}, "v1"))
    warm_fleet(Fleet.empty())

    loops = [
        (template, "_fill"),
        (texts, "_distinct"),
        (unpack, "_index"),
        (window, "_accumulate"),
        (clock, "_judge"),
        (index, "_find"),
        (index, "_enter"),
        (index, "_leave"),
        (group, "_measure"),
        (follow, "_follow"),
        (syntax, "_look"),
        (syntax, "_count"),
        (texts, "_copy"),
        (producer, "_enqueue"),
    ]

    assert all(vars(module)[name].signatures for module, name in loops)
