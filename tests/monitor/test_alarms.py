"""Alarms are raised once and cleared once."""

import pytest

from streamer.monitor import Alarms, Monitor
from tests.monitor.streams import START, as_packets, data_word, legacy, simulated, sync_word
from writer.detector import Detector, Load
from writer.larpix import DATA_BITS, pack

HIT = int(pack(DATA_BITS, chip_id=33, channel_id=12, dataword=50))
FULL = int(pack(DATA_BITS, chip_id=33, channel_id=12, dataword=50, shared_fifo=3))
BAD = HIT ^ 1 << 63


def message(second, *packets, io_group=1, sync=True):
    """Make a message with packets of a chip at io_channel 5, and a sync."""
    words = [data_word(packet, 5, 0) for packet in packets]
    return legacy(words + [sync_word("S", 10**7)] * sync, second), io_group


def events_of(messages, rules, *, span=10, now=None):
    """Update with the messages of each second, check after each, and return what happened."""
    monitor, alarms, found = Monitor(span=span), Alarms(rules), []
    for packets in as_packets(messages, range(1, len(messages))):
        monitor.update(packets)
        snapshot = monitor.snapshot(now)
        found += [(event, snapshot.time - START) for event in alarms.check(snapshot)]
        assert alarms.check(snapshot) == [], "nothing has changed"
    return found, alarms


def story(found):
    """Return what happened in short: seconds, what, of what."""
    return [
        (second, "raised" if event.raised else "cleared", event.subject) for event, second in found
    ]


def test_silent_io_group():
    """It is raised when the last message is too old, and cleared when there is a new one."""
    messages = [
        message(START + k, io_group=io_group)
        for k in range(40)
        for io_group in (1, 2)
        if io_group == 1 or not 5 <= k < 20
    ]
    found, alarms = events_of(messages, {"io_group_silent": {"threshold": 10, "clear": 3}})
    assert story(found) == [(15, "raised", "io_group 2"), (20, "cleared", "io_group 2")]
    event = found[0][0]
    assert event == ("io_group_silent", "io_group 2", True, 11, 10, START + 15)
    assert str(event) == "io_group_silent raised: io_group 2 at 11, limit 10"
    assert alarms.active == []


def test_silent_io_group_of_a_simulated_detector():
    """With the default rules, the io_group that stops sending raises the only alarms."""
    load = Load(io_groups=3, tiles=1, messages_per_second=30, words_per_message=8)
    sent = [
        pair
        for batch, pair in enumerate_seconds(simulated(load, 30.0))
        if pair[1] != 2 or batch < 10
    ]
    monitor, alarms = Monitor(), Alarms()
    found = []
    for packets in as_packets(sent, range(50, len(sent), 50)):
        monitor.update(packets)
        found += alarms.check(monitor.snapshot())
    names = [(event.name, event.subject, event.raised) for event in found]
    assert names == [("sync_stale", "io_group 2", True), ("io_group_silent", "io_group 2", True)]


def enumerate_seconds(messages):
    for data, io_group in messages:
        yield int.from_bytes(data[1:5], "little") - START, (data, io_group)


def test_stream_that_stops():
    """Only the time of day tells that no io_group sends any more."""
    monitor, alarms = Monitor(), Alarms({"io_group_silent": {"threshold": 10}})
    monitor.update(*as_packets([message(START)]))
    assert alarms.check(monitor.snapshot()) == []
    [event] = alarms.check(monitor.snapshot(START + 11.5))
    assert (event.subject, event.value, event.time) == ("io_group 1", 11.5, START + 11.5)


def test_io_group_that_never_came():
    """One that has to be there is silent from the beginning."""
    rules = {
        "io_group_silent": {"threshold": 10, "io_groups": [1, 9]},
        "sync_stale": {"threshold": 2.5, "io_groups": [9]},
    }
    found, _ = events_of([message(START + k) for k in range(20)], rules)
    assert story(found) == [(3, "raised", "io_group 9"), (11, "raised", "io_group 9")]


