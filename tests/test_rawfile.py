"""RawFile: on everything that may lie under a name, beside everybody who may have it open."""

import errno
import fcntl
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5a, h5f, h5p, h5s, h5t

from streamer import RawFile
from streamer.errors import (
    FileReplaced,
    LayoutError,
    NotReady,
    RowsOutOfRange,
    RowUnreadable,
    StreamError,
)
from streamer.handle import Handle
from streamer.heap_format import HEADER as HEAP_HEADER
from streamer.heap_format import read_object, span
from streamer.opening import read_meta_anew
from streamer.retry import Patience
from writer import RawWriter
from writer.layout import Meta

from .live.writers import environment, io_group, message, wrong_rows

ROOT = Path(__file__).parents[1]
VLEN = h5py.vlen_dtype(np.dtype("u1"))
HEADER = np.dtype([("io_groups", "u1")])
LIBVER = ("v110", "v114")
SEED = 20261122
FLAGS = 11  # where the superblock says that the file is open for writing


# --------------------------------------------------------------------- files of other makers


def size_of(row: int) -> int:
    return 24 + 37 * row % 200


def rows_of(start: int, stop: int) -> list[bytes]:
    return [message(row, size_of(row)) for row in range(start, stop)]


def store(dataset: h5py.Dataset, start: int, msgs: list[bytes]) -> None:
    if len(msgs) == 1:
        dataset[start] = np.frombuffer(msgs[0], "u1")
        return
    column = np.empty(len(msgs), dtype=object)
    column[:] = [np.frombuffer(msg, "u1") for msg in msgs]
    dataset[start : start + len(msgs)] = column


def add_meta(file: h5py.File, **more) -> None:
    now = time.time()
    file.create_group("meta").attrs.update(
        {"created": now, "modified": now, "version": "0.0"} | more
    )


def add_datasets(file: h5py.File, header=HEADER, **options) -> None:
    options = {"shape": (0,), "maxshape": (None,), "chunks": (16,)} | options
    file.create_dataset("msg_headers", dtype=header, **options)
    options.pop("fletcher32", None)  # HDF5 has no checksums for variable lengths
    file.create_dataset("msgs", dtype=VLEN, **options)


def resize(file: h5py.File, stop: int) -> None:
    file["msgs"].resize((stop,))
    file["msg_headers"].resize((stop,))


def fill(file: h5py.File, start: int, stop: int) -> None:
    store(file["msgs"], start, rows_of(start, stop))
    file["msg_headers"]["io_groups", start:stop] = [io_group(row) for row in range(start, stop)]


def make(path: Path, rows: int = 100, libver=LIBVER, **options) -> Path:
    """Make a closed file with rows that can be checked."""
    with h5py.File(path, "w", libver=libver) as file:
        add_meta(file)
        add_datasets(file, **{"shape": (rows,), **options})
        fill(file, 0, rows)
    return path


@contextmanager
def foreign(path: Path, **options) -> Iterator[h5py.File]:
    """Keep a file open as a writer of another make does, in this process."""
    with h5py.File(path, "w", libver=LIBVER) as file:
        add_meta(file)
        add_datasets(file, **options)
        file.swmr_mode = True
        yield file


def assert_right(file: RawFile, rows: int) -> None:
    assert file.refresh() == len(file) == rows
    assert not wrong_rows(file.read(0, rows), 0, rows)


def stock_to_rawfile(path: Path, *batches: tuple[list[bytes], list[int]]) -> None:
    """Write with larpix-control's own function, in a second process."""
    calls = [[[msg.hex() for msg in msgs], groups] for msgs, groups in batches]
    program = (
        "import json, sys\n"
        "from larpix.format.rawhdf5format import to_rawfile\n"
        "for msgs, groups in json.load(sys.stdin):\n"
        "    to_rawfile(sys.argv[1], msgs=[bytes.fromhex(msg) for msg in msgs],\n"
        "               msg_headers={'io_groups': groups})\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(path)],
        input=json.dumps(calls).encode(),
        env=environment(),
        check=True,
        timeout=60,
    )


