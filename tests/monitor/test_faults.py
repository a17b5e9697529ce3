"""Faults are counted in the second of the message before, and only the newest are kept."""

import pickle

import numpy as np

from streamer.monitor import Monitor
from streamer.monitor.faults import Faults
from tests.monitor.streams import START, as_packets, legacy
from tests.monitor.test_metrics import everything, monitored

DEPTH = 20


def a_fault_each_second(count, start=START):
    """Return messages of so many seconds, with an empty one in each."""
    return [one for k in range(count) for one in ((legacy([], start + k), 1), (b"", 1))]


def test_newest_seconds_with_faults_are_kept():
    """Of each kind as many as the depth, whatever comes; the total has all of them."""
    faults = Faults(DEPTH)
    for k in range(10 * DEPTH):
        rows, seconds = np.array([2 * k]), np.array([START + k])
        faults.count({"empty": rows + 1, "not data": rows + 1}, rows, seconds)
        assert all(len(found) <= DEPTH for found in faults.seconds.values())
    newest = dict.fromkeys(range(START + 9 * DEPTH, START + 10 * DEPTH), 1)
    assert faults.seconds == {"empty": newest, "not data": newest}
    assert faults.totals == {"empty": 10 * DEPTH, "not data": 10 * DEPTH}


def test_newest_seconds_with_faults_of_two_parts_are_kept():
    """So it is when what another one has seen is added."""
    one, two = (
        monitored(as_packets(a_fault_each_second(30, START + k)), history=DEPTH) for k in (0, 30)
    )
    one.merge(two)
    whole = monitored(as_packets(a_fault_each_second(60)), history=DEPTH)
    assert everything(one) == everything(whole)
    assert len(one._counted.faults.seconds["empty"]) == DEPTH


def test_memory_does_not_grow_with_faults():
    """A fault each second takes as much after an hour as after a minute."""
    monitor = Monitor(history=DEPTH, span=5)
    sizes = []
    for k in range(60):
        monitor.update(*as_packets(a_fault_each_second(60, START + 60 * k)))
        sizes.append(len(pickle.dumps(monitor)))
    assert monitor.snapshot().faults == {"empty": 3_600}
    assert max(sizes) <= sizes[0] + 100, "but for larger numbers"
