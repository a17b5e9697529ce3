"""The simulated detector: what it promises, and what larpix-control makes of it."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from larpix.format import pacman_msg_format as control

from writer import simulate as module
from writer.pacman import DATA_BITS, HEADER, WORD, PacketType, SyncType, Word, parity_ok
from writer.recording import record
from writer.simulate import LOADS, START_TIME, Detector, Load, simulate

SECOND = 10_000_000
SEED = 3


class Stream:
    """A simulated run as columns: one line a message, and one a word."""

    def __init__(self, load, seconds, **options):
        batches = list(simulate(load, seed=SEED, seconds=seconds, **options))
        self.detector = Detector(LOADS[load], SEED)
        self.seconds = seconds
        self.buffer = np.concatenate([batch.buffer for batch in batches])
        self.lengths = np.concatenate([batch.lengths for batch in batches])
        self.io_groups = np.concatenate([batch.io_groups for batch in batches])
        starts = np.cumsum(self.lengths) - self.lengths
        in_header = (starts[:, np.newaxis] + np.arange(8)).ravel()
        self.headers = self.buffer[in_header].view(HEADER)
        self.words = np.delete(self.buffer, in_header).view(WORD)
        self.counts = (self.lengths - 8) // 16
        self.message = np.repeat(np.arange(len(self.lengths)), self.counts)
        self.word_io_groups = self.io_groups[self.message]

    def of(self, kind):
        """Words of a kind, and their io_groups."""
        chosen = self.words["type"] == kind.letter
        return self.words.view(kind.dtype)[chosen], self.word_io_groups[chosen]

    def hits(self):
        """Packets of hits, as a column for each of their fields."""
        data, io_groups = self.of(Word.DATA)
        hit = data["packet"] & 3 == PacketType.DATA
        columns = {
            name: (data["packet"][hit] >> low & (1 << n) - 1).astype(np.int64)
            for name, (low, n) in DATA_BITS.items()
        }
        others = {"io_group": io_groups[hit].astype(np.int64)}
        for name in ("io_channel", "receipt_timestamp"):
            others[name] = data[name][hit].astype(np.int64)
        return columns | others

    def sync_words(self, kind):
        words, io_groups = self.of(Word.SYNC)
        chosen = words["sync_type"] == kind
        return words[chosen], io_groups[chosen]


@pytest.fixture(scope="module")
def run():
    return Stream("2x2", 3)


@pytest.fixture(scope="module")
def bench():
    return Stream("tile", 1)


def near(count, expected, sigmas=5):
    return abs(count - expected) <= sigmas * np.sqrt(expected)


def test_same_arguments_same_bytes():
    """A run can be repeated, byte for byte."""
    one, two = (list(simulate("2x2", seed=5, seconds=0.3)) for _ in range(2))
    for first, second in zip(one, two, strict=True):
        for column, again in zip(first, second, strict=True):
            np.testing.assert_array_equal(column, again)


def test_other_seed_other_bytes():
    """Another seed is another run, of another detector."""
    one, two = (next(simulate("tile", seed=seed)) for seed in (1, 2))
    assert one.tolist() != two.tolist()
    first, second = (Detector(LOADS["tile"], seed).hot_channels for seed in (1, 2))
    assert first.tolist() != second.tolist()


def test_batches_differ():
    """One batch does not repeat the one before."""
    one, two = itertools.islice(simulate("tile"), 2)
    assert one.tolist() != two.tolist()


def test_shapes():
    """A batch is three columns that agree with each other."""
    batch = next(simulate("module0"))
    assert (batch.buffer.dtype, batch.lengths.dtype, batch.io_groups.dtype) == ("u1", "i8", "u1")
    assert len(batch.lengths) == len(batch.io_groups)
    assert batch.lengths.sum() == len(batch.buffer)
    assert batch.buffer.flags.c_contiguous


def test_tolist():
    """Messages one by one are the buffer, cut at the lengths."""
    batch = next(simulate("tile"))
    assert [len(message) for message in batch.tolist()] == batch.lengths.tolist()
    assert b"".join(batch.tolist()) == batch.buffer.tobytes()


@pytest.mark.parametrize("name", LOADS)
def test_rates(name):
    """Messages and hits come at the rates of the load."""
    load, seconds = LOADS[name], 2
    stream = Stream(name, seconds)
    sent = load.io_groups * load.messages_per_second * seconds
    # A SYNC word may also cut a message in two; it is itself one.
    assert -5 * sent**0.5 <= len(stream.lengths) - sent <= 5 * sent**0.5 + 6 * load.io_groups
    # Sums of Poisson many sizes scatter by the root of the sum of their squares.
    sigma = np.sqrt(sent * (60 + load.busy_fraction * 64**2 + 1e-4 * 2_700**2))
    hits = len(stream.of(Word.DATA)[0])
    assert abs(hits - load.hits_per_second * seconds) <= 5 * sigma


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("tile", 5_000, 20_000),
        ("module0", 75_000, 190_000),
        ("2x2", 600_000, 645_000),
        ("ndlar", 300_000, 450_000),
    ],
)
def test_loads_are_those_of_real_detectors(name, low, high):
    """The named loads are within what was measured or estimated for those detectors."""
    assert low <= LOADS[name].hits_per_second <= high


def test_every_io_group_sends(run):
    """All cards send alike."""
    numbers = np.bincount(run.io_groups)
    assert numbers[0] == 0
    assert len(numbers) == 1 + 8
    assert all(near(number, numbers[1:].mean()) for number in numbers[1:])


def test_control_parses_every_message(bench):
    """larpix-control reads all messages, and finds as many packets as there are words."""
    stops = np.cumsum(bench.lengths)
    for start, stop, count in zip(stops - bench.lengths, stops, bench.counts, strict=True):
        packets = control.parse(bench.buffer[start:stop].tobytes(), io_group=1)
        assert len(packets) == 1 + count


def test_headers(run):
    """Headers state data, and the words that follow."""
    assert set(run.headers["type"]) == {ord("D")}
    assert run.headers["words"].tolist() == run.counts.tolist()


def test_parity_errors(run):
    """As many packets as stated are damaged."""
    packets = run.of(Word.DATA)[0]["packet"]
    bad = np.count_nonzero(~parity_ok(packets))
    assert near(bad, len(packets) * run.detector.parity_error_fraction)


def test_fifo_flags(run):
    """As many hits as stated have a FIFO half full, and full ones are half full, too."""
    hits = run.hits()
    for flags in (hits["local_fifo"], hits["shared_fifo"]):
        assert set(flags) == {0, 1, 3}
        assert near(np.count_nonzero(flags & 1), len(flags) * run.detector.fifo_half_fraction)
        assert near(np.count_nonzero(flags & 2), len(flags) * run.detector.fifo_full_fraction)


def test_hot_channels(run):
    """The hottest channels are those that the detector names, with the share it states."""
    hits = run.hits()
    columns = [hits[name] for name in ("io_group", "io_channel", "chip_id", "channel_id")]
    channels, counts = np.unique(np.stack(columns), axis=1, return_counts=True)
    hot = run.detector.hot_channels
    hottest = np.argsort(counts)[-len(hot) :]
    assert set(map(tuple, channels.T[hottest].tolist())) == set(map(tuple, hot.tolist()))
    total = counts.sum()
    # All other hits fall anywhere, on these pixels, too.
    assert near(counts[hottest].sum(), total * run.detector.hot_share, sigmas=6)


def test_addresses(run):
    """Chips, channels and io_channels are those of eight tiles of 100 chips."""
    hits = run.hits()
    assert set(hits["chip_id"]) == set(range(11, 111))
    assert set(hits["channel_id"]) == set(range(64))
    assert set(hits["io_channel"]) == set(range(1, 33))


def test_a_chip_has_one_io_channel(run):
    """A tile's chip always sends through the same io_channel."""
    hits = run.hits()
    tiles = (hits["io_channel"] - 1) // 4
    chips = np.unique(np.stack([tiles, hits["chip_id"]]), axis=1)
    pairs = np.unique(np.stack([tiles, hits["chip_id"], hits["io_channel"]]), axis=1)
    assert chips.shape[1] == pairs.shape[1] == 800


