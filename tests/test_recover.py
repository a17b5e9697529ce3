"""Damaged files of every sort, and the copies that are made of them."""

import errno
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import streamer.opening
import streamer.source
from streamer import NotReady, RawFile
from streamer.cli import main
from streamer.left import DAMAGED, HEADERLESS, HOLED, TORN, UNWRITTEN, ZERO_REFERENCES, Left
from streamer.recover import CannotRecover, recover
from streamer.recovery import Recovery
from streamer.retry import Patience
from tests.live.writers import check, io_group, message, size_of
from writer import RawWriter
from writer.errors import CannotWrite
from writer.layout import LayoutError

ROOT = Path(__file__).parents[1]
SEED = 20261122
ROWS = 4000
PAGE = 4096


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for a file that nobody writes."""
    monkeypatch.setattr(streamer.opening, "_PATIENCE", Patience(3, 0.01))
    monkeypatch.setattr(streamer.source.Source, "PATIENCE", Patience(3, 0.01))


# -------------------------------------------------------------------------- whole files


def rows_of(start: int, stop: int) -> list[bytes]:
    return [message(row, size_of(row, "mixed")) for row in range(start, stop)]


def groups_of(start: int, stop: int) -> list[int]:
    return [io_group(row) for row in range(start, stop)]


def ours(path: Path) -> None:
    with RawWriter(path, io_version="0.0") as out:
        for start in range(0, ROWS, 100):
            out.append(rows_of(start, start + 100), groups_of(start, start + 100))


def long_lived(path: Path, **options) -> None:
    """Make a file as a writer of another maker does, with HDF5 alone."""
    with h5py.File(path, "w", libver=("v110", "v114")) as file:
        file.create_group("meta").attrs.update({"created": 1.7e9, "version": "0.0"})
        dtypes = (h5py.vlen_dtype(np.dtype("u1")), np.dtype([("io_groups", "u1")]))
        for name, dtype in zip(("msgs", "msg_headers"), dtypes, strict=True):
            file.create_dataset(name, (0,), dtype, maxshape=(None,), **options)
        for start in range(0, ROWS, 500):
            file["msgs"].resize((start + 500,))
            file["msg_headers"].resize((start + 500,))
            column = np.empty(500, object)
            column[:] = [np.frombuffer(data, "u1") for data in rows_of(start, start + 500)]
            file["msgs"][start:] = column
            file["msg_headers"]["io_groups", start : start + 500] = groups_of(start, start + 500)


STOCK = """
import sys
from larpix.format.rawhdf5format import to_rawfile
from tests.test_recover import ROWS, groups_of, rows_of
for start in range(0, ROWS, 500):
    msgs, groups = rows_of(start, start + 500), groups_of(start, start + 500)
    to_rawfile(sys.argv[1], msgs=msgs, msg_headers={"io_groups": groups})