def test_stream_that_never_begins():
    """When nothing comes at all, io_groups that have to be there are silent from then on."""
    monitor, alarms = Monitor(), Alarms({"io_group_silent": {"threshold": 10, "io_groups": [7]}})
    assert alarms.check(monitor.snapshot()) == [], "nobody said what time it is"
    assert alarms.check(monitor.snapshot(START)) == []
    assert alarms.check(monitor.snapshot(START + 10)) == []
    [event] = alarms.check(monitor.snapshot(START + 11))
    assert (event.subject, event.raised, event.value) == ("io_group 7", True, 11)
    monitor.update(*as_packets([message(START + 12, io_group=7)]))
    [cleared] = alarms.check(monitor.snapshot(START + 12))
    assert (cleared.subject, cleared.raised) == ("io_group 7", False)


def test_io_group_whose_messages_have_no_time():
    """It is not silent, and nobody knows since when it would be."""
    monitor, alarms = Monitor(), Alarms({"io_group_silent": {"threshold": 10, "io_groups": [1]}})
    for k in range(30):
        monitor.update(*as_packets([message(0)]))
        assert alarms.check(monitor.snapshot(START + k)) == []


def test_io_group_that_never_came_in_a_short_history():
    """It is awaited from the beginning, also if that is no longer kept."""
    monitor = Monitor(history=5)
    alarms = Alarms({"io_group_silent": {"threshold": 10, "io_groups": [9]}})
    found = []
    for k in range(13):
        monitor.update(*as_packets([message(START + k)]))
        found += alarms.check(monitor.snapshot())
    assert [(event.subject, event.time - START) for event in found] == [("io_group 9", 11)]


def test_reset_does_not_make_an_io_group_silent():
    """After it, an io_group that has to be there is silent since its last message, not before."""
    monitor, alarms = Monitor(), Alarms({"io_group_silent": {"threshold": 10, "io_groups": [1]}})
    for k in range(30):
        monitor.update(*as_packets([message(START + k)]))
        assert alarms.check(monitor.snapshot()) == []
    monitor.reset()
    monitor.update(*as_packets([message(START + 33, io_group=2)]))
    assert alarms.check(monitor.snapshot(START + 33)) == []
    [event] = alarms.check(monitor.snapshot(START + 40))
    assert event.value == 11


def test_stale_sync():
    """It is raised after more than 2.5 s without an S, of an io_group that had one."""
    messages = [message(START + k, HIT, sync=not 5 <= k < 12) for k in range(20)]
    messages += [message(START + 20, io_group=3, sync=False)]
    found, _ = events_of(messages, {"sync_stale": {"threshold": 2.5, "clear": 1.5}})
    assert story(found) == [(7, "raised", "io_group 1"), (12, "cleared", "io_group 1")]


def test_parity_errors():
    """The fraction over the last complete seconds counts, if there are enough packets."""
    messages = [message(START + k, *[BAD if 5 <= k < 8 else HIT] * 100) for k in range(30)]
    rules = {"parity_errors": {"threshold": 0.1, "clear": 0.05, "seconds": 5, "least": 300}}
    found, _ = events_of(messages, rules)
    # A second is complete when there is one after it.
    assert story(found) == [(6, "raised", "io_group 1"), (13, "cleared", "io_group 1")]
    assert found[0][0].value == pytest.approx(1 / 5)


def test_too_few_packets_say_nothing():
    """Of two packets, one with invalid parity is no alarm."""
    messages = [message(START + k, BAD, HIT) for k in range(20)]
    found, _ = events_of(messages, {"parity_errors": {"threshold": 0.1, "least": 1_000}})
    assert found == []


def test_full_fifo():
    """Local and shared FIFO have alarms of their own."""
    messages = [message(START + k, *[FULL if k < 5 else HIT] * 10) for k in range(30)]
    rules = {"fifo_full": {"threshold": 0.5, "clear": 0.2, "seconds": 5}}
    found, _ = events_of(messages, rules)
    subject = "io_group 1, shared FIFO"
    assert story(found) == [(2, "raised", subject), (9, "cleared", subject)]


def test_rate_of_a_channel():
    """A channel that is too fast is named, and no longer when it is slower."""
    rates = [2] * 20 + [50] * 70 + [2] * 70
    messages = [message(START + k, *[HIT] * rate) for k, rate in enumerate(rates)]
    found, alarms = events_of(messages, {"channel_rate": {"threshold": 40.0, "clear": 10.0}})
    assert [part[1:] for part in story(found)] == [
        ("raised", "1-5-33-12"),
        ("cleared", "1-5-33-12"),
    ]
    assert found[0][0].value > 40
    assert found[1][0].value <= 10
    assert alarms.active == []


