"""The table of metrics in the package's docstring is true."""

import re

import numpy as np
import pytest

import streamer.monitor
from streamer.monitor import Monitor
from streamer.monitor.counters import COUNTERS
from tests.monitor.streams import Random, as_packets

# What, the expressions, and a shape, as "(G, S)".
LINE = re.compile(r"^(\S.*?)  +(``.*?``.*?)  +\((.*?),?\)$", re.MULTILINE)
TABLE = LINE.findall(streamer.monitor.__doc__)


@pytest.fixture(scope="module")
def snapshot():
    monitor = Monitor()
    for packets in as_packets(Random(5, garbage=0.05).messages(500)):
        monitor.update(packets)
    return monitor.snapshot()


def test_all_lines_are_read():
    """Those of the table that have a shape, which is all but two."""
    assert len(TABLE) == 36
    assert streamer.monitor.__doc__.count("  (") == 36


@pytest.mark.parametrize("line", range(len(TABLE)))
def test_metric(snapshot, line):
    """Its first expression can be evaluated, gives something, and has the shape that is said."""
    _, where, shape = TABLE[line]
    found = eval(where.split("``")[1], {"s": snapshot})
    if isinstance(found, dict):
        found = next(iter(found.values()))
    sizes = {
        "G": len(snapshot.io_groups),
        "S": len(snapshot.seconds),
        "N": len(snapshot.channels),
        "T": len(snapshot.tiles["tile"]),
        "chips": len(snapshot.channels.by("chip")),
        "100": 100,
    }
    expected = shape.split(", ")
    assert found.ndim == len(expected)
    for size, name in zip(found.shape, expected, strict=True):
        assert size == sizes.get(name, size), name
    assert np.nansum(found) != 0, "there was something to be counted"


def test_counters_have_their_names(snapshot):
    """Each counter is in a snapshot, but for sums that are no metric of their own."""
    assert [*snapshot.history] == [*snapshot.totals] == [*COUNTERS[:-4]]
