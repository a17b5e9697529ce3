"""How much memory a monitor of so many channels takes: ``python -m tests.monitor.memory``.

Prints the bytes that it grew by, first the monitor alone, then at the most, with a snapshot.
"""

import sys
from pathlib import Path

import numpy as np

from streamer.monitor import Monitor
from tests.monitor.streams import START, as_packets
from writer.larpix import DATA_BITS, pack
from writer.pacman import Word, messages, words

CHANNELS, IO_GROUPS = 400_000, 4
STEP, SPANS = 20_000, 8


def status(name):
    """Return a size from this process's status [bytes]."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def packets(second, first, used):
    """Return a hit of each of some channels, of chips on which so many channels are used."""
    count = CHANNELS // IO_GROUPS
    channel = np.arange(first, first + STEP) % count
    hits = pack(
        DATA_BITS,
        chip_id=11 + channel // used % 100,
        channel_id=channel % used,
        dataword=40,
        local_fifo=3,
    )
    stream = words(Word.DATA, io_channel=1 + channel // used // 100, packet=hits)
    buffer, lengths = messages(stream, [STEP], second)
    assert len(lengths) == 1
    return as_packets([(buffer.tobytes(), 1 + first // count)])[0]


def main(engine="auto", used=64):
    """Fill all spans of a monitor, and then one more."""
    monitor = Monitor(engine=engine)
    monitor.update(packets(START - 10, 0, used))
    monitor.snapshot()
    before = status("VmRSS")
    for span in range(SPANS):
        for first in range(0, CHANNELS, STEP):
            monitor.update(packets(START + 10 * span, first, used))
    print(status("VmRSS") - before)
    Path("/proc/self/clear_refs").write_text("5")  # from now on, VmHWM is the most since
    assert len(monitor.snapshot().channels) == CHANNELS
    print(status("VmHWM") - before)


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
