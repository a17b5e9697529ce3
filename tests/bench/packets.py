"""What decoding costs, beside larpix-control in the same run.

Run by hand, on an idle machine: ``python -m tests.bench.packets``.
"""

import math
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from larpix.format import pacman_msg_format as stock
from larpix.format.hdf5format import to_file

from streamer import Batch, RawFile, decode
from streamer.convert import convert
from tests.bench.monitor import monitoring
from tests.bench.timing import limits, medians
from writer import RawWriter
from writer.pacman import DATA_BITS, SyncType, Word, messages, pack, words

# Work, unit, what was found, and how much it may be (or has to be, if that is a ratio).
Row = tuple[str, str, float, float]

RANGE, BATCHES = 6_000, 10
WORDS = (8, 40)
# Of so many messages larpix-control has enough to do.
STOCK = 500

#: All that one wants to know of hits: what a Monitor counts, were it written with columns.
OF_HITS = (
    "packet_type",
    "is_data",
    "valid_parity",
    "dataword",
    "io_group",
    "io_channel",
    "chip_id",
    "channel_id",
    "timestamp",
    "receipt_timestamp",
    "local_fifo",
    "shared_fifo",
    "time",
    "row",
)
#: What a Monitor asks for, with either engine: all else it takes out of the packets' bits itself.
#: What it costs as a whole is in `tests.bench.monitor`.
OF_MONITOR = ("valid_parity",)


def detected(count: int, size: int, seed: int = 0) -> list[bytes]:
    """Make messages of so many words each, as a detector sends: data, and a few syncs."""
    rng = np.random.default_rng(seed)
    total = count * size
    packets = pack(
        DATA_BITS,
        chip_id=rng.integers(11, 111, total),
        channel_id=rng.integers(64, size=total),
        timestamp=rng.integers(10_000_000, size=total),
        first_packet=rng.integers(2, size=total),
        dataword=rng.integers(256, size=total),
        local_fifo=rng.integers(4, size=total),
        shared_fifo=rng.integers(4, size=total),
    )
    stream = words(
        Word.DATA,
        io_channel=rng.integers(1, 33, total),
        receipt_timestamp=rng.integers(10_000_000, size=total),
        packet=packets,
    )
    syncs = words(Word.SYNC, sync_type=SyncType.SYNC, timestamp=np.full(count // 100, 9_999_999))
    stream[:: 100 * size][: len(syncs)] = syncs.view(stream.dtype)
    buffer, lengths = messages(stream, np.full(count, size), 1_700_000_000)
    return [part.tobytes() for part in np.split(buffer, np.cumsum(lengths)[:-1])]


def fill(path: Path, size: int, batches: int = BATCHES) -> None:
    """Write a file in batches of 6,000 rows, of so many words each."""
    msgs, io_groups = detected(RANGE, size), [1 + k % 8 for k in range(RANGE)]
    with RawWriter(path, io_version="0.0") as out:
        for _ in range(batches):
            out.append(msgs, io_groups)


def asked(batch: Batch, names: tuple[str, ...] = OF_HITS) -> None:
    """Decode, and ask for columns."""
    packets = decode(batch)
    for name in names:
        getattr(packets, name)


def decoding(folder: Path) -> list[Row]:
    """Decode batches of 6,000 messages, beside larpix-control doing so one by one."""
    rows = []
    for size in WORDS:
        path = folder / f"decode-{size}.h5"
        fill(path, size)
        with RawFile(path) as raw:
            batches = [raw.read(start, start + RANGE) for start in range(0, len(raw), RANGE)]
        few = batches[0].tolist()[:STOCK]

        def parse(few=few):
            for message in few:
                stock.parse(message, io_group=1)

        def each(take, batches=batches):
            def work():
                for batch in batches:
                    take(batch)

            return work

        seconds = medians(
            {
                "stock": parse,
                "records": each(lambda batch: decode(batch).to_records()),
                "columns": each(asked),
                "parity": each(lambda batch: asked(batch, OF_MONITOR)),
            }
        )
        counts = {"stock": STOCK}
        per_word = {
            name: value / size / counts.get(name, BATCHES * RANGE)
            for name, value in seconds.items()
        }
        rates = {name: f"({1e-6 / value:.0f} M/s)" for name, value in per_word.items()}
        ratio = per_word["stock"] / per_word["records"]
        floor = 25.0 if size == 40 else 30.0
        rows += [
            (f"decode().to_records(), {size} words {rates['records']}", "x stock", ratio, 60.0),
            (
                f"{len(OF_HITS)} columns of hits, {size} words {rates['columns']}",
                "ns/word",
                1e9 * per_word["columns"],
                floor,
            ),
            (
                f"valid_parity, for a Monitor, {size} words {rates['parity']}",
                "ns/word",
                1e9 * per_word["parity"],
                math.inf,
            ),
        ]
        path.unlink()
    return rows


def reading(folder: Path) -> list[Row]:
    """Read a file in ranges of 6,000 messages, and decode it."""
    path = folder / "chain.h5"
    fill(path, 8)
    with RawFile(path) as raw:

        def through(take):
            def work():
                for start in range(0, len(raw), RANGE):
                    take(raw.read(start, start + RANGE))

            return work

        seconds = medians({"read": through(len), "columns": through(asked)})
        per_word = {name: value / 8 / len(raw) for name, value in seconds.items()}
    # 14 million words a second, of which a Monitor takes its part.
    columns = f"of a file, read to {len(OF_HITS)} columns, 8 words"
    return [
        ("of a file, read, 8 words", "ns/word", 1e9 * per_word["read"], 71.0),
        (columns, "ns/word", 1e9 * per_word["columns"], 71.0),
    ]


def converting(folder: Path) -> list[Row]:
    """Convert a file, beside larpix-control decoding and writing what it holds already."""
    rows = []
    for size in WORDS:
        path, out = folder / f"convert-{size}.h5", folder / "packets.h5"
        fill(path, size, 400 // size)
        few = detected(4 * STOCK, size)

        def parse_and_write(few=few, out=out):
            out.unlink(missing_ok=True)
            found = [packet for message in few for packet in stock.parse(message, io_group=1)]
            # As of larpix-control 3.7, on two cores it is faster without helpers.
            to_file(out, found, workers=1)

        def ours(path=path, out=out, **options):
            out.unlink(missing_ok=True)
            return convert(path, out, **options)

        packets = ours().packets
        seconds = medians(
            {
                "stock": parse_and_write,
                "plain": ours,
                "compressed": partial(ours, compressed=True),
                "parquet": partial(ours, to="parquet"),
            },
            rounds=5,
        )
        rate = {name: packets / value for name, value in seconds.items()}
        rate["stock"] = len(few) * (size + 1) / seconds["stock"]
        for name, floor in (("plain", 60.0), ("compressed", 20.0), ("parquet", 20.0)):
            title = f"convert, {name}, {size} words ({1e-6 * rate[name]:.1f} M/s)"
            rows.append((title, "x stock", rate[name] / rate["stock"], floor))
    return rows


def main() -> None:
    """Print one table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = decoding(folder) + reading(folder)
        rows += converting(folder)
        rows += monitoring(folder)
    limits("packets", rows)


if __name__ == "__main__":
    main()
