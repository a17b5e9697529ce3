"""Events: the same ones however the stream is cut, and those that the rules say."""

import itertools
import json
import os
from functools import partial
from pathlib import Path

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer import Gap, Packets, follow, tail
from streamer.clock import Clock
from streamer.errors import PedestalError
from streamer.events import GapBuilder, TriggerBuilder, WindowBuilder, events
from streamer.events.assembly import Assembly
from streamer.events.backlog import ALL_TIME, NO_TRIGGERS, STRETCH, Backlog, Triggers
from streamer.events.hits import NO_HITS, RawHits
from streamer.events.pedestals import Pedestals
from streamer.geometry import Geometry
from tests.cards import SECOND, START, Card, Run, as_batch, delays, pps, run, times
from writer import RawWriter
from writer.simulate import simulate

FIRST = START + 3_000_000
BUILDERS = {
    "gap": GapBuilder(),
    "short gaps": GapBuilder(gap_ticks=300, longest_ticks=700, min_hits=2),
    "window": WindowBuilder(threshold=3),
    "long windows": WindowBuilder(bin_ticks=400, threshold=1, margin=2, longest_bins=7),
    "no margin": WindowBuilder(threshold=2, margin=0, longest_bins=2),
    "trigger": TriggerBuilder(io_groups=1),
    "early trigger": TriggerBuilder(before_ticks=900, bits=255),
    "trigger and rest": TriggerBuilder(before_ticks=70, rest=WindowBuilder(threshold=3)),
    "early trigger and rest": TriggerBuilder(before_ticks=900, rest=WindowBuilder(threshold=2)),
    "trigger and gaps": TriggerBuilder(io_groups=[2, 1], rest=GapBuilder(min_hits=2)),
}


# ------------------------------------------------------------ slow, obvious references


def gaps(rule, ticks, triggers):
    """Go from hit to hit."""
    found, event = [], []
    for tick in ticks:
        far = event and tick - event[-1] > rule.gap_ticks
        if far or (event and tick - event[0] > rule.longest_ticks):
            found.append((event[0], event[-1] + 1, event, not far))
            event = []
        event = [*event, tick]
    if event:
        found.append((event[0], event[-1] + 1, event, False))
    return [one for one in found if len(one[2]) >= rule.min_hits]