@contextmanager
def second_process(*arguments: object) -> Iterator[subprocess.Popen]:
    """Run one of the programs at the end of this file; it says ``ready``, then waits."""
    command = [sys.executable, "-m", "tests.test_rawfile", *map(str, arguments)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen, what: object) -> None:
    """Say something to a program, which says it again once it is done."""
    line = f"{what}\n".encode()
    process.stdin.write(line)
    process.stdin.flush()
    assert process.stdout.readline() == line


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon: nobody writes these files."""
    monkeypatch.setattr("streamer.opening._PATIENCE", Patience(2, 0.01))
    monkeypatch.setattr("streamer.source.Source.PATIENCE", Patience(3, 0.05))


# ------------------------------------------------------------------------ not a raw file (yet)


def open_error(path: Path, kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        RawFile(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_absent_file_is_not_ready(tmp_path: Path):
    """A file that is not there may come."""
    assert "absent" in open_error(tmp_path / "raw.h5", NotReady)


def test_path_through_a_file_is_not_ready(tmp_path: Path):
    """A name below something that is no folder names what the system says."""
    make(tmp_path / "raw.h5", 1)
    open_error(tmp_path / "raw.h5" / "other.h5", NotReady)


def test_folder_is_no_raw_file(tmp_path: Path):
    """A folder never becomes a file."""
    open_error(tmp_path, LayoutError)


@pytest.mark.timeout(20)
def test_pipe_is_no_raw_file(tmp_path: Path):
    """A pipe is refused, and nobody waits for its other end."""
    os.mkfifo(tmp_path / "pipe")
    open_error(tmp_path / "pipe", LayoutError)


@pytest.mark.parametrize("size", [1, 7, 8, 300, 5000])
def test_text_is_no_raw_file(size: int, tmp_path: Path):
    """A file of another kind is told at once, however long it is."""
    path = tmp_path / "raw.h5"
    path.write_bytes(b"row,io_group\n" * 400 if size == 5000 else b"t" * size)
    before = time.monotonic()
    open_error(path, LayoutError)
    assert time.monotonic() - before < 1


@pytest.mark.parametrize("size", [0, 8, 4096])
def test_unwritten_file_is_not_ready(size: int, tmp_path: Path):
    """A file without bytes, or with zeros, is about to be written."""
    path = tmp_path / "raw.h5"
    path.write_bytes(bytes(size))
    open_error(path, NotReady)


def test_beginning_of_a_file_is_not_ready(tmp_path: Path, impatient):
    """Of a file that is being copied there is, for a while, the beginning only."""
    whole = make(tmp_path / "whole.h5", 3).read_bytes()
    for size in (8, 20, 47, 48, 100, 300):
        path = tmp_path / f"{size}.h5"
        path.write_bytes(whole[:size])
        open_error(path, NotReady)


@pytest.mark.parametrize("size", [1, 7])
def test_beginning_of_the_signature_is_not_ready(size: int, tmp_path: Path):
    """Of a file that was made in its full size, as by a copy, the first bytes may come alone."""
    path = tmp_path / "raw.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n"[:size] + bytes(4096))
    open_error(path, NotReady)


def test_file_server_that_fails_after_the_open_is_not_ready(tmp_path: Path, monkeypatch):
    """And no descriptor is left (the fixture looks)."""
    path = make(tmp_path / "raw.h5", 3)

    def stale(fd: int) -> os.stat_result:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patch:
        patch.setattr("streamer.opening.os.fstat", stale)
        with pytest.raises(NotReady, match="Stale file handle"):
            RawFile(path)
    with RawFile(path) as raw:
        assert_right(raw, 3)


def test_other_hdf5_file_is_no_raw_file(tmp_path: Path):
    """An HDF5 file with other things in it is told as such."""
    path = tmp_path / "raw.h5"
    with h5py.File(path, "w", libver=LIBVER) as file:
        file["packets"] = np.arange(10)
    assert "not a LArPix raw file" in open_error(path, LayoutError)


@pytest.mark.parametrize("name", ["meta", "msgs", "msg_headers"])
def test_file_without_one_part_is_no_raw_file(name: str, tmp_path: Path):
    """The error names the group or dataset that is missing."""
    path = make(tmp_path / "raw.h5", 3)
    with h5py.File(path, "r+") as file:
        del file[name]
    assert repr(name) in open_error(path, LayoutError)


@pytest.mark.parametrize("name", ["created", "version"])
def test_file_without_an_attribute_is_no_raw_file(name: str, tmp_path: Path):
    """The error names the attribute that is missing."""
    path = make(tmp_path / "raw.h5", 3)
    with h5py.File(path, "r+") as file:
        del file["meta"].attrs[name]
    assert name in open_error(path, LayoutError)


@pytest.mark.parametrize("value", ["today", np.arange(3.0), b"\xff"], ids=["text", "array", "b"])
def test_attribute_of_another_type_is_no_raw_file(value, tmp_path: Path):
    """A time that is no number makes no raw file."""
    path = make(tmp_path / "raw.h5", 3)
    with h5py.File(path, "r+") as file:
        file["meta"].attrs["created"] = value
    open_error(path, LayoutError)


@pytest.mark.parametrize("name", ["created", "version", "finished"])
def test_attribute_of_a_type_that_numpy_has_not_is_no_raw_file(name: str, tmp_path: Path):
    """HDF5 has more types than h5py reads."""
    path = make(tmp_path / "raw.h5", 3)
    with h5py.File(path, "r+") as file:
        meta = file["meta"]
        meta.attrs.pop(name, None)
        h5a.create(meta.id, name.encode(), h5t.UNIX_D32LE, h5s.create(h5s.SCALAR))
    open_error(path, LayoutError)


def test_addresses_that_no_file_has_are_damage(tmp_path: Path, impatient):
    """Files of the oldest formats have no checksums; what HDF5 asks for may be anywhere."""
    path = make(tmp_path / "raw.h5", 0, "earliest")
    whole = path.read_bytes()
    for at in range(0, min(len(whole), 2400), 8):
        path.write_bytes(whole[:at] + (1 << 63).to_bytes(8, "little") + whole[at + 8 :])
        with suppress(NotReady, LayoutError):
            RawFile(path).close()


OTHER_TYPES = {
    "msgs-fixed": ("msgs", {"dtype": "u1", "shape": (3,)}),
    "msgs-words": ("msgs", {"dtype": h5py.vlen_dtype(np.dtype("u2")), "shape": (3,)}),
    "msgs-signed": ("msgs", {"dtype": h5py.vlen_dtype(np.dtype("i1")), "shape": (3,)}),
    "msgs-text": ("msgs", {"dtype": h5py.string_dtype(), "shape": (3,)}),
    "msgs-matrix": ("msgs", {"dtype": VLEN, "shape": (3, 2)}),
    "msgs-scalar": ("msgs", {"dtype": VLEN, "shape": ()}),
    "headers-plain": ("msg_headers", {"dtype": "u1", "shape": (3,)}),
    "headers-other": ("msg_headers", {"dtype": [("io_group", "u1")], "shape": (3,)}),
    "headers-matrix": ("msg_headers", {"dtype": HEADER, "shape": (3, 2)}),
}


@pytest.mark.parametrize("case", OTHER_TYPES)
def test_dataset_of_another_type_is_no_raw_file(case: str, tmp_path: Path):
    """The error names the dataset that is of another type or shape."""
    name, options = OTHER_TYPES[case]
    path = make(tmp_path / "raw.h5", 3)
    with h5py.File(path, "r+") as file:
        del file[name]
        file.create_dataset(name, **options)
    assert repr(name) in open_error(path, LayoutError)


def test_dataset_in_place_of_the_group_is_no_raw_file(tmp_path: Path):
    """What has the right name and is another kind of thing is named."""
    path = make(tmp_path / "raw.h5", 3)
    with h5py.File(path, "r+") as file:
        del file["meta"]
        file["meta"] = 1
    assert "'meta'" in open_error(path, LayoutError)


@pytest.mark.parametrize("mode", [0o000, 0o200])
def test_file_without_permission_is_not_ready(mode: int, tmp_path: Path):
    """A file that the user may not read is named, and the reason is the system's."""
    tmp_path.chmod(0o755)
    path = make(tmp_path / "raw.h5", 3)
    path.chmod(mode)
    program = (
        "import os, sys\n"
        "from streamer import RawFile\n"
        "from streamer.errors import NotReady\n"
        "os.chdir(sys.argv[1])\n"
        "if os.getuid() == 0:\n"
        "    os.setgroups([])\n"
        "    os.setgid(65534)\n"
        "    os.setuid(65534)\n"
        "try:\n"
        "    RawFile('raw.h5')\n"
        "except NotReady as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == b"raw.h5: cannot be opened: Permission denied\n"


# ------------------------------------------------------------------------------ ways of storing

DIRECT = {
    "plain": {},
    "gzip": {"compression": "gzip"},
    "gzip-0": {"compression": "gzip", "compression_opts": 0},
    "shuffle": {"shuffle": True},
    "fletcher32": {"fletcher32": True},
    "shuffle-gzip": {"shuffle": True, "compression": "gzip"},
    "gzip-fletcher32": {"compression": "gzip", "fletcher32": True},
    "all": {"shuffle": True, "compression": "gzip", "fletcher32": True},
    "odd-chunks": {"chunks": (7,), "compression": "gzip", "fletcher32": True, "shuffle": True},
    "one-row-chunks": {"chunks": (1,), "shuffle": True, "fletcher32": True},
    "large-chunks": {"chunks": (4096,)},
    "fixed-size": {"maxshape": (500,)},
    "never-larger": {"maxshape": None, "shape": (100,)},
    "wide-header": {"header": np.dtype([("time", ">i8"), ("io_groups", "u1"), ("x", "<f4")])},
    "gaps-in-header": {
        "header": np.dtype(
            {
                "names": ["io_groups", "x"],
                "formats": ["u1", "<i4"],
                "offsets": [3, 8],
                "itemsize": 17,
            }
        )
    },
}
THROUGH_H5PY = {
    "lzf": {"compression": "lzf"},
    "lzf-shuffle": {"compression": "lzf", "shuffle": True},
    "contiguous": {"chunks": None, "maxshape": None},
    "text-in-header": {"header": np.dtype([("io_groups", "u1"), ("note", h5py.string_dtype())])},
}


@pytest.mark.parametrize("case", DIRECT)
def test_plain_cases_are_read_directly(case: str, tmp_path: Path):
    """With the usual filters in any combination rows come past the library, and are right."""
    path = tmp_path / "raw.h5"
    with h5py.File(path, "w", libver=LIBVER) as file:
        add_meta(file)
        add_datasets(file, **DIRECT[case])
        for start, stop in ((0, 3), (3, 40), (40, 100)):
            resize(file, stop)
            fill(file, start, stop)
    with RawFile(path) as raw:
        assert raw.reading == "direct"
        assert_right(raw, 100)
        assert not wrong_rows(raw.read(33, 71), 33, 71)


def without_filter(path: Path) -> None:
    """Write a chunk of each dataset past its filters, marked so."""
    with h5py.File(path, "r+") as file:
        for name in ("msgs", "msg_headers"):
            dataset = file[name]
            number = dataset.id.get_create_plist().get_nfilters()
            rows = dataset.chunks[0]
            if name == "msg_headers":
                groups = np.array([(io_group(row),) for row in range(rows)], HEADER)
                dataset.id.write_direct_chunk((0,), groups.tobytes(), (1 << number) - 1)


def test_chunk_stored_without_its_filters(tmp_path: Path):
    """A chunk may say that filters were skipped: then there is nothing to undo."""
    path = make(tmp_path / "raw.h5", **DIRECT["all"])
    without_filter(path)
    with RawFile(path) as raw:
        assert raw.reading == "direct"
        assert_right(raw, 100)


@pytest.mark.parametrize("case", THROUGH_H5PY)
def test_other_cases_are_read_through_h5py(case: str, tmp_path: Path):
    """Where a file is not the plain case it is said so, and all rows are right."""
    options = {"shape": (100,)} | THROUGH_H5PY[case]
    path = tmp_path / "raw.h5"
    with h5py.File(path, "w", libver=LIBVER) as file:
        add_meta(file)
        add_datasets(file, **options)
        fill(file, 0, 100)
    with RawFile(path) as raw:
        assert raw.reading == "h5py"
        assert_right(raw, 100)
        assert not wrong_rows(raw.read(33, 71), 33, 71)
        assert raw.read_headers(5, 8)["io_groups"].tolist() == [io_group(k) for k in (5, 6, 7)]


@pytest.mark.parametrize("block", [512, 4096])
def test_user_block_is_read_through_h5py(block: int, tmp_path: Path):
    """Behind a user block addresses count from elsewhere."""
    path = tmp_path / "raw.h5"
    with h5py.File(path, "w", libver=LIBVER, userblock_size=block) as file:
        add_meta(file)
        add_datasets(file, shape=(100,))
        fill(file, 0, 100)
    with RawFile(path) as raw:
        assert raw.reading == "h5py"
        assert_right(raw, 100)


@pytest.mark.parametrize("libver", ["earliest", ("earliest", "v108"), "latest"])
def test_formats_of_the_library(libver, tmp_path: Path):
    """Files of the oldest format come through h5py, those of the newest directly."""
    path = make(tmp_path / "raw.h5", libver=libver)
    with RawFile(path) as raw:
        assert raw.reading == ("direct" if libver == "latest" else "h5py")
        assert_right(raw, 100)
        assert raw.meta.version == "0.0"


@pytest.mark.parametrize("sizes", [(8, 4), (4, 8), (4, 4)], ids=str)
def test_short_addresses_or_lengths_are_read_through_h5py(sizes, tmp_path: Path):
    """A file whose addresses or lengths have 4 bytes is not the plain case."""
    path = tmp_path / "raw.h5"
    create = h5p.create(h5p.FILE_CREATE)
    create.set_sizes(*sizes)
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_V110)
    made = h5f.create(os.fsencode(path), h5f.ACC_TRUNC, create, access)
    with h5py.File(made) as file:
        add_meta(file)
        add_datasets(file, shape=(100,), maxshape=None)
        fill(file, 0, 100)
    with RawFile(path) as raw:
        assert raw.reading == "h5py"
        assert_right(raw, 100)


