"""The table of metrics in the package's docstring is true."""

import re
from typing import NamedTuple

import numpy as np
import pytest

import streamer.monitor
from streamer.monitor import Monitor
from streamer.monitor.counters import COUNTERS
from tests.monitor.streams import Random, as_packets, data_word, legacy
from writer.larpix import DATA_BITS, pack

# Where the second column begins, and the third.
WHERE, SHAPE = 30, 84


class Metric(NamedTuple):
    """An expression of the table, and the shape that is said, such as "(G, S)"."""

    expression: str
    shape: str


def rows():
    """Return the second and the third column of each row, joined if it has several lines."""
    _, table, _ = re.split("^=.*=$", streamer.monitor.__doc__, flags=re.MULTILINE)
    found = []
    for line in table.strip("\n").splitlines():
        if line[:WHERE].strip():
            found.append([line[WHERE:SHAPE].strip(), line[SHAPE:].strip()])
        else:
            found[-1][0] += f" {line[WHERE:].strip()}"
    return found


def metrics():
    """Return each expression, also those of which only the name that differs is written."""
    found = []
    for where, shape in rows():
        # What stands between double backticks is an expression, and what follows may be names.
        parts = where.split("``")[1:]
        for expression, after in zip(parts[::2], parts[1::2], strict=True):
            found.append(Metric(expression, shape))
            if also := re.match("; also ([^;]*)", after):
                for name in filter(None, also[1].split(", ")):
                    quoted = re.sub(r'"\w+"', f'"{name}"', expression, count=1)
                    attribute = re.sub(r"\w+$", name, expression)
                    other = quoted if '"' in expression else attribute
                    # How many tiles or io_groups there are is not said.
                    found.append(Metric(other, shape.replace("chips", "any")))
    return found


METRICS = list(dict.fromkeys(metrics()))


@pytest.fixture(scope="module")
def snapshot():
    monitor, stream = Monitor(), Random(5, garbage=0.05)
    messages = stream.messages(500)
    # In the newest spans that are complete, a channel is noisy.
    noisy = legacy(
        [data_word(pack(DATA_BITS, chip_id=11, channel_id=3), 1, 0)] * 400, stream.second - 15
    )
    for packets in as_packets([*messages, (noisy, 1)]):
        monitor.update(packets)
    return monitor.snapshot()


def test_all_expressions_are_read():
    """There are as many as the table has between backticks, and those that are named besides."""
    assert len(rows()) == 38
    assert sum(where.count("``") for where, _ in rows()) // 2 == 40
    assert len(METRICS) == 61
    assert Metric('s.history["config_parity_errors"]', "(G, S)") in METRICS
    assert Metric("s.sync_period.syncs", "(G,)") in METRICS


@pytest.mark.parametrize("metric", METRICS, ids=[metric.expression for metric in METRICS])
def test_metric(snapshot, metric):
    """It can be evaluated, gives something, and has the shape that is said."""
    found = eval(metric.expression, {"s": snapshot})
    sizes = {
        "G": len(snapshot.io_groups),
        "S": len(snapshot.seconds),
        "N": len(snapshot.channels),
        "T": len(snapshot.tiles["tile"]),
        "chips": len(snapshot.channels.by("chip")),
        "100": 100,
    }
    values = [*found.values()] if isinstance(found, dict) else [found]
    assert values
    if metric.shape.startswith("(") and metric.expression != "s.faults":  # which is by kind only
        expected = metric.shape.strip("(),").split(", ")
        for value in values:
            assert value.ndim == len(expected)
            for size, name in zip(value.shape, expected, strict=True):
                assert size == sizes.get(name, size), name
    if metric.expression != 's.history["message"]':  # which comes from no wire
        assert any(np.nansum(value) != 0 for value in values)


def test_counters_have_their_names(snapshot):
    """Each counter is in a snapshot, but for sums that are no metric of their own."""
    assert [*snapshot.history] == [*snapshot.totals] == [*COUNTERS[:-4]]
