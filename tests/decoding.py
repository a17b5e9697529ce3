"""Messages to decode, in batches: what the tests of decoding share."""

import struct

import numpy as np
from hypothesis import strategies as st

from streamer import Batch, Packets
from streamer.packets.records import RECORD
from writer import pacman, pacman24
from writer.larpix import (
    CONFIG_BITS,
    DATA_BITS,
    FIFO_DATA_BITS,
    V3_CONFIG_BITS,
    V3_DATA_BITS,
    pack,
)

FIELDS = RECORD.names
LAYOUTS = {
    "v2": (DATA_BITS, CONFIG_BITS),
    "v2-fifo": (FIFO_DATA_BITS, CONFIG_BITS),
    "v3": (V3_DATA_BITS, V3_CONFIG_BITS),
}
REVISIONS = list(pacman24.Revision)
#: Three words of the newer wire.
HIT24 = pacman24.words(pacman24.Word.DATA, io_channel=[1, 2, 3])
U1, U2, U8 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 64))


def batch_of(datas, io_groups=None, *, gaps=16, first=100, before=16, io_version=None) -> Batch:
    """Lay messages out as in a file, with other bytes between: how many, all or each."""
    count = len(datas)
    gaps = np.broadcast_to(gaps, count).tolist()
    buffer, starts = bytearray(b"\xa5" * before), []
    for data, gap in zip(datas, gaps, strict=True):
        starts.append(len(buffer))
        buffer += data + b"\x5a" * gap
    if io_groups is None:
        io_groups = [1 + k % 8 for k in range(count)]
    return Batch(
        rows=np.arange(first, first + count),
        io_groups=np.array(io_groups, "u1"),
        buffer=np.frombuffer(bytes(buffer), "u1"),
        starts=np.array(starts, "i8"),
        lengths=np.array([len(data) for data in datas], "i8"),
        io_version=io_version,
    )


def legacy(*made, seconds=1_700_000_000) -> bytes:
    """Put words into one message of the older wire."""
    stream = np.concatenate([np.zeros(0, pacman.WORD), *(one.view(pacman.WORD) for one in made)])
    buffer, _ = pacman.messages(stream, [len(stream)], seconds)
    return buffer.tobytes()


def new24(*made, timestamp=0, revision=pacman24.Revision.LAST, **options) -> bytes:
    """Put words into one message of the newer wire."""
    word = pacman24.WORD
    stream = np.concatenate([np.zeros(0, word), *(one.view(word) for one in made)])
    options |= {"timestamps": timestamp, "revision": revision}
    buffer, _ = pacman24.messages(stream, [len(stream)], **options)
    return buffer.tobytes()


def hits(count, *, seed=0, first_channel=0):
    """Make DATA words of the older wire, with valid parity."""
    rng = np.random.default_rng(seed)
    packets = pack(
        DATA_BITS,
        chip_id=rng.integers(11, 111, count),
        channel_id=(first_channel + np.arange(count)) % 64,
        timestamp=rng.integers(1 << 31, size=count),
        dataword=rng.integers(256, size=count),
    )
    ticks = rng.integers(1 << 32, size=count)
    return pacman.words(
        pacman.Word.DATA,
        io_channel=1 + np.arange(count) % 32,
        receipt_timestamp=ticks,
        packet=packets,
    )


def random_message(rng, count, letters=b"DTS") -> bytes:
    """Make a message of the older wire whose words are random in all other bits."""
    words = rng.integers(256, size=(count, 16), dtype=np.uint8)
    words[:, 0] = rng.choice(np.frombuffer(letters, "u1"), count)
    header = b"D" + rng.bytes(5) + count.to_bytes(2, "little")
    return header + words.tobytes()


def random_new24(rng, count, revision=pacman24.Revision.LAST, letters=b"DCTS") -> bytes:
    words = rng.integers(256, size=(count, 24), dtype=np.uint8)
    words[:, 0] = rng.choice(np.frombuffer(letters, "u1"), count)
    words[np.isin(words[:, 0], list(b"DC")), 3] = 0  # an io_channel has one byte
    time = rng.choice([0, 7, 1_700_000_000_123_456_789])
    return new24(words.reshape(-1).view(pacman24.WORD), timestamp=time, revision=revision)