def test_fallback_follows_a_growing_file(tmp_path: Path):
    """Through h5py too, each batch of a live file is there once its writer has flushed."""
    path = tmp_path / "raw.h5"
    with second_process("lzf", path) as process, RawFile(path) as raw:
        assert raw.reading == "h5py"
        for rows in (10, 11, 300, 301):
            tell(process, rows)
            assert_right(raw, rows)
        process.stdin.close()
        process.wait(30)
        assert_right(raw, 301)


# ------------------------------------------------------------------------------------ damage


def read_all(path: Path) -> tuple[list[bytes], list[int]] | StreamError | LayoutError:
    try:
        with RawFile(path) as raw:
            batch = raw.read(0, raw.refresh())
            return batch.tolist(), batch.io_groups.tolist()
    except (StreamError, LayoutError) as error:
        return error


def honest(path: Path, rows: int, own: int | None, what: object) -> str:
    """Read a damaged file; return what came of it, unless that is a wrong row."""
    msgs = rows_of(0, rows)
    groups = [io_group(row) for row in range(rows)]
    came = read_all(path)
    if isinstance(came, Exception):
        assert str(path) in str(came), what
        if not isinstance(came, RowUnreadable):
            return type(came).__name__
        assert f"row {came.row} " in str(came)
        with RawFile(path) as raw:
            raw.look()
            batch, cause = raw.read_available(0, rows)
            assert len(batch) == came.row
            assert cause
            assert batch.tolist() == msgs[: came.row], f"wrong bytes: {what}"
        return "row"
    found, found_groups = came
    assert len(found) == len(found_groups) == rows, f"rows lost without an error: {what}"
    wrong = [
        row
        for row in range(rows)
        if (found[row], found_groups[row]) != (msgs[row], groups[row]) and row != own
    ]
    assert not wrong, f"wrong rows: {what}"
    return "right"


def own_bytes(path: Path, rows: int) -> dict[int, int]:
    """Return the offsets of the rows' own bytes, which nothing can check, and the rows."""
    image = path.read_bytes()
    own = {}
    for row, data in enumerate(rows_of(0, rows)):
        start = image.index(data)
        own.update(dict.fromkeys(range(start, start + len(data)), row))
    with h5py.File(path) as file:
        headers = file["msg_headers"]
        if not headers.id.get_create_plist().get_nfilters():
            for number in range(headers.id.get_num_chunks()):
                chunk = headers.id.get_chunk_info(number)
                for k in range(headers.chunks[0]):
                    own[chunk.byte_offset + k] = chunk.chunk_offset[0] + k
    return own


@pytest.mark.timeout(90, method="thread")  # where HDF5 hangs, nothing else ends it
@pytest.mark.parametrize("case", ["plain", "gzip", "all"])
def test_no_flipped_bit_makes_a_wrong_row(case: str, tmp_path: Path, impatient):
    """One bit anywhere in the file: every row is right, or an error names file and row."""
    rows = 30
    path = make(tmp_path / "raw.h5", rows, **DIRECT[case])
    image = path.read_bytes()
    own = own_bytes(path, rows)
    rng = random.Random(f"{SEED} {case}")
    # Most of the file is zeros that nobody reads.
    used = [at for at, byte in enumerate(image) if byte or any(image[max(0, at - 8) : at])]
    found: dict[str, int] = {}
    with path.open("r+b", buffering=0) as file:
        for at in rng.sample(used, min(len(used), 200)):
            bit = 1 << rng.randrange(8)
            os.pwrite(file.fileno(), bytes([image[at] ^ bit]), at)
            kind = honest(path, rows, own.get(at), (at, bit))
            found[kind] = found.get(kind, 0) + 1
            os.pwrite(file.fileno(), image[at : at + 1], at)
    assert path.read_bytes() == image
    assert found["right"] > 50, found
    assert found["row"] > 2, found
    assert found["NotReady"] + found["LayoutError"] > 10, found


