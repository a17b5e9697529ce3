"""Each default rule raises its alarm just above its threshold, and not at it or below."""

import numpy as np
import pytest

from streamer.monitor import Alarms, Monitor
from streamer.monitor.rules import RULES
from tests.monitor.streams import START, as_packets, data_word, legacy, sync_word
from writer.larpix import DATA_BITS, pack

HIT = pack(DATA_BITS, chip_id=33, channel_id=12, dataword=50)
BAD = HIT ^ np.uint64(1 << 63)
LOCAL = pack(DATA_BITS, chip_id=33, channel_id=12, local_fifo=2)
SHARED = pack(DATA_BITS, chip_id=33, channel_id=12, shared_fifo=2)


def message(second, *packets, io_group=1):
    words = [data_word(packet, 5, 0) for packet in packets]
    return legacy([*words, sync_word("S", 10**7)], START + second), io_group


def around(*packets, second=1):
    """Return packets in a second that is complete."""
    return [message(0), message(second, *packets), message(second + 1)]


def mixed(some, count, of):
    return around(*[some] * count, *[HIT] * (of - count))


def span(first, count):
    """Return so many hits of a channel in ten seconds, and what says that these are over."""
    each, more = divmod(count, 10)
    return [message(first + k, *[HIT] * (each + (k < more))) for k in range(10)] + [
        message(first + 10)
    ]


def raised(messages, now=None):
    """Return what alarms are on after messages, at a time after the beginning."""
    monitor, alarms = Monitor(), Alarms()
    for packets in as_packets(messages):
        monitor.update(packets)
    alarms.check(monitor.snapshot(None if now is None else START + now))
    return [(event.name, event.subject) for event in alarms.active]


#: Rule to its subject, and what is at the threshold and just above: messages, and the time.
CASES = {
    "io_group_silent": ("io_group 1", ([message(0)], 10.0), ([message(0)], 10.01)),
    "sync_stale": ("io_group 1", ([message(0)], 2.5), ([message(0)], 2.51)),
    "parity_errors": ("io_group 1", (mixed(BAD, 10, 1_000), None), (mixed(BAD, 11, 1_000), None)),
    "fifo_full": (
        "io_group 1, local FIFO",
        (mixed(LOCAL, 50, 1_000), None),
        (mixed(LOCAL, 51, 1_000), None),
    ),
    "channel_rate": (
        "1-5-33-12",
        ([message(0), *span(10, 10_000)], None),
        ([message(0), *span(10, 10_001)], None),
    ),
    "faults": ("empty", (around(), None), ([message(0), (b"", 1)], None)),
    "clock_ahead": (
        "io_group 2",
        ([message(0), message(5, io_group=2)], 0),
        ([message(0), message(6, io_group=2)], 0),
    ),
}


def test_every_default_rule_is_tested():
    """A new rule gets a case here."""
    assert CASES.keys() == RULES.keys()


@pytest.mark.parametrize("rule", CASES)
def test_threshold(rule):
    """At it there is no alarm, and just above it there is one."""
    subject, at, above = CASES[rule]
    assert rule not in [name for name, _ in raised(*at)]
    assert (rule, subject) in raised(*above)


def test_threshold_of_the_shared_fifo():
    """It is that of the local one."""
    assert raised(mixed(SHARED, 50, 1_000)) == []
    assert raised(mixed(SHARED, 51, 1_000)) == [("fifo_full", "io_group 1, shared FIFO")]


@pytest.mark.parametrize("some", [BAD, LOCAL, SHARED], ids=["parity", "local", "shared"])
def test_fewer_packets_than_a_thousand_say_nothing(some):
    """Not even if each of them is bad."""
    assert raised(mixed(some, 999, 999)) == []
    assert len(raised(mixed(some, 1_000, 1_000))) == 1


@pytest.mark.parametrize("some", [BAD, LOCAL, SHARED], ids=["parity", "local", "shared"])
def test_fractions_are_of_the_last_ten_seconds(some):
    """What was bad before them is over."""
    stream = [message(0), message(1, *[some] * 2_000), message(2, *[HIT] * 2_000)]
    assert len(raised([*stream, message(11)])) == 1
    assert raised([*stream, message(12)]) == []


def test_faults_are_of_the_last_minute():
    """After it, they are over."""
    stream = [message(0), (b"", 1)]
    assert raised([*stream, message(59)]) == [("faults", "empty")]
    assert raised([*stream, message(60)]) == []


@pytest.mark.parametrize(
    ("rule", "silence", "clear"), [("io_group_silent", 10.5, 3.0), ("sync_stale", 2.6, 1.5)]
)
def test_age_at_which_it_is_cleared(rule, silence, clear):
    """An alarm goes on until the next one is as young as the rule says."""
    monitor, alarms = Monitor(), Alarms()

    def names(now):
        alarms.check(monitor.snapshot(START + now))
        return [event.name for event in alarms.active]

    monitor.update(*as_packets([message(0)]))
    assert rule in names(silence)
    monitor.update(*as_packets([message(20)]))
    assert rule in names(20 + clear + 0.01)
    assert rule not in names(20 + clear)


@pytest.mark.parametrize(
    ("rule", "some", "clear"), [("parity_errors", BAD, 5), ("fifo_full", LOCAL, 20)]
)
def test_fraction_at_which_it_is_cleared(rule, some, clear):
    """An alarm goes on until the fraction is as low as the rule says."""
    for count, is_on in ((clear + 1, True), (clear, False)):
        monitor, alarms = Monitor(), Alarms()
        monitor.update(*as_packets(mixed(some, 500, 1_000)))
        alarms.check(monitor.snapshot())
        assert [event.name for event in alarms.active] == [rule]
        stream = [message(20, *[some] * count, *[HIT] * (1_000 - count)), message(21)]
        monitor.update(*as_packets(stream))
        alarms.check(monitor.snapshot())
        assert [event.name for event in alarms.active] == [rule] * is_on


def test_rate_at_which_it_is_cleared():
    """The alarm of a channel goes on until its rate is half of what raised it."""
    for later, is_on in ((5_001, True), (5_000, False)):
        monitor, alarms, found = Monitor(spans=2), Alarms(), []
        for stream in ([message(0), *span(10, 10_001)], span(20, later)):
            monitor.update(*as_packets(stream))
            alarms.check(monitor.snapshot())
            found.append([event.name for event in alarms.active])
        assert found == [["channel_rate"], ["channel_rate"] * is_on]


def test_lead_at_which_it_is_cleared():
    """The alarm of a clock goes on until it is ahead by no more than the rule says."""
    monitor, alarms = Monitor(), Alarms()
    monitor.update(*as_packets([message(0), message(6, io_group=2)]))
    found = []
    for now in (0, 3, 4):
        alarms.check(monitor.snapshot(START + now))
        found.append("clock_ahead" in [event.name for event in alarms.active])
    assert found == [True, True, False]