def faults_of(packets: Packets) -> dict[str, list[int]]:
    return {kind: rows.tolist() for kind, rows in packets.faults.items()}


# ------------------------------------------------------------------- slow and obvious

# Bits of each field, from the tables of the formats, and not from the tables of the code.
SHARED = {"packet_type": (0, 1), "chip_id": (2, 9), "downstream_marker": (62, 62)}
SHARED |= {"parity": (63, 63), "register_address": (10, 17), "register_data": (18, 25)}
SHARED |= {"channel_id": (10, 15), "trigger_type": (56, 57)}
SHARED |= {"local_fifo": (58, 59), "shared_fifo": (60, 61)}
BITS = {
    "v2": SHARED | {"timestamp": (16, 46), "first_packet": (47, 47), "dataword": (48, 55)},
    "v2-fifo": SHARED
    | {"timestamp": (16, 31), "first_packet": (47, 47), "dataword": (48, 55)}
    | {"shared_fifo_events": (32, 43), "local_fifo_events": (44, 45)},
    "v3": SHARED
    | {"timestamp": (16, 43), "dataword": (46, 55)}
    | {"reset_sample_flag": (44, 44), "cds_flag": (45, 45)},
}


def of_chip(packet: int, asic: str) -> dict[str, int]:
    """Decode one packet, bit by bit."""
    text = f"{packet:064b}"[::-1]
    found = {
        name: sum(int(text[bit]) << (bit - low) for bit in range(low, high + 1))
        for name, (low, high) in BITS[asic].items()
    }
    found["valid_parity"] = text.count("1") % 2
    found["fifo_diagnostics_enabled"] = int(asic == "v2-fifo")
    return found


def slow(data: bytes, io_group: int, asic: str, wire: str) -> list[dict[str, int]]:
    """Decode one message, word by word; what a packet lacks is zero."""
    if wire == "legacy":
        (seconds,) = struct.unpack_from("<xL", data)
        found, first, size = [{"packet_type": 4, "timestamp": seconds}], 8, 16
    else:
        (time,) = struct.unpack_from("<8xQ", data)
        found, first, size = [{"packet_type": 4, "timestamp": time}], 24, 24
        seconds = time // 10**9 if 10**18 <= time < 2**63 else 0
    for start in range(first, len(data), size):
        word = data[start : start + size]
        if wire == "legacy":
            letter, one, receipt, packet = struct.unpack("<cBLxxQ", word)
            kind, source, ticks = word[1], word[2], struct.unpack_from("<4xL", word)[0]
        else:
            letter, one, receipt, packet = struct.unpack("<cxHxxxxQQ", word)
            kind, source, ticks = word[2], word[3], receipt
        if letter in (b"D", b"C" if wire == "new24" else b"D"):
            found.append({"io_channel": one, "receipt_timestamp": receipt})
            found[-1] |= of_chip(packet, asic)
        elif letter == b"S":
            found.append({"packet_type": 6, "trigger_type": kind, "dataword": source & 1})
            found[-1]["timestamp"] = ticks
        elif letter == b"T":
            found.append({"packet_type": 7, "trigger_type": kind, "timestamp": ticks})
    return [packet | {"io_group": io_group, "time": seconds} for packet in found]


def assert_as_slow(packets: Packets, datas, io_groups, asics, wires) -> None:
    expected = [
        packet | {"row": row}
        for row, (data, io_group, asic, wire) in enumerate(
            zip(datas, io_groups, asics, wires, strict=True), 100
        )
        for packet in slow(data, io_group, asic, wire)
    ]
    records = packets.to_records()
    for name in [*FIELDS, "row", "time", "reset_sample_flag", "cds_flag"]:
        values = [packet.get(name, 0) for packet in expected]
        assert getattr(packets, name).tolist() == values, name
        if name in FIELDS:
            assert records[name].tolist() == values, name


def assert_same(one: Packets, other: Packets) -> None:
    """Tell two apart by every column."""
    assert one.to_records().dtype == other.to_records().dtype
    for name in [*FIELDS, "row", "time", "is_data", "is_v3", "cds_flag", "reset_sample_flag"]:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    assert one.to_records().tobytes() == other.to_records().tobytes()