@pytest.mark.timeout(90, method="thread")  # where HDF5 hangs, nothing else ends it
@pytest.mark.parametrize("case", ["plain", "gzip"])
def test_no_cut_makes_a_wrong_row(case: str, tmp_path: Path, impatient):
    """A file cut anywhere gives an error that names it, and the rows that remain are right."""
    rows = 1500
    with foreign(tmp_path / "whole.h5", **DIRECT[case]) as file:
        for start in range(0, rows, 100):
            resize(file, start + 100)
            fill(file, start, start + 100)
            file.flush()
    whole = (tmp_path / "whole.h5").read_bytes()
    rng = random.Random(f"{SEED} {case}")
    found: dict[str, int] = {}
    for size in sorted(rng.sample(range(48, len(whole)), 25)):
        path = tmp_path / f"{size}.h5"
        path.write_bytes(whole[:size])
        came = read_all(path)
        if isinstance(came, Exception):
            assert isinstance(came, NotReady)
            assert str(path) in str(came)
            kind = "NotReady"
        else:
            with RawFile(path) as raw:
                kind = "rows" if len(raw) else "announced"
                assert raw.lengths == (rows, rows)
                assert not wrong_rows(raw.read(0), 0, len(raw))
                if len(raw) == rows:  # free space is all that is missing
                    continue
                with pytest.raises(RowUnreadable) as caught:
                    raw.read(0, rows)
                assert caught.value.row == len(raw)
        found[kind] = found.get(kind, 0) + 1
        path.unlink()
    assert found["rows"] > 5, found
    assert len(found) > 1, found


def test_no_changed_byte_of_a_checked_chunk_makes_a_wrong_header(tmp_path: Path, impatient):
    """Where the headers have checksums, damage in them is an error."""
    path = make(tmp_path / "raw.h5", 30, fletcher32=True)
    with h5py.File(path) as file:
        chunk = file["msg_headers"].id.get_chunk_info(1)
    image = path.read_bytes()
    for at in range(chunk.byte_offset, chunk.byte_offset + chunk.size):
        path.write_bytes(image[:at] + bytes([image[at] ^ 0x10]) + image[at + 1 :])
        assert honest(path, 30, None, at) in ("NotReady", "row")


def end_of_opening(path: Path) -> str:
    """Open a file in a process of its own, because nothing ends HDF5 where it hangs."""
    with second_process("try", path) as process:
        said, _ = process.communicate(timeout=30)
    return said.decode()


def half_write(path: Path, start: int) -> None:
    """Leave of a heap collection what a writer that was killed has written of it."""
    image = bytearray(path.read_bytes())
    stop = start + int.from_bytes(image[start + 8 : start + 16], "little")
    image[start + 500 : stop] = bytes(stop - start - 500)
    path.write_bytes(image)


def test_half_written_collection_does_not_hang(tmp_path: Path):
    """Zeros in the collection of the attributes' texts, in which HDF5 turns for ever."""
    path = make(tmp_path / "raw.h5", 100)
    half_write(path, path.read_bytes().index(b"GCOL"))
    assert end_of_opening(path) in ("NotReady\n", "RowUnreadable\n")


@pytest.mark.parametrize("left", [0, 8])
def test_collection_cut_between_two_messages_does_not_hang(left: int, tmp_path: Path):
    """What there is of it is sound, but HDF5 takes what is not there for zeros."""
    path = make(tmp_path / "raw.h5", 900)
    image = path.read_bytes()
    start = image.index(b"GCOL")
    size = int.from_bytes(image[start + 8 : start + 16], "little")
    place = start + HEAP_HEADER
    while place < size:  # so that the file has as many bytes, from its beginning on
        place += span(read_object(image, place)[1])
    assert place + left < start + size
    path.write_bytes(image[: place + left])
    assert end_of_opening(path) in ("NotReady\n", "RowUnreadable\n")


@pytest.mark.parametrize("case", ["plain", "lzf"])
def test_half_written_collection_of_messages_does_not_hang(case: str, tmp_path: Path):
    """The same in a later collection, which only messages lie in: their rows are named."""
    path = tmp_path / "raw.h5"
    with foreign(path, **(DIRECT | THROUGH_H5PY)[case]) as file:
        resize(file, 900)
        fill(file, 0, 900)
    half_write(path, path.read_bytes().rindex(b"GCOL"))
    assert end_of_opening(path) == ("RowUnreadable\n" if case == "plain" else "NotReady\n")


@pytest.mark.parametrize("signature", [b"OHDR", b"EAHD", b"EAIB", b"\x89HDF"])
def test_damaged_metadata_does_not_hang(signature: bytes, tmp_path: Path):
    """One byte of what HDF5 guards by checksums, which it would read 100 times for ever."""
    path = make(tmp_path / "raw.h5", 100)
    image = bytearray(path.read_bytes())
    image[image.rindex(signature) + 9] ^= 0x04
    path.write_bytes(image)
    assert end_of_opening(path) in ("NotReady\n", "LayoutError\n", "RowUnreadable\n")


def test_rows_before_a_damaged_one_are_read(tmp_path: Path):
    """A damaged heap object is one row: those before and behind it can be read."""
    path = make(tmp_path / "raw.h5", 100)
    image = bytearray(path.read_bytes())
    at = image.index(rows_of(50, 51)[0]) - 16
    image[at] ^= 0x40
    path.write_bytes(image)
    with RawFile(path) as raw:
        assert raw.refresh() == 100
        with pytest.raises(RowUnreadable) as caught:
            raw.read(0)
        assert (caught.value.row, caught.value.path) == (50, str(path))
        assert not wrong_rows(raw.read(0, 50), 0, 50)
        assert not wrong_rows(raw.read(51, 100), 51, 100)


def test_damage_of_a_closed_file_is_told_at_once(tmp_path: Path):
    """Nobody waits for a row that nobody is going to write."""
    path = tmp_path / "raw.h5"
    with RawWriter(path) as out:
        out.append([bytes(3000)] * 100, 1)
    image = path.read_bytes()
    last = image.rindex(b"GCOL")
    path.write_bytes(image[:last] + b"lost" + image[last + 4 :])
    with RawFile(path) as raw:
        before = time.monotonic()
        with pytest.raises(RowUnreadable):
            raw.read(0, 100)
        assert time.monotonic() - before < 1


@pytest.mark.nightly
@pytest.mark.timeout(1200, method="thread")
@pytest.mark.parametrize("case", ["plain", "gzip", "all"])
def test_no_flipped_byte_makes_a_wrong_row(case: str, tmp_path: Path, impatient):
    """Every byte that is used, each changed to several others."""
    rows = 30
    path = make(tmp_path / "raw.h5", rows, **DIRECT[case])
    image = path.read_bytes()
    own = own_bytes(path, rows)
    used = [at for at, byte in enumerate(image) if byte or any(image[max(0, at - 8) : at])]
    with path.open("r+b", buffering=0) as file:
        for at in used:
            for flip in (0x01, 0x08, 0x80, 0xFF):
                os.pwrite(file.fileno(), bytes([image[at] ^ flip]), at)
                honest(path, rows, own.get(at), (at, flip))
            os.pwrite(file.fileno(), image[at : at + 1], at)


# ---------------------------------------------------------------------------------- what is asked


@pytest.fixture
def hundred(tmp_path: Path) -> Iterator[RawFile]:
    with RawFile(make(tmp_path / "raw.h5", 100)) as raw:
        yield raw


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 100), (99, 100), (100, 100), (15, 17)])
def test_ranges_of_the_file(hundred: RawFile, start: int, stop: int):
    """Any range between the ends gives its rows, an empty one none."""
    assert not wrong_rows(hundred.read(start, stop), start, stop)
    assert len(hundred.read_headers(start, stop)) == stop - start


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 101), (-1, 5), (5, 4), (101, 101), (200, 300), (-5, -1), (0, 1 << 70)]
)
def test_rows_out_of_range(hundred: RawFile, start: int, stop: int):
    """Rows that the file does not have are an IndexError that names it and its length."""
    for read in (hundred.read, hundred.read_headers):
        with pytest.raises(RowsOutOfRange) as caught:
            read(start, stop)
        assert isinstance(caught.value, IndexError)
        assert str(hundred.path) in str(caught.value)
        assert "100" in str(caught.value)