def windows(rule, ticks, triggers):
    """Mark bins, then collect neighbours."""
    counts = {}
    for tick in ticks:
        counts[tick // rule.bin_ticks] = counts.get(tick // rule.bin_ticks, 0) + 1
    marked = {
        number + side
        for number, count in counts.items()
        if count > rule.threshold
        for side in range(-rule.margin, rule.margin + 1)
    }
    found = []
    for number in sorted(marked):
        if number - 1 in marked and number < found[-1][0] + rule.longest_bins:
            found[-1][1] = number + 1
        else:
            if number - 1 in marked:
                found[-1][2] = True
            found.append([number, number + 1, False])
    made = []
    for first, last, is_cut in found:
        start, stop = first * rule.bin_ticks, last * rule.bin_ticks
        hits = [tick for tick in ticks if start <= tick < stop]
        if len(hits) >= rule.min_hits:
            made.append((start, stop, hits, is_cut))
    return made


def triggered(rule, ticks, triggers):
    """Give each hit to the first trigger in whose window it is."""
    groups = rule.io_groups
    groups = None if groups is None else {groups} if isinstance(groups, int) else {*groups}
    chosen = [
        tick
        for tick, io_group, bits in triggers
        if (groups is None or io_group in groups) and bits & rule.bits
    ]
    left, found = list(ticks), []
    for trigger in chosen:
        start, stop = trigger - rule.before_ticks, trigger + rule.after_ticks + 1
        hits = [tick for tick in left if start <= tick < stop]
        left = [tick for tick in left if not start <= tick < stop]
        if len(hits) >= rule.min_hits:
            found.append((start, stop, hits, False))
    return found + (reference(rule.rest, left, triggers) if rule.rest is not None else [])


def reference(rule, ticks, triggers=()):
    """All events of all hits at once: start, stop, ticks of the hits, whether cut."""
    rules = {GapBuilder: gaps, WindowBuilder: windows, TriggerBuilder: triggered}
    return rules[type(rule)](rule, ticks, triggers)


def plain(found):
    """Events or drafts as the references have them."""
    return [
        (one.start, one.stop, one.hits.ticks.tolist(), bool(one.is_cut))
        for one in found
        if not isinstance(one, Gap)
    ]


# --------------------------------------------------------------------------- builders


def raw(ticks) -> RawHits:
    ticks = np.array(ticks, np.int64)
    rest = (
        np.arange(len(ticks)),
        np.zeros(len(ticks), np.uint32),
        np.zeros(len(ticks), np.uint16),
    )
    return RawHits(ticks, *rest)


def trigger_words(triggers) -> Triggers:
    columns = zip(*triggers, strict=True) if triggers else ((), (), ())
    ticks, io_groups, bits = (np.array(column, np.int64) for column in columns)
    return Triggers(ticks, np.arange(len(ticks)), io_groups, bits)


def built(rule, ticks, triggers, edges):
    """Build from hits that come in several parts."""
    building, found, start = rule.begin(), [], -1
    for edge in [*sorted(edges), ALL_TIME]:
        part = raw([tick for tick in ticks if start <= tick < edge])
        some = trigger_words([one for one in triggers if start <= one[0] < edge])
        drafts = building.add(part, some, edge)
        # As soon as it is possible, and no sooner.
        assert all(start < draft.needs <= edge for draft in drafts)
        assert [draft.needs for draft in drafts] == sorted(draft.needs for draft in drafts)
        found += drafts
        start = edge
    return found


def rule_step(rule) -> int:
    """Ticks of a bin, of rules with bins."""
    return getattr(getattr(rule, "rest", None) or rule, "bin_ticks", 910)


many_ticks = st.one_of(
    st.lists(st.one_of(st.integers(0, 30_000), st.integers(10_000, 13_000)), max_size=60),
    st.lists(st.integers(0, 9_000), min_size=30, max_size=80),
).map(sorted)
some_triggers = st.lists(
    st.tuples(st.integers(0, 30_000), st.integers(1, 3), st.integers(1, 3)), max_size=6
).map(sorted)


@pytest.mark.parametrize("name", BUILDERS)
@settings(max_examples=40, deadline=None)
@given(ticks=many_ticks, triggers=some_triggers, data=st.data())
def test_a_builder_finds_what_its_rule_says(name, ticks, triggers, data):
    """However many hits it is given at once."""
    rule = BUILDERS[name]
    # Anywhere, and where something may just be complete or not.
    origins = [*ticks, *(tick for tick, *_ in triggers), *range(0, 30_000, rule_step(rule))]
    lengths = [0, 70, 300, 700, 900, 1_820, 2_002, 5_460]
    near = st.builds(
        lambda origin, length, more: origin + length + more,
        st.sampled_from(origins),
        st.sampled_from(lengths),
        st.integers(-1, 2),
    )
    edges = data.draw(st.lists(st.one_of(st.integers(0, 31_000), near), max_size=12))
    found = built(rule, ticks, triggers, [edge for edge in edges if edge >= 0])
    assert sorted(plain(found)) == sorted(reference(rule, ticks, triggers))
    assert plain(found) == plain(built(rule, ticks, triggers, []))


def test_a_hit_exactly_a_gap_later_is_of_the_same_event():
    """1,820 ticks are no gap, 1,821 are one."""
    for edges in ([], [1_820], [1_821], [3_640], [3_641]):
        found = plain(built(GapBuilder(), [0, 1_820, 3_641], [], edges))
        assert [hits for *_, hits, _ in found] == [[0, 1_820], [3_641]]


def test_an_event_without_gaps_is_cut():
    """After three gaps; and it says so."""
    found = plain(built(GapBuilder(), range(0, 12_000, 100), [], []))
    assert [(start, stop, is_cut) for start, stop, _, is_cut in found] == [
        (0, 5_401, True),
        (5_500, 10_901, True),
        (11_000, 11_901, False),
    ]


def test_a_bin_needs_more_hits_than_the_threshold():
    """Ten are not enough, eleven are; one bin on each side is added."""
    assert plain(built(WindowBuilder(), [9_100] * 10, [], [])) == []
    assert plain(built(WindowBuilder(), [8_190, 10_919] + [9_100] * 11, [], []))[0][:2] == (
        8_190,
        10_920,
    )


def test_a_trigger_takes_the_hits_of_its_window():
    """From t0 to t0 + 2,002, both included; and not those of another card's trigger."""
    triggers = [(1_000, 5, 2), (2_500, 6, 2), (9_000, 5, 1)]
    [found] = built(TriggerBuilder(io_groups=5), [999, 1_000, 3_002, 3_003], triggers, [])
    assert found.hits.ticks.tolist() == [1_000, 3_002]
    assert found.trigger == (0, 5, 2, 1_000)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (partial(GapBuilder, gap_ticks=0), "gap_ticks is 0"),
        (partial(GapBuilder, min_hits=1.5), "min_hits is 1.5"),
        (partial(WindowBuilder, bin_ticks=0), "bin_ticks is 0"),
        (partial(WindowBuilder, margin=-1), "margin is -1"),
        (partial(WindowBuilder, longest_bins=0), "longest_bins is 0"),
        (partial(TriggerBuilder, bits=0), "bits is 0"),
        (partial(TriggerBuilder, bits=256), "bits is 256"),
        (partial(TriggerBuilder, after_ticks=-1), "after_ticks is -1"),
        (partial(TriggerBuilder, io_groups=300), "io_groups is 300"),
        (partial(TriggerBuilder, io_groups=[1, -1]), r"io_groups is \[1, -1\]"),
        (partial(events, [], io_groups=256), "io_groups is 256"),
        (partial(events, [], io_groups=[1, 300]), r"io_groups is \[1, 300\]"),
        (partial(events, [], io_groups=[]), r"io_groups is \[\]"),
        (partial(events, [], io_groups=1.5), "io_groups is 1.5"),
        (partial(events, [], io_groups="12"), "io_groups is '12'"),
        (partial(GapBuilder, min_hits=True), "min_hits is True"),
        (partial(TriggerBuilder, io_groups=True), "io_groups is True"),
        (partial(events, [], io_groups=[1, True]), r"io_groups is \[1, True\]"),
        (partial(events, [], max_hits=True), "max_hits is True"),
        (partial(Assembly, GapBuilder(), lateness=-1.0), "lateness is -1.0"),
        (partial(Assembly, GapBuilder(), lateness=float("nan")), "lateness is nan"),
        (partial(Assembly, GapBuilder(), max_hits=0), "max_hits is 0"),
        (partial(Assembly, GapBuilder(), veto_ticks=-1), "veto_ticks is -1"),
    ],
)
def test_senseless_parameters_are_refused(make, what):
    """And the error says which, and what it was."""
    with pytest.raises(ValueError, match=what):
        make()


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (partial(events, [], builder=GapBuilder), "builder is <class .*such as GapBuilder()"),
        (partial(events, [], builder="gap"), "builder is 'gap', .*such as GapBuilder()"),
        (partial(events, [], geometry="x.yaml"), "geometry is 'x.yaml', .*Geometry.load"),
        (partial(events, [], geometry=Geometry), "geometry is <class .*Geometry.load"),
        (partial(events, [], pedestals="x.json"), "pedestals is 'x.json', .*Pedestals.load"),
        (partial(events, [], clock="auto"), "clock is 'auto', .*such as Clock()"),
        (partial(TriggerBuilder, rest=GapBuilder), "rest is <class .*such as GapBuilder()"),
    ],
)
def test_what_is_no_object_of_its_kind_is_refused(make, what):
    """At once, not when the first event comes; and the error says how to make one."""
    with pytest.raises(TypeError, match=what):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda n: GapBuilder(gap_ticks=n(200), longest_ticks=n(250), min_hits=n(2)),
        lambda n: WindowBuilder(
            bin_ticks=n(200), threshold=n(2), margin=n(2), longest_bins=n(9), min_hits=n(2)
        ),
        lambda n: TriggerBuilder(bits=n(255), after_ticks=n(250), before_ticks=n(250)),
    ],
    ids=["gap", "window", "trigger"],
)
def test_numbers_of_numpy_are_as_good_as_others(make):
    """As they come out of a column of one byte, where sums would overflow."""
    sent = detector().packets()
    expected = shown(events([sent], builder=make(int), max_hits=250, veto_ticks=200))
    numbers = {"max_hits": np.uint8(250), "veto_ticks": np.uint8(200)}
    assert shown(events([sent], builder=make(np.uint8), **numbers)) == expected
    assert expected


