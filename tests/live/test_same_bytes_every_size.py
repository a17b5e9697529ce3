"""What was written is what is read, whatever the sizes and however the rows are cut."""

import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from streamer import RawFile
from writer import RawWriter

SEED = 20261122
KB, MB = 1 << 10, 1 << 20
_RANDOM = random.Random(SEED)

# The sizes of all messages of a file. A heap collection has 4096 bytes, and 64 kB at most
# unless one message needs more; message and collection each have a header of 16.
SIZES: dict[str, list[int]] = {
    "all-empty": [0] * 1500,
    "some-empty": [_RANDOM.choice((0, 0, 24, 136)) for _ in range(2500)],
    "one-byte": [1] * 2500,
    "up-to-a-few-words": [row % 40 for row in range(2500)],
    "around-a-collection": [4096 - 40 + row % 48 for row in range(480)],
    "hundreds-of-collections": [_RANDOM.randrange(24, 6000) for _ in range(4000)],
    "equal-64-kB": [64 * KB] * 60,
    "around-64-kB": [64 * KB - 40 + row % 48 for row in range(96)],
    "equal-1-MB": [MB] * 4,
    "large-among-small": [MB + 1 if row % 97 == 50 else row % 300 for row in range(800)],
    "a-single-row": [136],
}

File = tuple[list[bytes], list[int], list[slice]]


def _contents(sizes: list[int]) -> File:
    """Return the messages, their io groups, and the batches in which they are written."""
    rng = random.Random(f"{SEED} {len(sizes)}")
    pool = rng.randbytes(max(sizes) + 4096)
    starts = [rng.randrange(4096) for _ in sizes]
    msgs = [pool[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    batches, row = [], 0
    while row < len(msgs):
        count = rng.choice((1, 2, 30, 500, 3000))
        batches.append(slice(row, row + count))
        row += count
    return msgs, [row % 256 for row in range(len(msgs))], batches


def _by_rawwriter(path: Path, contents: File) -> None:
    msgs, groups, batches = contents
    with RawWriter(path) as out:
        for batch in batches:
            out.append(msgs[batch], io_groups=groups[batch])


def _by_stock(path: Path, contents: File) -> None:
    environment = os.environ.copy()
    from larpix.format.rawhdf5format import to_rawfile

    os.environ.clear()  # the import has switched file locking off for everyone
    os.environ.update(environment)
    msgs, groups, batches = contents
    for batch in batches:
        to_rawfile(str(path), msgs=msgs[batch], msg_headers={"io_groups": groups[batch]})


WRITERS: dict[str, Callable[[Path, File], None]] = {
    "stock": _by_stock,
    "rawwriter": _by_rawwriter,
}


def _assert_same(file: RawFile, start: int, stop: int, contents: File) -> None:
    msgs, groups, _ = contents
    batch = file.read(start, stop)
    assert len(batch) == stop - start
    assert batch.rows.tolist() == list(range(start, stop))
    assert batch.io_groups.tolist() == groups[start:stop]
    assert batch.lengths.tolist() == [len(msg) for msg in msgs[start:stop]]
    # Compared outside the assertion: pytest would print a megabyte to explain a difference.
    wrong = [
        start + row
        for row, (read, written) in enumerate(zip(batch.tolist(), msgs[start:stop], strict=True))
        if read != written
    ]
    assert not wrong
    one = batch.buffer[batch.starts[0] :][: batch.lengths[0]] if len(batch) else np.empty(0)
    assert not len(batch) or one.tobytes() == msgs[start]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("sizes", SIZES)
def test_every_way_of_cutting_gives_the_same_bytes(sizes: str, kind: str, tmp_path: Path):
    """Ranges of any length, in order and at random, give what was written, byte for byte."""
    contents = _contents(SIZES[sizes])
    path = tmp_path / "raw.h5"
    WRITERS[kind](path, contents)
    rng = random.Random(f"{SEED} {sizes}")
    total = len(contents[0])
    with RawFile(path) as file:
        assert file.refresh() == len(file) == total
        for step in (1, 7, 1000, total):
            for start, stop in itertools.pairwise([*range(0, total, step), total]):
                _assert_same(file, start, stop, contents)
        for _ in range(100):
            start = rng.randrange(total + 1)
            stop = rng.randint(start, min(total, start + rng.choice((0, 1, 7, 1000))))
            _assert_same(file, start, stop, contents)


@pytest.mark.parametrize("kind", WRITERS)
def test_messages_compare_as_they_were_written(kind: str, tmp_path: Path):
    """Iterating over a batch gives row, io group and bytes of each message."""
    contents = _contents(SIZES["up-to-a-few-words"])
    path = tmp_path / "raw.h5"
    WRITERS[kind](path, contents)
    with RawFile(path) as file:
        got = [msg[:3] for msg in file.read(0, len(file))]
    msgs, groups, _ = contents
    assert got == list(zip(range(len(msgs)), groups, msgs, strict=True))