def test_read_to_the_end_by_default(hundred: RawFile):
    """Without a stop the rows go to the last."""
    assert not wrong_rows(hundred.read(90), 90, 100)
    assert len(hundred.read(100)) == 0
    with pytest.raises(RowsOutOfRange):
        hundred.read(101)


def test_headers_have_all_fields(tmp_path: Path):
    """Headers come with every field that the file has, as it has them."""
    header = np.dtype([("time", ">i8"), ("io_groups", "u1")])
    path = make(tmp_path / "raw.h5", 40, header=header)
    with h5py.File(path, "r+") as file:
        file["msg_headers"]["time", :40] = np.arange(40) * 10**12
    with RawFile(path) as raw:
        found = raw.read_headers(10, 40)
        assert found.dtype.names == ("time", "io_groups")
        assert found["time"].tolist() == [k * 10**12 for k in range(10, 40)]
        assert found["io_groups"].tolist() == [io_group(k) for k in range(10, 40)]


def test_read_available_gives_what_is_there(tmp_path: Path):
    """Of announced rows those that are written come, and why the next does not."""
    path = tmp_path / "raw.h5"
    with foreign(path) as file:
        resize(file, 50)
        fill(file, 0, 30)
        file.flush()
        with RawFile(path) as raw:
            assert raw.look() == 50
            batch, cause = raw.read_available(0, 50)
            assert not wrong_rows(batch, 0, 30)
            assert "not written yet" in cause
            batch, cause = raw.read_available(10, 20)
            assert not wrong_rows(batch, 10, 20)
            assert cause is None
            assert len(raw) == 30


def test_length_is_that_of_the_last_look(tmp_path: Path):
    """Rows that came since are not seen before the next refresh."""
    path = tmp_path / "raw.h5"
    with RawWriter(path) as out, RawFile(path) as raw:
        assert len(raw) == 0
        out.append(rows_of(0, 5), [io_group(k) for k in range(5)])
        assert len(raw) == 0
        with pytest.raises(RowsOutOfRange):
            raw.read(0, 5)
        assert_right(raw, 5)


def test_look_at_a_file_that_does_not_grow_costs_hdf5_nothing(tmp_path: Path, monkeypatch):
    """What was announced and read is not looked up again, and what comes next is seen."""
    calls, refresh = [], Handle.refresh
    monkeypatch.setattr(Handle, "refresh", lambda self: calls.append(1) or refresh(self))
    with RawWriter(tmp_path / "raw.h5") as out, RawFile(tmp_path / "raw.h5") as file:
        for stop in (2, 4):
            out.append([b"new"] * 2, 1)
            file.refresh()
            seen = len(calls)
            assert [file.refresh() for _ in range(50)] == [stop] * 50
            assert len(calls) == seen
        assert calls


def test_repr_names_the_file(hundred: RawFile):
    """The text for people has path, rows and the way of reading; then that it is closed."""
    assert repr(hundred) == f"<RawFile {str(hundred.path)!r}, 100 rows, direct>"
    hundred.close()
    assert repr(hundred) == f"<RawFile {str(hundred.path)!r}, closed>"