# --------------------------------------------------------------------------- waiting


def slowly_held(words, lateness, max_hits):
    """Go from word to word: what is kept, and how many are late and find no room."""
    newest, before, kept, late, over = -ALL_TIME, -ALL_TIME, [], 0, 0
    for receipt, tick in words:
        newest, before = max(newest, min(receipt, before)), receipt
        edge = (newest - lateness) // STRETCH
        if tick is None:
            continue
        if tick // STRETCH < edge:
            late += 1
        elif sum(other // STRETCH >= edge for other in kept) >= max_hits:
            over += 1
        else:
            kept.append(tick)
    return sorted(kept), late, over


@pytest.mark.parametrize("kind", ["hits", "triggers"])
@settings(max_examples=150, deadline=None)
@given(
    words=st.lists(
        st.tuples(
            st.integers(0, 12 * STRETCH),
            st.one_of(st.none(), st.integers(0, 3 * STRETCH)),
        ),
        max_size=40,
    ),
    lateness=st.integers(0, 3 * STRETCH),
    max_hits=st.sampled_from([1, 3, 100]),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    is_ordered=st.booleans(),
)
def test_what_comes_waits_until_its_time_is_closed(
    kind, words, lateness, max_hits, cuts, is_ordered
):
    """What is late or over the limit is decided word by word, however many are taken."""
    if is_ordered:
        words.sort(key=lambda word: word[0])
    # A hit is received after it was digitised; a trigger word may be late as well.
    words = [
        (receipt, None if delay is None else max(0, receipt - delay)) for receipt, delay in words
    ]
    backlog, found, start = Backlog(lateness, max_hits), [], 0
    for stop in [*sorted(cuts), len(words)]:
        some = words[start : max(start, stop)]
        places = np.array([k for k, (_, tick) in enumerate(some) if tick is not None], np.int64)
        ticks = [tick for _, tick in some if tick is not None]
        receipts = np.array([receipt for receipt, _ in some], np.int64)
        nothing = np.zeros(0, np.int64)
        if kind == "hits":
            found += backlog.take(receipts, places, raw(ticks), nothing, NO_TRIGGERS)
        else:
            triggers = trigger_words([(tick, 1, 2) for tick in ticks])
            found += backlog.take(receipts, nothing, NO_HITS, places, triggers)
        start = max(start, stop)
    found += backlog.finish()
    parts = [getattr(closed, kind) for closed in found]
    assert sum(len(closed.hits.ticks) + len(closed.triggers.ticks) for closed in found) == sum(
        len(part.ticks) for part in parts
    )
    ticks = [tick for part in parts for tick in part.ticks.tolist()]
    waiting = getattr(backlog, kind)
    assert (ticks, waiting.n_late, waiting.n_over) == slowly_held(words, lateness, max_hits)
    for closed, part in zip(found, parts, strict=True):
        assert (part.ticks < closed.upto).all()
    assert waiting.n_held == 0


# -------------------------------------------------------------------- a whole stream


def bursts(seed=1, *, io_group=1, seconds=4, rate=200, **options) -> Card:
    """A card with noise, and with many hits at once now and then."""
    rng = np.random.default_rng(seed)
    noise = times(rng, FIRST, seconds, rate)
    # At the same times for all cards.
    shared = np.random.default_rng(99)
    tracks = shared.integers(FIRST, FIRST + seconds * SECOND, 7 * seconds)
    crossing = tracks[:, np.newaxis] + rng.integers(0, 2_500, (len(tracks), 40))
    hits = np.sort(np.concatenate([noise, crossing.ravel()]))
    late = delays(rng, len(hits))
    order = np.argsort(hits + late, kind="stable")
    return Card(
        (hits + late)[order],
        pps(FIRST, seconds + 1),
        io_group=io_group,
        delays=late[order],
        triggers=np.sort(tracks[::2] + 5),
        **options,
    )


def detector(seed=1) -> Run:
    """Three cards whose messages come more or less late."""
    return run(*(bursts(seed + k, io_group=k + 1, skew=k * 700_000) for k in range(3)))


def shown(found) -> list:
    """All that there is in events."""
    return [
        found_one
        if isinstance(found_one, Gap)
        else (
            found_one.number,
            found_one.start,
            found_one.stop,
            found_one.time,
            found_one.trigger,
            found_one.is_cut,
            found_one.io_group,
            found_one.hits.to_records().tobytes(),
        )
        for found_one in found
    ]


def truth(sent: Run) -> tuple[list[int], list[tuple[int, int, int]]]:
    """Ticks of all hits that a clock can place, and triggers."""
    packets, clock = sent.packets(), Clock()
    placed = clock.unwrap(packets) >= 0
    hits = np.sort(sent.ticks[packets.is_data & placed])
    chosen = packets.is_trigger & placed
    columns = (sent.ticks[chosen], packets.io_group[chosen], packets.trigger_type[chosen])
    return hits.tolist(), sorted(zip(*(c.tolist() for c in columns), strict=True))


@pytest.mark.parametrize("name", ["gap", "window", "trigger", "trigger and rest"])
def test_events_of_a_stream_are_those_of_all_its_hits(name):
    """Of all cards together, in whatever order their hits came."""
    sent = detector()
    found = events([sent.packets()], builder=BUILDERS[name])
    assert sorted(plain(found)) == sorted(reference(BUILDERS[name], *truth(sent)))
    assert found.counts["late"] == 0


def test_hits_are_sorted_by_time_and_keep_their_fields():
    """Each with the row, the address and the ADC value that its packet has."""
    sent = detector()
    packets = sent.packets()
    by_address = {}
    for k in np.flatnonzero(packets.is_data).tolist():
        key = (packets.io_group[k], sent.ticks[k], packets.chip_id[k], packets.channel_id[k])
        by_address[key] = (packets.row[k], packets.io_channel[k], packets.dataword[k])
    count = 0
    for event in events([packets]):
        hits = event.hits
        assert (np.diff(hits.ticks) >= 0).all()
        assert ((event.start <= hits.ticks) & (hits.ticks < event.stop)).all()
        for k in range(len(hits)):
            key = (hits.io_group[k], hits.ticks[k], hits.chip_id[k], hits.channel_id[k])
            assert by_address[key] == (hits.row[k], hits.io_channel[k], hits.adc[k])
            count += 1
    assert count > 2_000


def test_events_are_numbered_and_have_a_unix_time():
    """From 0 on; the time is that of the start."""
    found = list(events([detector().packets()]))
    assert [event.number for event in found] == list(range(len(found)))
    assert all(event.time == event.start / SECOND for event in found)
    assert START / SECOND < found[0].time < START / SECOND + 4


@pytest.mark.parametrize("name", ["gap", "window", "trigger and rest"])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_events_do_not_depend_on_how_the_stream_is_cut(name, data):
    """Not their hits, their numbers, their order, nor what is counted."""
    sent = detector()
    options = {"builder": BUILDERS[name], "lateness": data.draw(st.sampled_from([0.05, 0.1, 1.0]))}
    options["max_hits"] = data.draw(st.sampled_from([50, 400, 1_000_000]))
    whole = events([sent.packets()], **options)
    cuts = data.draw(st.lists(st.integers(0, len(sent.batch)), max_size=30))
    parts = events(sent.parts(cuts), **options)
    assert shown(parts) == shown(whole)
    assert parts.counts == whole.counts
    assert parts.clock.counts == whole.clock.counts


def test_batches_of_1_and_of_8000_rows_give_the_same_events():
    """As a follower may give them."""
    sent = detector()
    expected = shown(events([sent.packets()]))
    assert len(expected) > 20
    n = len(sent.batch)
    assert shown(events(sent.parts(range(n)))) == expected
    assert shown(events(sent.parts(range(0, n, 8_000)))) == expected


def test_every_hit_is_counted_once():
    """Whatever becomes of it, also in the middle of the stream."""
    sent = detector()
    sent.batch.buffer[sent.batch.starts[::9] + 8 + 15] ^= 0x80
    assembly = Assembly(
        WindowBuilder(), lateness=0.03, max_hits=150, io_groups=[1, 2], veto_ticks=500_000
    )
    kinds = ("other io_groups", "bad parity", "vetoed", "not placed", "late", "over the limit")
    for part in sent.parts(range(0, len(sent.batch), 50)):
        assembly.add(part)
        counts = assembly.counts
        of_hits = [counts[name] for name in (*kinds, "waiting", "in events", "in no event")]
        assert sum(of_hits) == counts["hits"]
        assert min(of_hits) >= 0
    assembly.finish()
    assert assembly.counts["waiting"] == 0
    assert not [name for name in kinds if not assembly.counts[name]]


def test_late_hits_are_counted_and_in_no_event():
    """What comes when its time is closed changes nothing else."""
    on_time = [bursts(k, io_group=k) for k in (1, 2)]
    # At the end nothing newer makes it late.
    until = FIRST + 3 * SECOND
    expected = [
        event[1:3]
        for event in shown(events([run(*on_time).packets()], lateness=0.5))
        if event[2] < until
    ]
    sent = run(*on_time, bursts(3, io_group=3, skew=9_000_000))
    late = events([sent.packets()], lateness=0.5)
    found = [event for event in late if event.stop < until]
    assert [(event.start, event.stop) for event in found] == expected
    assert len(expected) > 15
    assert not any((event.hits.io_group == 3).any() for event in found)
    n_third = np.count_nonzero(sent.packets().is_data & (sent.packets().io_group == 3))
    assert 0.4 * n_third < late.counts["late"] < n_third
    assert late.counts["late triggers"] > 3


@pytest.mark.parametrize("free", [False, True])
def test_one_damaged_counter_makes_no_other_hit_late(free):
    """Where headers have no time to contradict it, as from the newer wire's data servers."""
    one = bursts(1, wire="new24", asic="v3", has_time=False)
    if free:
        one.resets = np.array([FIRST - 20 * SECOND])
    sent = run(one)
    expected = events([sent.packets()], builder=GapBuilder())
    n_expected = sum(event.n_hits for event in expected)
    middle = sent.batch.starts[len(sent.batch) // 2]
    sent.batch.buffer[middle + 24 + 8 + 5] ^= 0x20
    found = events([sent.packets()], builder=GapBuilder())
    assert sum(event.n_hits for event in found) >= n_expected - 1
    assert found.counts["late"] == 0


def test_words_of_which_the_time_is_not_known_do_not_hold_up_the_rest():
    """Nor headers: also of messages of one word what waits is closed, however cut."""
    cards = [bursts(k, io_group=k, words_per_message=1) for k in (1, 2)]
    cards[1].resets = np.array([FIRST - 20 * SECOND])
    sent = run(*cards)
    options = {"builder": GapBuilder(), "max_hits": 60, "lateness": 0.1}
    whole = events([sent.packets()], **options)
    expected = shown(whole)
    parts = events(sent.parts(range(len(sent.batch))), **options)
    assert shown(parts) == expected
    assert parts.counts == whole.counts


def test_what_waits_is_bounded():
    """And what finds no room is counted."""
    assembly = Assembly(GapBuilder(), max_hits=100, lateness=1.0)
    for part in detector().parts(range(0, 10_000, 20)):
        assembly.add(part)
        assert assembly.counts["waiting"] <= 100
    assert assembly.counts["over the limit"] > 1_000


def test_triggers_that_wait_are_bounded():
    """By the same limit; what finds no room is counted, and the rest are events."""
    one = bursts(seconds=2, rate=0)
    one.triggers = START + SECOND + 300_000 + 20 * np.arange(5_000)
    sent = run(one)
    found = events([sent.packets()], builder=TriggerBuilder(io_groups=1), max_hits=100)
    ticks = [event.trigger.ticks for event in found]
    assert found.counts["triggers over the limit"] == len(one.triggers) - 100
    assert ticks == one.triggers[:100].tolist()


def test_a_limit_of_hits_that_is_not_reached_changes_nothing():
    """Memory is bounded without a cost."""
    sent = detector()
    assert shown(events([sent.packets()], max_hits=10_000)) == shown(events([sent.packets()]))


def test_hits_with_a_bad_parity_can_be_kept():
    """They are left out if nothing else is said."""
    sent = detector()
    sent.batch.buffer[sent.batch.starts + 8 + 15] ^= 0x80
    every = events([sent.packets()], builder=GapBuilder(), bad_parity=True)
    some = events([sent.packets()], builder=GapBuilder())
    n_every, n_some = (sum(event.n_hits for event in found) for found in (every, some))
    assert n_every - n_some == some.counts["bad parity"] - (
        every.counts["not placed"] - some.counts["not placed"]
    )
    assert some.counts["bad parity"] > 100


def test_hits_of_chosen_cards_only():
    """The others are still used to tell the time."""
    sent = detector()
    found = list(events([sent.packets()], builder=GapBuilder(), io_groups=[2]))
    assert {*np.concatenate([event.hits.io_group for event in found]).tolist()} == {2}
    for two in (2, np.uint8(2), (2,), np.array([2], np.uint8)):
        assert shown(events([sent.packets()], builder=GapBuilder(), io_groups=two)) == shown(found)


def test_hits_just_after_the_pulse_can_be_vetoed():
    """By the chip's own counter."""
    sent = detector()
    found = events([sent.packets()], builder=GapBuilder(), veto_ticks=1_000_000)
    ticks = np.concatenate([event.hits.ticks for event in found])
    assert (ticks % SECOND >= 1_000_000).all()
    assert found.counts["vetoed"] > 100


def test_simulated_hits_all_become_events():
    """At the end nothing waits, and nothing was late."""
    batches = simulate("module0", seed=5, seconds=2)
    found = events((as_batch(sent).packets() for sent in batches), builder=GapBuilder())
    hits = sum(event.n_hits for event in found)
    counts = found.counts
    assert (
        hits == counts["in events"] == counts["hits"] - counts["not placed"] - counts["bad parity"]
    )
    assert counts["late"] == counts["waiting"] == counts["in no event"] == 0
    assert hits > 100_000


def test_cards_that_run_free_have_events_of_their_own():
    """Their times cannot be compared; the order is that of the words, however cut."""
    cards = []
    for io_group in (1, 2):
        one = bursts(io_group, io_group=io_group)
        one.resets = np.array([FIRST - (20 + io_group) * SECOND])
        cards.append(one)
    sent = run(*cards, bursts(3, io_group=3))
    found = list(events([sent.packets()]))
    assert {event.io_group for event in found} == {1, 2, None}
    for event in found:
        assert {*event.hits.io_group.tolist()} == {event.io_group or 3}
        assert event.time is not None
    cuts = range(0, len(sent.batch), 7)
    assert shown(events(sent.parts(cuts))) == shown(found)


def test_without_a_time_in_headers_events_have_none():
    """As of the newer wire's data servers; their ticks count from the first reset."""
    sent = run(bursts(1, wire="new24", asic="v3", has_time=False))
    found = list(events([sent.packets()]))
    assert found
    assert {event.time for event in found} == {None}
    assert found[-1].stop < 6 * SECOND


def test_a_gap_in_the_stream_is_passed_on():
    """In its place, as a follower gives it."""
    first, second = detector().parts([400])
    gap = Gap(400, 500, "lost")
    found = list(events([first, gap, second]))
    assert found.count(gap) == 1
    plain_events = [one for one in found if one is not gap]
    assert [event.number for event in plain_events] == list(range(len(plain_events)))


def test_what_is_neither_packets_nor_a_gap_is_refused(tmp_path: Path):
    """As of a follower whose packets() was forgotten: it would look like an event."""
    path, sent = tmp_path / "raw.h5", detector()
    with RawWriter(path, io_version="0.0") as out:
        out.append(sent.batch.tolist(), io_groups=sent.batch.io_groups)

    async def main(name: str) -> None:
        async with follow(path, until="end") as live:
            await every(events(live if name == "Message" else live.batches()))

    for name in ("Message", "Batch"):
        what = rf"a {name} came: .*\.packets\(\)"
        with tail(path, until="end") as live, pytest.raises(TypeError, match=what):
            list(events(live if name == "Message" else live.batches()))
        with pytest.raises(TypeError, match=what):
            anyio.run(main, name)


# ------------------------------------------------------------- places and charges


def test_hits_have_places_and_charges():
    """By the geometry and the pedestals that are given."""
    geometry = Geometry.grid(io_groups=2)
    pedestals = Pedestals(default=500.0)
    hits = [
        event.hits
        for event in events([detector().packets()], geometry=geometry, pedestals=pedestals)
    ]
    for one in hits:
        places = geometry.places(one.io_group, one.io_channel, one.chip_id, one.channel_id)
        assert np.array_equal(one.x, places.x, equal_nan=True)
        assert np.array_equal(one.y, places.y, equal_nan=True)
        assert (one.mapped == (one.io_group < 3)).all()
        expected = (one.adc / 256 * (1568 - 478.1) + 478.1 - 500) / 4
        assert np.allclose(one.charge, expected, rtol=1e-6)
        assert one.charge.dtype == one.x.dtype == np.float32


def test_the_adc_of_v3_chips_has_10_bits():
    """The charge is of 1,024 steps, and a card's chips may be of another kind."""
    sent = run(bursts(1, asic="v3"), bursts(2, io_group=2))
    for event in events([sent.packets()], pedestals=Pedestals()):
        steps = np.where(event.hits.io_group == 1, 1024, 256)
        expected = (event.hits.adc / steps * (1568 - 478.1) + 478.1 - 580) / 4
        assert np.allclose(event.hits.charge, expected, rtol=1e-5)


def test_without_geometry_and_pedestals_nothing_is_invented():
    """No place, no charge."""
    hits = next(events([detector().packets()])).hits
    assert hits.charge is None
    assert np.isnan([hits.x, hits.y, hits.z]).all()
    assert not hits.mapped.any()


def test_pedestals_are_those_of_the_channel(tmp_path: Path):
    """By io_group, tile, chip and channel; others have the default, and are counted."""
    path = tmp_path / "pedestals.json"
    path.write_text(json.dumps({"2-8-110-63": 478.1, "1-1-11-0": 480.1}))
    pedestals = Pedestals.load(path, vref=1502.1, vcm=478.1, gain=2.0)
    columns = ([2, 2, 1, 9], [32, 29, 4, 1], [110, 110, 11, 11], [63, 62, 0, 0], [64, 64, 64, 64])
    charge = pedestals.charge(*(np.array(column, np.uint8) for column in columns))
    assert np.allclose(charge, [128, 77.05, 127, 77.05])
    assert (pedestals.n_channels, pedestals.missing) == (2, 2)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[1, 2]", "holds a list"),
        ('{"1-1-11": 5}', "'1-1-11'"),
        ('{"1-1-11-64": 5}', "'1-1-11-64'"),
        ('{"1-1-11-0": "5"}', "1-1-11-0 is '5'"),
        ('{"1-1-11-0": true}', "1-1-11-0 is True"),
        ('{"1-1-11-0": NaN}', "1-1-11-0 is nan"),
        ('{"1-1-11-0": 5, "1-1-11-0": 6}', "'1-1-11-0' is there twice"),
        ("1-1-11-0: 5\n1-1-11-0: 6", "'1-1-11-0' is there twice"),
        ("{", "not JSON"),
        ("", "empty; give a file of pedestals"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_wrong_pedestals_are_refused(tmp_path: Path, text, what):
    """The error names the file and the key."""
    path = tmp_path / "pedestals.json"
    path.write_text(text)
    with pytest.raises(PedestalError, match=what) as caught:
        Pedestals.load(path)
    assert str(path) in str(caught.value)


def test_what_is_not_a_file_of_pedestals_is_refused(tmp_path: Path):
    """At once: nothing waits for a pipe that nobody writes to."""
    with pytest.raises(PedestalError, match="file of pedestals cannot be read: No such file"):
        Pedestals.load(tmp_path / "absent.json")
    os.mkfifo(tmp_path / "pipe")
    for path, what in ((tmp_path / "pipe", "no ordinary file"), (tmp_path, "a folder")):
        with pytest.raises(PedestalError, match=rf"{what}; give a file of pedestals"):
            Pedestals.load(path)


def test_pedestals_may_be_yaml(tmp_path: Path):
    """As geometry files may: one reader reads both."""
    (tmp_path / "pedestals.yaml").write_text("1-1-11-0: 580.2\n1-1-11-1: 575\n")
    assert Pedestals.load(tmp_path / "pedestals.yaml").n_channels == 2


@pytest.mark.parametrize("wrong", [{"gain": 0.0}, {"vref": 100.0}, {"vcm": float("nan")}])
def test_senseless_voltages_are_refused(wrong):
    """An ADC has a range, and charge a scale."""
    with pytest.raises(PedestalError):
        Pedestals(**wrong)


# ------------------------------------------------------------------------- iterators


class Source:
    """An asynchronous stream that waits before each item, and can fail once."""

    def __init__(self, items, fails=()):
        self.items, self.fails = list(items), set(fails)

    def __aiter__(self):
        return self

    async def __anext__(self) -> Packets:
        await anyio.lowlevel.checkpoint()
        if len(self.items) in self.fails:
            self.fails.remove(len(self.items))
            raise OSError("try again")
        if not self.items:
            raise StopAsyncIteration
        return self.items.pop(0)


BACKENDS = ("asyncio", "trio")


async def every(stream) -> list:
    return [event async for event in stream]


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_iterators_give_the_same_events(backend: str):
    """With ``for`` and with ``async for``."""
    parts = detector().parts(range(0, 3_000, 40))
    found = anyio.run(every, events(Source(parts)), backend=backend)
    assert shown(found) == shown(events(parts))


@pytest.mark.parametrize("backend", BACKENDS)
def test_who_is_cancelled_loses_nothing(backend: str):
    """Wherever: each event comes once, in order."""
    parts = detector().parts(range(0, 3_000, 40))

    async def main() -> tuple[list, int]:
        stream, found, cancelled = events(Source(parts)), [], 0
        for turn in itertools.count():
            with anyio.CancelScope() as scope:
                if turn % 3:
                    scope.cancel()
                try:
                    found.append(await anext(stream))
                except StopAsyncIteration:
                    return found, cancelled
            cancelled += scope.cancelled_caught
        raise AssertionError

    found, cancelled = anyio.run(main, backend=backend)
    assert cancelled > 5
    assert shown(found) == shown(events(parts))


@pytest.mark.parametrize("backend", BACKENDS)
def test_after_an_error_of_the_stream_it_goes_on(backend: str):
    """As after a WriterStalled: whoever asks again is given the next event."""
    parts = detector().parts(range(0, 3_000, 40))

    async def main() -> tuple[list, int]:
        stream, found, errors = events(Source(parts, fails=[0, 5, 30])), [], 0
        while True:
            try:
                found.append(await anext(stream))
            except OSError:
                errors += 1
            except StopAsyncIteration:
                return found, errors

    found, errors = anyio.run(main, backend=backend)
    assert errors == 3
    assert shown(found) == shown(events(parts))


def test_an_iterator_that_has_ended_stays_so():
    """The last events come once."""
    packets = detector().packets()
    stream, twin = events(Source([packets])), events([packets])
    assert anyio.run(every, stream)
    assert anyio.run(every, stream) == []
    assert list(twin)
    assert list(twin) == []


def test_nothing_gives_nothing():
    """An empty stream, or packets without a word."""
    sent = detector()
    empty = sent.batch.select(np.zeros(len(sent.batch), bool)).packets()
    assert list(events([])) == list(events([empty])) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_events_of_a_file_that_is_followed(backend: str, tmp_path: Path):
    """From a real file, with a follower and with its synchronous twin."""
    path, sent = tmp_path / "raw.h5", detector()
    with RawWriter(path, io_version="0.0") as out:
        out.append(sent.batch.tolist(), io_groups=sent.batch.io_groups)
    expected = shown(events([sent.packets()]))

    async def main() -> list:
        async with follow(path, max_batch_bytes=20_000) as live:
            return await every(events(live.packets()))

    assert shown(anyio.run(main, backend=backend)) == expected
    with tail(path, max_batch_bytes=3_000) as live:
        assert shown(events(live.packets())) == expected