"""


def stock(path: Path) -> None:
    subprocess.run([sys.executable, "-c", STOCK, str(path)], cwd=ROOT, check=True, timeout=60)


MAKERS: dict[str, Callable[[Path], None]] = {
    "rawwriter": ours,
    "stock": stock,
    "plain": long_lived,
    "gzip": lambda path: long_lived(path, compression="gzip"),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """Return the bytes of a whole file of a maker; each is made once."""
    made: dict[str, bytes] = {}

    def image(maker: str) -> bytes:
        if maker not in made:
            path = tmp_path_factory.mktemp("whole") / "raw.h5"
            MAKERS[maker](path)
            made[maker] = path.read_bytes()
        return made[maker]

    return image


def old(path: Path, content: bytes) -> Path:
    """Write a file that nobody has written for long."""
    path.write_bytes(content)
    os.utime(path, (time.time() - 3600,) * 2)
    return path


# ------------------------------------------------------------------ what came of damage


def read_copy(path: Path) -> list[tuple[bytes, int]]:
    with h5py.File(path) as file:
        groups = file["msg_headers"]["io_groups"].tolist()
        return [(row.tobytes(), group) for row, group in zip(file["msgs"], groups, strict=True)]


def lost_rows(done: Recovery) -> set[int]:
    return {row for left in done.left for row in range(left.start, left.stop)}


def wrong_rows(done: Recovery) -> list[int]:
    """Return the rows that are not as they were written, by the numbers of the original."""
    found = read_copy(done.out or done.path)
    lost = lost_rows(done)
    kept = [row for row in range(ROWS) if row not in lost]
    assert len(found) == len(kept) == done.rows
    return [
        row
        for row, (data, group) in zip(kept, found, strict=True)
        if not check(row, data) or group != io_group(row)
    ]


def damaged_rows(image: bytes, content: bytes) -> set[int]:
    """Return the rows of whose message, or of what is before and behind it, a byte changed."""
    changed, place = set(), 0
    for row, data in enumerate(rows_of(0, ROWS)):
        at = image.find(data, place)
        place = at if at >= 0 else 0
        at = at if at >= 0 else image.index(data)
        span = slice(at - 16, at + len(data) + 24)
        if image[span] != content[span]:
            changed.add(row)
    return changed


def flip(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 3, 20))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def blank(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 5))):
        start = rng.randrange(len(content) // PAGE) * PAGE
        content[start : start + PAGE] = bytes(PAGE)


def cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(48, len(content)) :]


DAMAGES = {"flipped bits": flip, "pages of zeros": blank, "a cut": cut}


def break_and_recover(
    image: bytes, damage: Callable, times: int, folder: Path, rng: random.Random
) -> int:
    """Damage a file again and again; return how often rows could be saved."""
    saved = 0
    for _ in range(times):
        content = bytearray(image)
        damage(content, rng)
        path, copy = old(folder / "raw.h5", content), folder / "copy.h5"
        copy.unlink(missing_ok=True)
        try:
            done = recover(path, copy)
        except (NotReady, LayoutError) as error:
            if str(path) not in str(error):
                pytest.fail(f"it does not say which file: {error}")
            continue
        assert path.read_bytes() == content
        wrong = wrong_rows(done)
        # HDF5 has no checksum of messages, nor of header rows without a filter.
        if damage is flip:
            assert len(wrong) <= 20
        else:
            assert not wrong
        saved += 1
    assert not [entry for entry in folder.iterdir() if entry.name.endswith(".part")]
    return saved


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("maker", ["rawwriter", "stock", "plain"])
def test_no_damage_makes_a_wrong_row(maker, damage, images, tmp_path: Path, impatient):
    """Whatever was changed, each row of the copy is right, and the original is as it was."""
    rng = random.Random(f"{SEED} {maker} {damage}")
    saved = break_and_recover(images(maker), DAMAGES[damage], 3, tmp_path, rng)
    assert saved >= 1


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("maker", ["rawwriter", "stock", "plain", "gzip"])
def test_no_damage_of_very_many_makes_a_wrong_row(
    maker, damage, images, tmp_path: Path, impatient
):
    """The same, for every page and many more bits and cuts."""
    rng = random.Random(f"{SEED} nightly {maker} {damage}")
    assert break_and_recover(images(maker), DAMAGES[damage], 300, tmp_path, rng) > 150


@pytest.mark.parametrize("maker", ["rawwriter", "stock"])
def test_rows_behind_a_bad_page_are_kept(maker, images, tmp_path: Path):
    """A page of messages costs those in it, and no others of its heap collection."""
    image = images(maker)
    start = image.index(message(2000, size_of(2000, "mixed"))) // PAGE * PAGE
    content = image[:start] + bytes(PAGE) + image[start + PAGE :]
    done = recover(old(tmp_path / "raw.h5", content), tmp_path / "copy.h5")
    assert not wrong_rows(done)
    # Where a piece of the list of messages shares the page, its rows are lost too.
    in_heap = done._replace(left=[left for left in done.left if left.cause in (DAMAGED, TORN)])
    assert lost_rows(in_heap) <= damaged_rows(image, content)
    assert 1 < len(lost_rows(in_heap)) < 60


def test_bad_page_of_the_list_of_messages(images, tmp_path: Path):
    """Its rows look like empty messages, and are not taken for such."""
    image = images("rawwriter")
    path = old(tmp_path / "raw.h5", image)
    with h5py.File(path) as file:
        offset = file["msgs"].id.get_chunk_info(1).byte_offset
    start = -(-offset // PAGE) * PAGE
    content = image[:start] + bytes(PAGE) + image[start + PAGE :]
    done = recover(old(path, content), tmp_path / "copy.h5")
    assert not wrong_rows(done)
    assert done.left[0].cause == ZERO_REFERENCES
    assert PAGE // 16 <= len(lost_rows(done)) <= PAGE // 16 + 2


def test_bad_piece_of_the_index_costs_its_rows_only(images, tmp_path: Path, impatient):
    """HDF5 does not read a piece with a wrong checksum; the others it does."""
    content = bytearray(images("gzip"))
    with h5py.File(old(tmp_path / "raw.h5", content)) as file:
        chunk = file["msgs"].id.get_chunk_info(1)
        rows = file["msgs"].chunks[0]
    content[chunk.byte_offset + 20] ^= 0xFF
    done = recover(old(tmp_path / "raw.h5", content), tmp_path / "copy.h5")
    assert not wrong_rows(done)
    assert lost_rows(done) == set(range(rows, 2 * rows))
    assert any("HDF5 said" in note for note in done.notes)


def test_damage_that_only_hdf5_minds(images, tmp_path: Path):
    """No row is lost where a collection's head is damaged, but h5py cannot read it: copied."""
    content = bytearray(images("plain"))
    head = content.index(b"GCOL", content.index(message(1500, size_of(1500, "mixed"))))
    content[head] ^= 1
    path = old(tmp_path / "raw.h5", content)
    done = recover(path, tmp_path / "copy.h5")
    assert done.out
    assert not wrong_rows(done)
    assert len(lost_rows(done)) <= 1