USES = {
    "refresh": lambda raw: raw.refresh(),
    "look": lambda raw: raw.look(),
    "read": lambda raw: raw.read(0, 1),
    "read_headers": lambda raw: raw.read_headers(0, 1),
    "read_available": lambda raw: raw.read_available(0, 1),
    "reading": lambda raw: raw.reading,
    "meta": lambda raw: raw.meta,
    "still": lambda raw: raw.still,
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("case", ["plain", "lzf"])
def test_use_after_close(use: str, case: str, tmp_path: Path):
    """A closed RawFile says so at once, whatever it is asked."""
    raw = RawFile(make(tmp_path / "raw.h5", 3, **(DIRECT | THROUGH_H5PY)[case]))
    raw.close()
    raw.close()
    before = time.monotonic()
    with pytest.raises(StreamError, match="closed"):
        USES[use](raw)
    assert time.monotonic() - before < 1


def test_meta_is_what_the_file_says_now(tmp_path: Path):
    """Attributes that change while the file is held are read anew."""
    path = tmp_path / "raw.h5"
    with RawWriter(path, io_version="2.4") as out, RawFile(path) as raw:
        first = raw.meta
        assert (first.version, first.io_version, first.finished) == ("0.0", "2.4", -1)
        out.append([b"x"])
        assert raw.meta.modified > first.modified
        assert raw.meta.created == first.created
        out.close()
        assert raw.meta.finished == 1


# --------------------------------------------------------------- replaced, shrunk, started again


def rewritten(path: Path, other: Path) -> None:
    """Put the bytes of another file in the place of these: same name, same inode."""
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(other.read_bytes())


@pytest.mark.parametrize("rows", [60, 200, 300])
@pytest.mark.parametrize("case", ["plain", "gzip", "lzf"])
def test_file_started_again_in_its_place(case: str, rows: int, tmp_path: Path, impatient):
    """However many rows it has now: it is another file, which a new RawFile reads."""
    options = (DIRECT | THROUGH_H5PY)[case]
    path = make(tmp_path / "raw.h5", 200, **options)
    other = make(tmp_path / "other.h5", rows, **options)
    with RawFile(path) as old, RawFile(path) as older:
        assert_right(old, 200)
        rewritten(path, other)
        with RawFile(path) as new:
            assert_right(new, rows)
        for held in (old, older, old):
            with pytest.raises(FileReplaced, match=str(path)):
                held.refresh()
        with RawFile(path) as new:
            assert_right(new, rows)


def test_file_started_again_by_its_writer(tmp_path: Path, impatient):
    """A writer that begins anew under the same name is met at every stage of its beginning."""
    path = make(tmp_path / "raw.h5", 200)
    with RawFile(path) as old:
        assert_right(old, 200)
        with path.open("r+b") as file:
            file.truncate(0)
        with pytest.raises((NotReady, FileReplaced)):
            old.refresh()
        with RawWriter(path) as out:
            out.append(rows_of(0, 10), [io_group(k) for k in range(10)])
            with pytest.raises(FileReplaced):
                old.refresh()
            with RawFile(path) as new:
                assert_right(new, 10)
                with pytest.raises(FileReplaced):
                    old.refresh()
                assert_right(new, 10)


@pytest.mark.parametrize("case", ["plain", "lzf"])
def test_file_that_its_writer_made_shorter(case: str, tmp_path: Path):
    """Rows that are taken back are never passed over in silence."""
    path = tmp_path / "raw.h5"
    with foreign(path, **(DIRECT | THROUGH_H5PY)[case]) as file, RawFile(path) as raw:
        resize(file, 60)
        fill(file, 0, 60)
        file.flush()
        assert_right(raw, 60)
        resize(file, 40)
        file.flush()
        with pytest.raises(FileReplaced, match="has 40 rows, and had 60"):
            raw.refresh()


def test_file_that_was_away_for_a_moment(tmp_path: Path, impatient):
    """After an error that passes, the same RawFile goes on, and another that shares its handle."""
    path = make(tmp_path / "raw.h5", 200)
    image = path.read_bytes()
    with RawFile(path) as raw, RawFile(path) as other:
        with path.open("r+b") as file:
            file.truncate(0)
        with pytest.raises(NotReady):
            raw.refresh()
        with pytest.raises(NotReady):
            raw.read(0, 10)
        with path.open("r+b") as file:
            file.write(image)
        assert_right(raw, 200)
        assert_right(other, 200)


def test_file_replaced_by_another_of_the_same_name(tmp_path: Path):
    """A RawFile stays with the file it opened; a new one reads what has the name now."""
    path = make(tmp_path / "raw.h5", 200)
    with RawFile(path) as old:
        make(tmp_path / "other.h5", 60).replace(path)
        assert_right(old, 200)
        with RawFile(path) as new:
            assert_right(new, 60)
            assert_right(old, 200)
        assert old.meta.created != RawFileMeta(path)


def RawFileMeta(path: Path) -> float:
    with RawFile(path) as raw:
        return raw.meta.created


@pytest.mark.parametrize("case", ["plain", "lzf"])
def test_file_whose_name_is_gone(case: str, tmp_path: Path):
    """A file that was removed is read on, with all that its writer still adds."""
    path = tmp_path / "raw.h5"
    with foreign(path, **(DIRECT | THROUGH_H5PY)[case]) as file, RawFile(path) as raw:
        path.unlink()
        resize(file, 20)
        fill(file, 0, 20)
        file.flush()
        assert_right(raw, 20)


def test_file_whose_name_is_gone_is_opened_again(tmp_path: Path):
    """As after an error of HDF5, which itself opens only what has a name."""
    path = tmp_path / "raw.h5"
    with foreign(path) as file, RawFile(path) as raw:
        path.unlink()
        for stop in (20, 40):
            raw._source.spoil()
            resize(file, stop)
            fill(file, stop - 20, stop)
            file.flush()
            assert_right(raw, stop)


# ---------------------------------------------------------------------------- who else has it open


@pytest.mark.parametrize("killed", [True, False])
def test_file_open_for_writing_without_swmr(killed: bool, tmp_path: Path, impatient):
    """A writer between its open and SWMR, there or killed, does not hide the rows before."""
    path = make(tmp_path / "raw.h5", 100, compression="gzip")
    with second_process("open", path) as process:
        assert path.read_bytes()[FLAGS] == 1
        if killed:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        with RawFile(path) as raw, RawFile(path) as other:
            assert raw.reading == "direct"
            assert_right(raw, 100)
            assert_right(other, 100)
            assert raw.meta.version == "0.0"
    assert path.read_bytes()[FLAGS] == 1


def test_file_that_grows_beside_a_writer_without_swmr(tmp_path: Path, impatient):
    """What it flushes, and what comes after its close, is read by who opened it meanwhile."""
    path = make(tmp_path / "raw.h5", 100)
    with second_process("append", path) as process, RawFile(path) as raw:
        assert_right(raw, 100)
        for rows in (5_000, 10_000):
            tell(process, rows)
            assert_right(raw, rows)
        process.stdin.close()
        process.wait(30)
        assert_right(raw, 10_000)
        with h5py.File(path, "r+", locking=False) as file:
            resize(file, 10_100)
            fill(file, 10_000, 10_100)
        assert_right(raw, 10_100)


def test_file_that_says_late_where_it_ends(tmp_path: Path, impatient):
    """Whoever opens it between the write of rows and that of the superblock reads all of them."""
    path = make(tmp_path / "raw.h5", 100)
    with second_process("append", path) as process:
        tell(process, -10_000)
        with RawFile(path) as raw:
            early, size = raw.refresh(), path.stat().st_size
            assert early < 10_000
            tell(process, "flush")
            assert path.stat().st_size == size
            assert_right(raw, 10_000)


@pytest.mark.parametrize("value", ["TRUE", "BEST_EFFORT", "FALSE"])
def test_no_environment_makes_a_reader_lock(value: str, tmp_path: Path):
    """HDF5 lets the environment overrule what a program asks for: the DAQ must not suffer."""
    path = make(tmp_path / "raw.h5", 3)
    program = (
        "import sys; from streamer import RawFile; raw = RawFile(sys.argv[1])\n"
        "print(raw.read(0).tolist() != [], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        cwd=ROOT,
        env=environment() | {"HDF5_USE_FILE_LOCKING": value},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as reader:
        assert reader.stdout.readline() == b"True\n"
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_two_readers_of_one_file(tmp_path: Path):
    """Closing one of two RawFiles does nothing to the other, in either order."""
    path = make(tmp_path / "raw.h5", 100)
    first, second = RawFile(path), RawFile(path)
    assert_right(first, 100)
    first.close()
    assert_right(second, 100)
    third = RawFile(path)
    second.close()
    assert_right(third, 100)
    third.close()
    with RawFile(path) as fourth:
        assert_right(fourth, 100)


def test_reader_whose_shared_handle_was_closed_by_another(tmp_path: Path):
    """What one reader does upon an error of HDF5 does not end another's reading."""
    path = make(tmp_path / "raw.h5", 100)
    with RawFile(path) as first, RawFile(path) as second:
        first._source.spoil()
        assert not wrong_rows(second.read(0, 100), 0, 100)
        assert_right(second, 100)
        assert_right(first, 100)


def test_reader_whose_shared_handle_is_closed_while_it_opens(tmp_path: Path, monkeypatch):
    """It opens another one, and no descriptor is left (the fixture looks)."""
    path = make(tmp_path / "raw.h5", 100)
    with RawFile(path) as first:

        def spoilt_meanwhile(fd: int, name: Path) -> Meta | None:
            monkeypatch.undo()
            first._source.spoil()
            return read_meta_anew(fd, name)

        monkeypatch.setattr("streamer.opening.read_meta_anew", spoilt_meanwhile)
        with RawFile(path) as second:
            assert_right(second, 100)
        assert_right(first, 100)


def test_file_that_is_closed_while_another_thread_opens_it(tmp_path: Path, monkeypatch):
    """Datasets that are still open as they are refreshed, and no more when they are counted."""
    path = make(tmp_path / "raw.h5", 1000)
    first = RawFile(path)
    close, closing, may_close = Handle._close, threading.Event(), threading.Event()

    def held_up(handle: Handle) -> None:
        closing.set()
        assert may_close.wait(30)
        close(handle)

    monkeypatch.setattr(Handle, "_close", held_up)
    other = threading.Thread(target=first.close)
    other.start()
    assert closing.wait(30)
    monkeypatch.setattr(Handle, "_close", close)

    class Late:
        def __getattr__(self, name: str):
            if name == "get_obj_count":
                may_close.set()
                other.join(0.2)
            return getattr(h5f, name)

    monkeypatch.setattr("streamer.handle.h5f", Late())
    with RawFile(path) as raw:
        assert len(raw) == 1000
        assert not wrong_rows(raw.read(500, 600), 500, 600)
    other.join()


@pytest.mark.parametrize("case", ["plain", "gzip", "lzf"])
def test_many_readers_in_threads(case: str, tmp_path: Path):
    """Threads that open, read and close one live file at once all read right rows."""
    path = tmp_path / "raw.h5"
    errors: list[BaseException] = []
    done = threading.Event()
    start = threading.Barrier(7)

    def read(number: int) -> None:
        rng = random.Random(number)
        try:
            start.wait(30)
            while not done.is_set():
                with RawFile(path) as raw:
                    for _ in range(rng.randrange(1, 6)):
                        rows = raw.refresh()
                        low = rng.randrange(rows + 1)
                        assert not wrong_rows(raw.read(low, rows), low, rows)
        except BaseException as error:  # noqa: BLE001 - for the main thread
            errors.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    with foreign(path, **(DIRECT | THROUGH_H5PY)[case]) as file:
        resize(file, 400)
        fill(file, 0, 400)
        file.flush()
        for thread in threads:
            thread.start()
        start.wait(30)
        end = time.monotonic() + 1.0
        rows = 400
        while time.monotonic() < end and not errors:
            resize(file, rows + 20)
            fill(file, rows, rows + 20)
            file.flush()
            rows += 20
            time.sleep(0.01)
        done.set()
        for thread in threads:
            thread.join(30)
    assert not errors, errors[0]


def test_beside_a_rawwriter_of_the_same_process(tmp_path: Path):
    """A reader neither keeps the writer's file open nor is shut by its close."""
    path = tmp_path / "raw.h5"
    with RawWriter(path) as out:
        with RawFile(path) as raw:
            for start, stop in ((0, 1), (1, 50), (50, 2000)):
                out.append(rows_of(start, stop), [io_group(k) for k in range(start, stop)])
                assert_right(raw, stop)
            out.close()
            assert path.read_bytes()[FLAGS] == 0
            assert_right(raw, 2000)
            with RawWriter(path) as again:
                again.append(rows_of(2000, 2100), [io_group(k) for k in range(2000, 2100)])
                assert_right(raw, 2100)
        with RawFile(path) as raw:
            assert_right(raw, 2100)


@pytest.mark.parametrize("swmr", [False, True])
@pytest.mark.parametrize("case", ["plain", "lzf"])
@pytest.mark.parametrize("first", ["user", "reader"])
def test_beside_the_users_own_handle(swmr: bool, case: str, first: str, tmp_path: Path):
    """Whoever opened first: the user's h5py handle and a RawFile both read all rows."""
    path = make(tmp_path / "raw.h5", 100, **(DIRECT | THROUGH_H5PY)[case])
    opens = [
        lambda: RawFile(path),
        lambda: h5py.File(path, "r", swmr=swmr, libver=LIBVER, locking=False),
    ]
    with ExitStack() as stack:
        opened = [
            stack.enter_context(do()) for do in (opens if first == "reader" else opens[::-1])
        ]
        raw, file = opened if first == "reader" else opened[::-1]
        assert_right(raw, 100)
        assert [bytes(msg) for msg in file["msgs"][:]] == rows_of(0, 100)
        assert_right(raw, 100)
        file["msgs"].refresh() if swmr else None
        assert_right(raw, 100)


def test_beside_the_users_swmr_handle_of_a_live_file(tmp_path: Path):
    """A user's own SWMR handle, with a dataset open, does not disturb a RawFile."""
    path = tmp_path / "raw.h5"
    with foreign(path) as out:
        resize(out, 50)
        fill(out, 0, 50)
        out.flush()
        with second_process("swmr", path) as process:
            with RawFile(path) as raw:
                assert_right(raw, 50)
                resize(out, 150)
                fill(out, 50, 150)
                out.flush()
                assert_right(raw, 150)
            assert process.poll() is None


def test_handle_of_the_log_driver_without_swmr_is_named(tmp_path: Path):
    """The one kind of handle beside which nothing can be opened is named in the error."""
    path = make(tmp_path / "raw.h5", 10)
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_log(os.devnull.encode(), 0, 0)
    handle = h5f.open(os.fsencode(path), h5f.ACC_RDONLY, access)
    try:
        error = open_error(path, NotReady)
        assert "log driver" in error
        assert "Close it first" in error
    finally:
        handle.close()
    with RawFile(path) as raw:
        assert_right(raw, 10)


def test_datasets_open_through_the_log_driver_are_named(tmp_path: Path, impatient):
    """With a dataset open twice HDF5 would return wrong chunks: an error, and no rows."""
    path = make(tmp_path / "raw.h5", 100)
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_log(os.devnull.encode(), 0, 0)
    access.set_file_locking(False, True)
    handle = h5f.open(os.fsencode(path), h5f.ACC_RDONLY | h5f.ACC_SWMR_READ, access)
    with h5py.File(handle) as file:
        dataset = file["msgs"]
        with pytest.raises(NotReady, match="log driver"):
            RawFile(path)
        del dataset
    with RawFile(path) as raw:
        assert_right(raw, 100)


# ------------------------------------------------------------- empty messages and io_group 0

BLANKS = [
    ([b"", b"a", b""], [0, 0, 1]),
    ([b"", b""], [0, 0]),
    ([b"b", b"c", b""], [0, 0, 0]),
    ([b"", b"", b""], [0, 5, 0]),
]
BLANK_ROWS = [pair for msgs, groups in BLANKS for pair in zip(msgs, groups, strict=True)]


def pairs(batch) -> list[tuple[bytes, int]]:
    return list(zip(batch.tolist(), batch.io_groups.tolist(), strict=True))


def test_blank_rows_of_a_closed_stock_file(tmp_path: Path):
    """Once nobody writes the file, what looks unwritten is what was written."""
    path = tmp_path / "raw.h5"
    stock_to_rawfile(path, *BLANKS)
    with RawFile(path) as raw:
        assert raw.refresh() == len(BLANK_ROWS)
        assert pairs(raw.read(0)) == BLANK_ROWS
        for row, pair in enumerate(BLANK_ROWS):
            assert pairs(raw.read(row, row + 1)) == [pair]


@pytest.mark.parametrize("case", ["plain", "lzf"])
def test_blank_rows_of_a_closed_file_of_another_maker(case: str, tmp_path: Path):
    """The same through h5py, also of a file that was closed while it was held."""
    path = tmp_path / "raw.h5"
    with ExitStack() as stack:
        with foreign(path, **(DIRECT | THROUGH_H5PY)[case]) as file:
            raw = stack.enter_context(RawFile(path))
            resize(file, len(BLANK_ROWS))
            store(file["msgs"], 0, [data for data, _ in BLANK_ROWS])
            file["msg_headers"]["io_groups", :] = [group for _, group in BLANK_ROWS]
            file.flush()
            assert raw.refresh() == 0
        assert raw.refresh() == len(BLANK_ROWS)
        assert pairs(raw.read(0)) == BLANK_ROWS


def test_blank_rows_of_a_live_rawwriter(tmp_path: Path):
    """Our own writer announces what is there: nothing is held back."""
    path = tmp_path / "raw.h5"
    with RawWriter(path) as out, RawFile(path) as raw:
        seen = 0
        for msgs, groups in BLANKS:
            rows = out.append(msgs, groups)
            assert raw.refresh() == rows.stop
            assert pairs(raw.read(seen)) == BLANK_ROWS[seen : rows.stop]
            seen = rows.stop


@pytest.mark.parametrize("held", [True, False])
def test_blank_rows_of_a_killed_rawwriter(held: bool, tmp_path: Path):
    """Nor when it was killed: what it had announced is there."""
    path = tmp_path / "raw.h5"
    with ExitStack() as stack:
        with second_process("blanks", path) as process:
            raw = stack.enter_context(RawFile(path)) if held else None
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        raw = raw or stack.enter_context(RawFile(path))
        assert path.read_bytes()[FLAGS] == 5
        assert raw.refresh() == len(BLANK_ROWS)
        assert pairs(raw.read(0)) == BLANK_ROWS


@pytest.mark.parametrize("case", ["plain", "gzip", "lzf"])
def test_blank_rows_of_another_live_writer_wait_for_a_later_batch(case: str, tmp_path: Path):
    """They look like rows to come, until rows behind them are there."""
    path = tmp_path / "raw.h5"
    blank = [(b"", 1), (b"x", 0), (b"", 0)]
    with foreign(path, **(DIRECT | THROUGH_H5PY)[case]) as file, RawFile(path) as raw:
        resize(file, 5)
        fill(file, 0, 5)
        file.flush()
        assert_right(raw, 5)
        resize(file, 8)
        store(file["msgs"], 5, [data for data, _ in blank])
        file["msg_headers"]["io_groups", 5:] = [group for _, group in blank]
        file.flush()
        for _ in range(3):
            assert raw.refresh() == 5
        resize(file, 12)
        file.flush()
        for _ in range(3):
            assert raw.refresh() == 5, "the later rows are announced only"
        fill(file, 8, 12)
        file.flush()
        assert raw.refresh() == 12
        assert pairs(raw.read(5, 8)) == blank
        assert not wrong_rows(raw.read(8, 12), 8, 12)


@pytest.mark.parametrize("case", ["plain", "gzip", "lzf", "odd-chunks"])
@pytest.mark.parametrize("rows", [1, 15, 100])
def test_rows_of_another_writer_that_has_only_resized(case: str, rows: int, tmp_path: Path):
    """Announced and not filled: never delivered, then delivered right, batch after batch."""
    path = tmp_path / "raw.h5"
    with foreign(path, **(DIRECT | THROUGH_H5PY)[case]) as file, RawFile(path) as raw:
        for start in range(0, 3 * rows, rows):
            resize(file, start + rows)
            file.flush()
            for _ in range(2):
                assert raw.refresh() == start
                batch, cause = raw.read_available(start, start + rows)
                assert len(batch) == 0
                assert cause
            fill(file, start, start + rows)
            file.flush()
            assert_right(raw, start + rows)


@pytest.mark.parametrize("part", ["msgs", "msg_headers"])
@pytest.mark.parametrize("case", ["plain", "gzip", "lzf"])
def test_rows_of_which_one_dataset_is_filled(case: str, part: str, tmp_path: Path):
    """A message without its header, or the other way round, is not a row yet."""
    path = tmp_path / "raw.h5"
    with foreign(path, **(DIRECT | THROUGH_H5PY)[case]) as file, RawFile(path) as raw:
        resize(file, 40)
        if part == "msgs":
            store(file["msgs"], 0, rows_of(0, 40))
        else:
            file["msg_headers"]["io_groups", :] = [io_group(row) for row in range(40)]
        file.flush()
        assert raw.refresh() == 0
        fill(file, 0, 40)
        file.flush()
        assert_right(raw, 40)


@pytest.mark.parametrize("case", ["plain", "gzip"])
@pytest.mark.parametrize("filled", [0, 5])
def test_writer_that_closes_between_a_look_and_a_read(case: str, filled: int, tmp_path: Path):
    """Rows that were announced empty, and filled before the close, come as they were filled."""
    path = tmp_path / "raw.h5"
    with ExitStack() as stack:
        with foreign(path, **DIRECT[case]) as file:
            raw = stack.enter_context(RawFile(path))
            if filled:
                resize(file, filled)
                fill(file, 0, filled)
            resize(file, 40)
            file.flush()
            assert raw.look() == 40
            fill(file, filled, 40)
        assert len(raw) == 40
        assert not wrong_rows(raw.read(0, 40), 0, 40)


@pytest.mark.parametrize("case", ["plain", "gzip"])
def test_read_of_rows_that_come_in_a_moment(case: str, tmp_path: Path):
    """A read of announced rows waits for them, as long as that is short."""
    path = tmp_path / "raw.h5"
    with foreign(path, **DIRECT[case]) as file, RawFile(path) as raw:
        resize(file, 40)
        file.flush()
        assert raw.look() == 40

        def later() -> None:
            time.sleep(0.2)
            fill(file, 0, 40)
            file.flush()

        thread = threading.Thread(target=later)
        thread.start()
        try:
            assert not wrong_rows(raw.read(0, 40), 0, 40)
        finally:
            thread.join()


def test_read_of_rows_that_never_come(tmp_path: Path, impatient):
    """A read of announced rows that stay away names the first, and ends."""
    path = tmp_path / "raw.h5"
    with foreign(path) as file, RawFile(path) as raw:
        resize(file, 40)
        fill(file, 0, 12)
        file.flush()
        assert raw.refresh() == 12
        with pytest.raises(RowUnreadable) as caught:
            raw.read(0, 40)
        assert caught.value.row == 12


def test_old_format_waits_until_nobody_writes(tmp_path: Path):
    """The oldest files do not say that they are closed: after a while without change they are."""
    path = tmp_path / "raw.h5"
    with h5py.File(path, "w", libver="earliest") as file:
        add_meta(file)
        add_datasets(file, shape=(3,))
        store(file["msgs"], 0, [b"a", b"", b"c"])
        file["msg_headers"]["io_groups", :] = [1, 0, 0]
    with RawFile(path) as raw:
        assert raw.refresh() == 1
        past = time.time() - 60
        os.utime(path, (past, past))
        assert raw.refresh() == 3
        assert pairs(raw.read(0)) == [(b"a", 1), (b"", 0), (b"c", 0)]


# ---------------------------------------------------------------------------------------- memory


def test_memory_does_not_grow_with_the_file(tmp_path: Path):
    """Hundreds of megabytes, read in ranges, take the memory of a few ranges."""
    path = tmp_path / "raw.h5"
    length, rows = 6144, 60_000
    block = np.random.default_rng(SEED).bytes(length * 6000)
    with RawWriter(path) as out:
        for _ in range(rows // 6000):
            out.append(block, 1, lengths=[length] * 6000)
    assert path.stat().st_size > 360e6
    with second_process("memory", path, 6000) as process:
        report = json.loads(process.stdout.readline())
    assert report["bytes"] == length * rows
    # Three ranges: the one before, the new one, and what is on the way between them.
    assert report["grown"] < 3 * length * 6000, report


# ------------------------------------------------------------------- programs of a second process


def main(kind: str, path: str, *more: str) -> None:
    if kind == "lzf":
        with foreign(Path(path), compression="lzf") as file:
            print("ready", flush=True)
            rows = 0
            for line in sys.stdin:
                stop = int(line)
                resize(file, stop)
                fill(file, rows, stop)
                file.flush()
                rows = stop
                print(rows, flush=True)
    elif kind == "append":
        with h5py.File(path, "r+", libver=LIBVER, locking=False) as file:
            print("ready", flush=True)
            start = len(file["msgs"])
            for line in sys.stdin:
                if line != "flush\n":
                    stop = abs(int(line))
                    resize(file, stop)
                    fill(file, start, stop)
                    start = stop
                if line[0] == "-":  # the rows, and not the superblock
                    file["msgs"].flush()
                    file["msg_headers"].flush()
                else:
                    file.flush()
                print(line, end="", flush=True)
    elif kind == "open":
        with h5py.File(path, "r+", libver=LIBVER):
            print("ready", flush=True)
            sys.stdin.read()
    elif kind == "swmr":
        with h5py.File(path, "r", swmr=True, locking=False) as file:
            msgs = file["msgs"]
            print("ready", flush=True)
            while True:
                msgs.refresh()
                time.sleep(0.001)
    elif kind == "blanks":
        with RawWriter(path) as out:
            for msgs, groups in BLANKS:
                out.append(msgs, groups)
            print("ready", flush=True)
            sys.stdin.read()
    elif kind == "try":
        print("ready", flush=True)
        came = read_all(Path(path))
        print(type(came).__name__)
    elif kind == "memory":
        step = int(more[0])
        with RawFile(path) as raw:
            print("ready", flush=True)
            raw.read(0, 10)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            seen = 0
            for start in range(0, len(raw), step):
                seen += raw.read(start, start + step).payload_bytes
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"bytes": seen, "grown": 1024 * (after - before)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
