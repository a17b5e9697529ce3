"""How a file announces rows, read without the library."""

import itertools
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5o

from streamer import FileReplaced, RawFile, announced
from streamer.announced import announced_lengths, read_announced
from streamer.handle import Handle
from writer import RawWriter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raw.h5"


def places(path: Path) -> tuple[int, int]:
    """Where the object headers are, as HDF5 says."""
    with h5py.File(path, "r", locking=False) as file:
        msgs, headers = (h5o.get_info(file[name].id).addr for name in ("msgs", "msg_headers"))
    return msgs, headers


def states(path: Path, batches: list[int]) -> list[tuple[announced.Announced, int]]:
    """Return the headers and the number of rows behind each batch."""
    found = []
    with RawWriter(path) as out, path.open("rb") as file:
        where = places(path)
        for batch in batches:
            rows = out.append([b"message"] * batch, io_groups=1).stop
            found.append((read_announced(file.fileno(), where), rows))
    return found


def test_lengths_are_those_that_hdf5_sees(path: Path):
    """Of any two states, the number of rows of one follows from the other."""
    found = states(path, [1, 10, 254, 1, 1000, 5000, 70_000])
    for (before, then), (header, now) in itertools.permutations(found, 2):
        assert announced_lengths(header, before, (then, then)) == (now, now)


def test_header_with_any_byte_damaged_announces_nothing(path: Path):
    """A header that is being written, or is damaged, is not believed."""
    (before, then), (after, _) = states(path, [1, 300])
    size = announced._header_size(after.msgs)
    assert 100 < size <= len(after.msgs)
    for at in range(size):
        damaged = bytearray(after.msgs)
        damaged[at] ^= 1 << at % 8
        header = after._replace(msgs=bytes(damaged))
        assert announced_lengths(header, before, (then, then)) is None


def test_header_half_written_announces_nothing(path: Path):
    """The beginning of a new header with the end of the old one is not believed."""
    (before, then), (after, now) = states(path, [1, 300])
    size = announced._header_size(after.msgs)
    mixed = {after.msgs[:at] + before.msgs[at:] for at in range(size)} - {before.msgs, after.msgs}
    assert mixed
    for header in mixed:
        assert announced_lengths(after._replace(msgs=header), before, (then, then)) is None
    assert announced_lengths(after, before, (then, then)) == (now, now)


def test_header_of_other_shape_announces_nothing(path: Path, tmp_path: Path):
    """What differs in more than the number of rows is left to HDF5."""
    ((before, then),) = states(path, [1])
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.create_dataset("msgs", (3,), maxshape=(None,), dtype="u1")
        file.create_dataset("msg_headers", (3,), maxshape=(None,), dtype="u1")
    with (tmp_path / "old.h5").open("rb") as file:
        old = read_announced(file.fileno(), places(tmp_path / "old.h5"))
    assert announced_lengths(old, before, (then, then)) is None
    assert announced_lengths(old._replace(msgs=b""), old, (3, 3)) is None


def test_live_rows_are_read_without_a_refresh_by_hdf5(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Within a chunk whose place is known; and every row comes, also across chunks."""
    refreshes = []
    refresh = Handle.refresh
    monkeypatch.setattr(Handle, "refresh", lambda self: refreshes.append(1) or refresh(self))
    sent = []
    with RawWriter(path) as out, RawFile(path) as raw:
        for number in range(300):
            sent += [b"%d of batch %d" % (k, number) for k in range(10)]
            out.append(sent[-10:], io_groups=1 + number % 8)
            assert raw.refresh() == len(sent)
            assert raw.read(len(sent) - 10).tolist() == sent[-10:]
        batch = raw.read(0)
    assert batch.tolist() == sent
    np.testing.assert_array_equal(batch.io_groups, np.repeat(1 + np.arange(300) % 8, 10))
    assert len(refreshes) < 30


def test_live_rows_come_where_the_checksum_cannot_be_had(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A library without that function is asked for each refresh."""
    monkeypatch.setattr(announced, "_checksum", None)
    with RawWriter(path) as out, RawFile(path) as raw:
        for number in range(5):
            out.append([b"%d" % number], io_groups=1)
            assert raw.refresh() == number + 1
        assert raw.read(0).tolist() == [b"%d" % number for number in range(5)]


def test_file_that_is_cut_short_is_noticed(path: Path):
    """Rows that are gone are an error, also when no refresh by HDF5 was needed before."""
    with RawWriter(path) as out, RawFile(path) as raw:
        for number in range(3):
            out.append([b"%d" % number], io_groups=1)
            assert raw.refresh() == number + 1
        out.close()
        with h5py.File(path, "r+", locking=False) as file:
            file["msgs"].resize((1,))
            file["msg_headers"].resize((1,))
        with pytest.raises(FileReplaced, match="has 1 rows, and had 3"):
            raw.refresh()