def test_large_message_with_a_lost_page(tmp_path: Path):
    """A page of zeros is known for damage in a PACMAN message, and is doubtful elsewhere."""
    path = tmp_path / "raw.h5"
    words = b"D" + bytes(15)
    pacman = b"D" + bytes(5) + (2000).to_bytes(2, "little") + 2000 * (b"D" + b"\1" * 15)
    other = b"\1" * 32_008
    assert len(pacman) == 8 + 2000 * len(words)
    with RawWriter(path) as out:
        out.append([pacman, other, b"last"], [1, 2, 3])
    content = bytearray(path.read_bytes())
    for data in (pacman, other):
        start = -(-content.index(data) // PAGE) * PAGE + PAGE
        content[start : start + PAGE] = bytes(PAGE)
    done = recover(old(path, content), tmp_path / "copy.h5")
    assert [(left.start, left.stop, left.cause) for left in done.left] == [(0, 1, HOLED)]
    assert done.rows == 2
    assert any("page of zeros" in note and "row 1" in note for note in done.notes)


# ------------------------------------------------------------------ killed, unequal, blank


def killed(path: Path) -> Path:
    """Leave a file as a RawWriter does that is killed."""
    code = (
        "import os, sys; from writer import RawWriter; out = RawWriter(sys.argv[1]);"
        "out.append([b'first', b'', b'third'], [1, 2, 0]); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True, timeout=60)
    return path


def test_empty_messages_of_a_killed_rawwriter_are_kept(tmp_path: Path):
    """It announces only what is written, so what looks blank is so."""
    done = recover(killed(tmp_path / "raw.h5"), tmp_path / "copy.h5")
    assert read_copy(done.out) == [(b"first", 1), (b"", 2), (b"third", 0)]
    assert any("killed" in trouble for trouble in done.troubles)
    assert not done.left


def test_file_that_hdf5_never_opens(images, tmp_path: Path):
    """Killed between open and SWMR, it is marked so for ever."""
    path = old(tmp_path / "raw.h5", images("rawwriter"))
    code = "import h5py, os, sys; f = h5py.File(sys.argv[1], 'r+', libver='v110'); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)
    os.utime(path, (time.time() - 3600,) * 2)
    before = path.read_bytes()
    with pytest.raises(OSError, match="Unable"):
        h5py.File(path)
    done = recover(path, tmp_path / "copy.h5")
    assert (done.rows, wrong_rows(done), done.left) == (ROWS, [], [])
    assert path.read_bytes() == before


def unequal(path: Path, msgs: int, headers: int) -> Path:
    with RawWriter(path) as out:
        out.append([b"%d" % row for row in range(10)], 1)
    with h5py.File(path, "r+") as file:
        file["msgs"].resize((msgs,))
        file["msg_headers"].resize((headers,))
    return path


def test_messages_without_header_rows(tmp_path: Path):
    """They are left out, or kept with io_group 0 if that is wanted."""
    path = unequal(tmp_path / "raw.h5", 10, 7)
    done = recover(path, tmp_path / "copy.h5")
    assert (done.rows, done.left) == (7, [(7, 10, HEADERLESS)])
    done = recover(path, tmp_path / "all.h5", keep_uncommitted=True)
    assert (done.rows, done.left) == (10, [])
    assert read_copy(done.out)[6:] == [(b"6", 1), (b"7", 0), (b"8", 0), (b"9", 0)]


def test_header_rows_without_messages(tmp_path: Path):
    """They are left out, and it is said."""
    done = recover(unequal(tmp_path / "raw.h5", 6, 10), tmp_path / "copy.h5")
    assert done.rows == 6
    assert [left[:2] for left in done.left] == [(6, 10)]


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_rows_that_were_announced_and_never_written(compression, tmp_path: Path):
    """A killed writer of another maker has enlarged both datasets: that is no message."""
    path = tmp_path / "raw.h5"
    code = f"""
import os, sys, h5py, numpy as np
from tests.test_recover import long_lived
long_lived(sys.argv[1], compression={compression!r})
file = h5py.File(sys.argv[1], "r+", libver=("v110", "v114"))
file.swmr_mode = True
for name in ("msgs", "msg_headers"):
    file[name].resize((4100,))
    file[name].flush()
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True, timeout=60)
    os.utime(path, (time.time() - 3600,) * 2)
    done = recover(path, tmp_path / "copy.h5")
    assert done.left == [(ROWS, 4100, UNWRITTEN)]
    assert not wrong_rows(done._replace(left=[]))


# -------------------------------------------------------------------- what a copy carries


def test_nothing_wrong_is_said_and_nothing_is_written(images, tmp_path: Path):
    """A file that is as it should be is not copied."""
    path = old(tmp_path / "raw.h5", images("rawwriter"))
    done = recover(path, tmp_path / "copy.h5")
    assert done.nothing_wrong
    assert done.rows == ROWS
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw.h5"]


def test_copy_is_finished_and_can_be_continued(images, tmp_path: Path):
    """It is a file like any other; it says when the original was made."""
    killed(tmp_path / "raw.h5")
    done = recover(tmp_path / "raw.h5", tmp_path / "copy.h5")
    with RawFile(tmp_path / "raw.h5") as raw, RawFile(done.out) as copy:
        assert copy.finished
        assert copy.created == raw.created
        assert copy.run_id == raw.run_id
    with RawWriter(done.out) as out:
        assert out.append([b"more"], 1) == range(3, 4)


def test_copy_with_other_row_numbers_is_another_run(images, tmp_path: Path):
    """A position in the original must not be applied to it."""
    image = images("rawwriter")
    start = image.index(message(2000, size_of(2000, "mixed"))) // PAGE * PAGE
    content = image[:start] + bytes(PAGE) + image[start + PAGE :]
    done = recover(old(tmp_path / "raw.h5", content), tmp_path / "copy.h5")
    with RawFile(done.path) as raw, RawFile(done.out) as copy:
        assert copy.run_id != raw.run_id
        assert len(copy.run_id) == 36
        assert copy.created == raw.created
    assert any("other numbers" in note for note in done.notes)


def test_more_header_fields_are_carried_and_the_rest_is_named(tmp_path: Path):
    """Fields of fixed size are copied; other objects of the file are named as left."""
    path = tmp_path / "raw.h5"
    with h5py.File(path, "w", libver=("v110", "v114")) as file:
        file.create_group("meta").attrs.update({"created": 1.7e9, "version": "0.0", "shift": "a"})
        msgs = file.create_dataset(
            "msgs", (3,), h5py.vlen_dtype(np.dtype("u1")), maxshape=(None,), chunks=(8,)
        )
        msgs[:] = [np.frombuffer(data, "u1") for data in (b"one", b"three", b"fives")]
        header = np.dtype([("io_groups", "u1"), ("time", "<f8")])
        headers = file.create_dataset("msg_headers", (3,), header, maxshape=(None,), chunks=(8,))
        headers[:] = np.array([(1, 0.5), (2, 1.5), (3, 2.5)], header)
        headers.resize((2,))
        file["notes"] = "of the shift"
    done = recover(path, tmp_path / "copy.h5")
    with h5py.File(done.out) as file:
        assert file["msg_headers"][:].tolist() == [(1, 0.5), (2, 1.5)]
        assert file["meta"].attrs["created"] == 1.7e9
    assert any("meta@shift" in note and "notes" in note for note in done.notes)


# --------------------------------------------------------------------------- what is refused


def test_existing_copy_is_not_overwritten(images, tmp_path: Path):
    """Neither a file, nor a folder, nor a link that leads nowhere, nor the file itself."""
    path = unequal(tmp_path / "raw.h5", 10, 7)
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "folder", "link"):
        with pytest.raises(CannotRecover, match="exists already"):
            recover(path, tmp_path / name)
    with pytest.raises(CannotRecover, match="the damaged file itself"):
        recover(path, path)
    assert (tmp_path / "file").read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 4


def test_copy_in_no_folder_is_refused(tmp_path: Path):
    """The folder is named."""
    path = unequal(tmp_path / "raw.h5", 10, 7)
    with pytest.raises(CannotRecover, match="there is no folder"):
        recover(path, tmp_path / "absent" / "copy.h5")


def test_copy_whose_name_is_taken_meanwhile(tmp_path: Path):
    """What has come there is not overwritten."""
    path, copy = unequal(tmp_path / "raw.h5", 10, 7), tmp_path / "copy.h5"
    with pytest.raises(CannotWrite, match=os.strerror(errno.EEXIST)):
        recover(path, copy, told=lambda *_: copy.write_bytes(b"precious"))
    assert copy.read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 2


def test_file_that_is_written_meanwhile_is_refused(tmp_path: Path):
    """Its writer was only pausing; no copy is left."""
    path = unequal(tmp_path / "raw.h5", 10, 7)
    with pytest.raises(CannotRecover, match="its writer lives"):
        recover(path, tmp_path / "copy.h5", told=lambda *_: os.utime(path))
    assert len(list(tmp_path.iterdir())) == 1


def test_interrupted_recovery_leaves_nothing(tmp_path: Path):
    """Ctrl-C removes what has been written."""

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    path = unequal(tmp_path / "raw.h5", 10, 7)
    with pytest.raises(KeyboardInterrupt):
        recover(path, tmp_path / "copy.h5", told=interrupt)
    assert len(list(tmp_path.iterdir())) == 1


def test_full_disk_leaves_nothing(images, tmp_path: Path):
    """The error is one line and names the copy."""
    content = images("rawwriter")[:-5000]
    path = old(tmp_path / "raw.h5", content)
    code = """
import resource, signal, sys
from streamer.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
sys.exit(main(["recover", *sys.argv[1:]]))
"""
    copy = tmp_path / "copy.h5"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(copy)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert f"{copy}: no room" in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw.h5"]


# ------------------------------------------------------------------------------ the command


def test_command_reports(tmp_path: Path, capfd):
    """What was kept, what was left and why; exit code 0."""
    path, copy = unequal(tmp_path / "raw.h5", 10, 7), tmp_path / "copy.h5"
    assert main(["recover", str(path), str(copy)]) == 0
    said = capfd.readouterr().out
    assert "msgs has 10 rows, and msg_headers 7" in said
    assert f"7 rows, 7 bytes, in {copy}" in said
    assert f"3 rows: {HEADERLESS}: 7 to 9" in said
    assert main(["recover", str(copy), str(tmp_path / "again.h5")]) == 0
    assert "nothing is wrong with it: 7 rows" in capfd.readouterr().out


def test_command_reports_in_json(tmp_path: Path, capfd):
    """All ranges, for a program."""
    path, copy = unequal(tmp_path / "raw.h5", 10, 7), tmp_path / "copy.h5"
    assert main(["recover", str(path), str(copy), "--keep-uncommitted", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["rows"], found["left_out"], found["copy"]) == (10, [], str(copy))


def test_command_fails_in_one_line(tmp_path: Path, capfd):
    """Exit code 1 for what cannot be done, and 2 for a wrong call."""
    path = unequal(tmp_path / "raw.h5", 10, 7)
    assert main(["recover", str(path), str(path)]) == 1
    assert main(["recover", str(tmp_path / "absent.h5"), str(tmp_path / "copy.h5")]) == 1
    assert len(capfd.readouterr().err.splitlines()) == 2
    assert main(["recover", str(path)]) == 2


def test_many_causes_share_lines():
    """A thousand ranges of one cause are a line."""
    left = [Left(row, row + 1, DAMAGED) for row in range(0, 2000, 2)]
    lines = Recovery(Path("raw.h5"), Path("copy.h5"), 1, 1, [], left, []).lines()
    assert len(lines) == 5
    assert "1,000 rows" in lines[-1]
    assert "and 996 more ranges" in lines[-1]