def test_rate_of_a_channel_with_a_short_history():
    """It needs whole spans of time, and not that all their seconds are shown."""
    monitor = Monitor(history=4, span=10)
    monitor.update(*as_packets([message(START + k, *[HIT] * 10) for k in range(25)]))
    [event] = Alarms({"channel_rate": {"threshold": 5}}).check(monitor.snapshot())
    assert (event.subject, event.value) == ("1-5-33-12", 10)


def test_channel_that_is_gone():
    """After a reset, a channel without hits is not too fast any more."""
    monitor, alarms = Monitor(span=2), Alarms({"channel_rate": {"threshold": 5}})
    monitor.update(*as_packets([message(START + k, *[HIT] * 10) for k in range(9)]))
    [event] = alarms.check(monitor.snapshot())
    monitor.reset()
    assert alarms.check(monitor.snapshot()) == [], "nothing is known yet"
    monitor.update(*as_packets([message(START + k, HIT ^ 1 << 10) for k in range(9)]))
    [cleared] = alarms.check(monitor.snapshot())
    assert (cleared.subject, cleared.raised, cleared.value) == (event.subject, False, 0)


def test_hot_channels_of_a_simulated_detector():
    """Those that are hot raise alarms, and no others."""
    load = Load(io_groups=1, tiles=1, messages_per_second=100, words_per_message=10)
    detector = Detector(load)
    hot = {"-".join(map(str, line)) for line in detector.hot_channels.tolist()}
    monitor = Monitor(span=5)
    monitor.update(*as_packets(simulated(load, 12.0)))
    events = Alarms({"channel_rate": {"threshold": 5}}).check(monitor.snapshot())
    assert {event.subject for event in events} == hot


def test_faults():
    """Each kind raises an alarm, which ends when there was none of it for some time."""
    messages = [message(START + k) for k in range(5)] + [(b"", 1), (b"what?", 1)]
    messages += [message(START + k) for k in range(5, 40)]
    found, _ = events_of(messages, {"faults": {"threshold": 0, "seconds": 20}})
    assert story(found) == [
        (4, "raised", "empty"),
        (4, "raised", "not data"),
        (24, "cleared", "empty"),
        (24, "cleared", "not data"),
    ]


def test_faults_that_are_gone():
    """After a reset, a kind of which there is none any more is cleared."""
    monitor, alarms = Monitor(), Alarms({"faults": {"threshold": 0}})
    monitor.update(*as_packets([message(START), (b"", 1)]))
    assert len(alarms.check(monitor.snapshot())) == 1
    monitor.reset()
    assert alarms.check(monitor.snapshot()) == [], "nothing is known yet"
    monitor.update(*as_packets([message(START + 1)]))
    [event] = alarms.check(monitor.snapshot())
    assert (event.subject, event.raised, event.value) == ("empty", False, 0)


def test_nothing_but_faults():
    """They raise an alarm also if no message has a time."""
    monitor, alarms = Monitor(), Alarms()
    monitor.update(*as_packets([(b"", 1)] * 3))
    [event] = alarms.check(monitor.snapshot())
    assert (event.name, event.subject, event.value) == ("faults", "empty", 3)


def test_clock_that_is_ahead():
    """The io_group whose seconds are later than those of most is named."""
    messages = [
        message(START + k + 100 * (io_group == 3), io_group=io_group)
        for k in range(5)
        for io_group in (1, 2, 3)
    ]
    monitor, alarms = Monitor(history=50), Alarms()
    monitor.update(*as_packets(messages))
    [event] = alarms.check(monitor.snapshot())
    assert (event.name, event.subject, event.value) == ("clock_ahead", "io_group 3", 100)


def test_nothing_seen_raises_nothing():
    """An empty snapshot is fine, with every rule."""
    assert Alarms().check(Monitor().snapshot()) == []


def test_without_hysteresis():
    """Without a second threshold, an alarm is cleared at the first."""
    messages = [message(START + k, sync=k not in (5, 6, 7)) for k in range(12)]
    found, _ = events_of(messages, {"sync_stale": {"threshold": 2}})
    assert story(found) == [(7, "raised", "io_group 1"), (8, "cleared", "io_group 1")]