def test_datawords(run):
    """ADC counts lie above a pedestal, and hot channels have nothing but that."""
    hits = run.hits()
    key = hits["io_group"] << 24 | hits["io_channel"] << 16 | hits["chip_id"] << 8
    key |= hits["channel_id"]
    hot = np.isin(key, run.detector.hot_channels @ [1 << 24, 1 << 16, 1 << 8, 1])
    assert 44 < hits["dataword"][hot].mean() < 46
    assert 65 < hits["dataword"][~hot].mean() < 75
    assert hits["dataword"].max() == 255


def test_readout_delay(run):
    """A hit is received whole hops after its chip saw it, at times after a reset between."""
    hits = run.hits()
    delay = (hits["receipt_timestamp"] - hits["timestamp"]) % SECOND
    assert np.all(delay % 264 == 0)
    assert delay.min() >= 264
    assert 4 * 264 < delay.mean() < 6 * 264
    assert np.any(hits["receipt_timestamp"] < hits["timestamp"])


def test_clocks_stay_below_a_second(run):
    """Counters are reset each second."""
    hits = run.hits()
    assert hits["timestamp"].max() < SECOND
    assert hits["receipt_timestamp"].max() < SECOND


def test_one_sync_each_second(run):
    """Each card says once a second what its counter was at the reset."""
    words, io_groups = run.sync_words(SyncType.SYNC)
    assert np.bincount(io_groups).tolist() == [0] + 8 * [run.seconds]
    assert np.abs(words["timestamp"].astype(int) - run.detector.sync_period_ticks).max() <= 2
    assert set(words["clk_source"]) == {1}


def test_sync_travels_alone(run):
    """SYNC words make up the messages of one word that idle cards send."""
    is_sync = run.words["type"] == Word.SYNC.letter
    assert set(run.counts[run.message[is_sync]]) == {1}


def test_heartbeats():
    """Each card has a heartbeat every ten seconds, with its counter."""
    stream = Stream("tile", 20)
    words, _ = stream.sync_words(SyncType.HEARTBEAT)
    assert words["timestamp"].tolist() == 2 * [SECOND // 2]


def test_triggers(run):
    """External triggers come from the cards that have them, at their rate."""
    words, io_groups = run.of(Word.TRIG)
    load = run.detector.load
    assert set(words["trigger_type"]) == {2}
    assert set(io_groups) == set(load.trigger_io_groups) == {5, 6}
    assert near(len(words), 2 * load.triggers_per_second * run.seconds)


def test_configuration_packets(run):
    """A few packets write or read registers, as many as stated."""
    kinds = run.of(Word.DATA)[0]["packet"] & 3
    numbers = np.bincount(kinds.astype(int), minlength=4)
    assert numbers[PacketType.TEST] == 0
    assert min(numbers[2:]) > 0
    assert near(numbers[2:].sum(), len(kinds) * run.detector.config_fraction)


def test_words_are_in_the_order_of_time(run):
    """Counters of a card only fall at a SYNC word, in the order of the file."""
    clocks = run.words.view(Word.TRIG.dtype)["timestamp"].astype(np.int64)
    is_data = run.words["type"] == Word.DATA.letter
    clocks[is_data] = run.words.view(Word.DATA.dtype)["receipt_timestamp"][is_data]
    is_reset = run.words.view(Word.SYNC.dtype)["sync_type"] == SyncType.SYNC
    is_reset &= run.words["type"] == Word.SYNC.letter
    for io_group in range(1, 9):
        mine = run.word_io_groups == io_group
        # A reset begins a new second, at zero.
        epochs = np.cumsum(is_reset[mine])
        times = epochs * SECOND + np.where(is_reset[mine], 0, clocks[mine])
        assert np.all(np.diff(times) >= 0)


def test_headers_bear_the_second_of_assembly(run):
    """Seconds in headers never fall, and are those of the words or, shortly after, the next."""
    seconds = run.headers["seconds"].astype(np.int64)
    assert np.all(np.diff(seconds) >= 0)
    assert seconds[0] == START_TIME
    assert START_TIME + run.seconds - 1 <= seconds[-1] <= START_TIME + run.seconds


def test_io_groups_are_interleaved(run):
    """Messages of the cards are mixed as their times are."""
    changes = np.count_nonzero(np.diff(run.io_groups.astype(int)))
    assert changes > 0.8 * len(run.io_groups)


def test_message_sizes(run):
    """Most messages have 5 to 10 words, some have 64, and a few have thousands."""
    counts, n = run.counts, len(run.counts)
    assert np.mean((counts >= 5) & (counts <= 10)) > 0.9
    assert near(np.count_nonzero(counts == 64), n * run.detector.load.busy_fraction)
    bursts = counts[counts >= 1_000]
    assert 0 < len(bursts) < 1e-3 * n
    assert bursts.max() <= 4_002


def test_messages_do_not_depend_on_other_batches():
    """A detector has no state: one interval can be had alone."""
    third = list(simulate("tile", seed=4, seconds=0.3))[2]
    start = START_TIME * SECOND
    alone = Detector(LOADS["tile"], 4).batch(start + SECOND // 5, start + 3 * SECOND // 10)
    assert alone.tolist() == third.tolist()


def test_own_load():
    """A load of one's own is as good as a named one."""
    load = Load(io_groups=3, tiles=2, messages_per_second=100, words_per_message=8)
    stream = list(simulate(load, seconds=1))
    assert set(np.concatenate([batch.io_groups for batch in stream])) == {1, 2, 3}


def test_silent_detector():
    """A detector without hits still sends its SYNC words."""
    load = Load(
        io_groups=2,
        tiles=1,
        messages_per_second=0,
        words_per_message=8,
        triggers_per_second=0,
    )
    batches = list(simulate(load, seconds=2, batch_seconds=0.25))
    assert [len(batch.lengths) for batch in batches] == [2, 0, 2, 0, 2, 0, 0, 0]


def test_unknown_load():
    """A wrong name is refused at once, and the right ones are listed."""
    with pytest.raises(ValueError, match="no load '3x3', only tile, module0, 2x2, ndlar"):
        simulate("3x3")


@pytest.mark.parametrize(
    "options", [{"seconds": -1}, {"batch_seconds": 0}, {"batch_seconds": -0.1}]
)
def test_times_that_make_no_sense(options):
    """A time that cannot be is refused at once."""
    with pytest.raises(ValueError, match="seconds must"):
        simulate("tile", **options)


@pytest.mark.parametrize(
    "wrong", [{"io_groups": 256}, {"tiles": 0}, {"words_per_message": 5}, {"io_groups": 4}]
)
def test_loads_that_make_no_sense(wrong):
    """A load that no message could carry is refused."""
    right = {"io_groups": 8, "tiles": 8, "messages_per_second": 100, "words_per_message": 10}
    with pytest.raises(ValueError, match=r"io_groups|words_per_message"):
        Load(trigger_io_groups=(8,), **right | wrong)


@pytest.mark.parametrize(("seconds", "batches"), [(0, 0), (0.05, 1), (0.3, 3), (0.31, 4)])
def test_seconds_bound_the_stream(seconds, batches):
    """There are as many batches as begin in the time given."""
    assert len(list(simulate("tile", seconds=seconds))) == batches


def test_stream_goes_on_without_seconds():
    """Without a bound there is always another batch."""
    assert len(list(itertools.islice(simulate("tile", batch_seconds=0.01), 200))) == 200


def test_last_batch_is_cut():
    """Nothing is sent after the end."""
    batches = list(simulate("2x2", seconds=0.11))
    assert len(batches[1].lengths) < len(batches[0].lengths) / 5


def test_start_time():
    """Headers count from the start that was asked for."""
    message = next(simulate("tile", start_time=1_234_567_890.5)).tolist()[0]
    assert np.frombuffer(message[:8], HEADER)["seconds"].tolist() == [1_234_567_890]


def test_realtime_is_never_early():
    """A batch comes when its interval has passed, not before."""
    begun = time.monotonic()
    for number, _ in enumerate(simulate("tile", seconds=0.5, batch_seconds=0.05, realtime=True)):
        assert time.monotonic() - begun >= (number + 1) * 0.05


def test_realtime_does_not_drift():
    """A consumer that takes its time does not move the batches that follow."""
    begun = time.monotonic()
    for _ in simulate("tile", seconds=1, batch_seconds=0.05, realtime=True):
        time.sleep(0.03)
    # Pauses that add up would make this 1.6 s.
    assert time.monotonic() - begun < 1.4


def test_realtime_same_bytes():
    """The pace changes nothing in what is sent."""
    paced = list(simulate("tile", seconds=0.2, realtime=True))
    assert [b.tolist() for b in paced] == [b.tolist() for b in simulate("tile", seconds=0.2)]


def command(*arguments):
    root = Path(module.__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-m", "writer", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
    )


def finish(process):
    with process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_command_writes_what_is_simulated(tmp_path):
    """The command's file holds the stream with the same load and seed."""
    path = tmp_path / "raw.h5"
    code, out, err = finish(
        command(path, "--load", "tile", "--seconds", 0.3, "--seed", 9, "--fast")
    )
    expected = list(simulate("tile", seed=9, seconds=0.3))
    messages = [message for batch in expected for message in batch.tolist()]
    assert (code, err) == (0, "")
    assert f"{len(messages):,} rows, {sum(map(len, messages)):,} bytes" in out
    with h5py.File(path, locking=False) as file:
        assert [row.tobytes() for row in file["msgs"]] == messages
        written = file["msg_headers"]["io_groups"]
        assert written.tolist() == np.concatenate([b.io_groups for b in expected]).tolist()
        assert file["meta"].attrs["io_version"] == "0.0"


def test_command_keeps_the_pace_and_the_date(tmp_path):
    """Without --fast a run takes its time, and its headers tell the present."""
    path, begun = tmp_path / "raw.h5", time.time()
    code, _, _ = finish(command(path, "--load", "tile", "--seconds", 0.5))
    assert code == 0
    assert time.time() - begun >= 0.5
    with h5py.File(path, locking=False) as file:
        header = file["msgs"][0][:8].view(HEADER)[0]
    assert int(begun) <= header["seconds"] <= time.time()


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_command_ends_cleanly_when_asked(tmp_path, number, expected):
    """Ctrl-C or SIGTERM ends the run after a whole batch, with the file closed."""
    path = tmp_path / "raw.h5"
    process = command(path, "--load", "tile", "--batch-ms", 20)
    deadline = time.monotonic() + 30
    while not (path.exists() and path.stat().st_size > 50_000):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, number)
    code, out, err = finish(process)
    assert (code, err) == (expected, "")
    # Opening for writing fails if the file was left open.
    with h5py.File(path, "r+") as file:
        rows = len(file["msgs"])
        assert rows == len(file["msg_headers"]) > 0
    assert f"{rows:,} rows" in out


def test_command_says_in_one_line_what_is_wrong(tmp_path):
    """A file that cannot be written is one line on stderr, and code 1."""
    path = tmp_path / "notes.txt"
    path.write_text("not a raw file")
    code, out, err = finish(command(path, "--seconds", 1, "--append"))
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert str(path) in err


def test_command_continues_a_file_only_if_told(tmp_path):
    """Simulated rows never come behind others by mistake."""
    path = tmp_path / "raw.h5"
    rows = record(path, load="tile", seconds=0.1, fast=True).rows
    before = path.read_bytes()
    code, out, err = finish(command(path, "--load", "tile", "--seconds", 0.1))
    assert (code, out) == (1, "")
    assert err == f"error: {path}: exists already; --append continues it\n"
    assert path.read_bytes() == before
    code, _, _ = finish(command(path, "--load", "tile", "--seconds", 0.1, "--append"))
    assert code == 0
    with h5py.File(path) as file:
        assert len(file["msgs"]) > rows


def test_command_fills_a_file_that_is_empty(tmp_path):
    """There is nothing in it that could be spoiled."""
    path = tmp_path / "raw.h5"
    path.touch()
    assert finish(command(path, "--load", "tile", "--seconds", 0.1))[0] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        ["--load", "3x3"],
        ["--seconds", "-1"],
        ["--seconds", "soon"],
        ["--seed", "-1"],
        ["--batch-ms", "0"],
        ["--fsat"],
    ],
)
def test_command_refuses_wrong_arguments(tmp_path, wrong):
    """Wrong arguments are code 2, and no file is made."""
    path = tmp_path / "raw.h5"
    code, _, err = finish(command(path, *wrong))
    assert code == 2
    assert "usage" in err
    assert not path.exists()
