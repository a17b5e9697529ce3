"""What the doctor finds: files in every state, with real processes around them."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import pytest

from streamer.cli import main
from streamer.doctor import Diagnosis, diagnose
from streamer.host import file_system, find_file_system, holders, locking
from tests.live.writers import ROOT, environment, running
from writer import RawWriter

VARIABLE = "HDF5_USE_FILE_LOCKING"
KEYS = {
    "file",
    "healthy",
    "state",
    "because",
    "rows",
    "uncommitted",
    "unwritten",
    "lengths",
    "samples",
    "file_bytes",
    "end_bytes",
    "created",
    "writer",
    "run_id",
    "reading",
    "flushes",
    "holders",
    "hidden_processes",
    "file_system",
    "locking",
    "findings",
}


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raw.h5"


@pytest.fixture
def finished(path: Path) -> Path:
    with RawWriter(path) as out:
        for _ in range(3):
            out.append([b"message"] * 100, io_groups=1)
    return path


def names(found: Diagnosis) -> set[str]:
    return {advice.name for advice in found.advice}


def wrong(found: Diagnosis) -> set[str]:
    return {advice.name for advice in found.advice if advice.wrong}


def text(found: Diagnosis, name: str) -> str:
    (said,) = [advice.text for advice in found.advice if advice.name == name]
    return said


def long_ago(path: Path) -> None:
    then = time.time() - 3600
    os.utime(path, (then, then))


HOLD = """
import sys, h5py
file = h5py.File(sys.argv[1], sys.argv[2], **eval(sys.argv[3]))
print("open", flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(path: Path, mode: str, **options: object) -> Iterator[int]:
    """Have another process hold a file with h5py; gives its number."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path, mode, repr(options)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"open\n"
        yield process.pid
        process.stdin.close()


def locked_by_anybody(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


# ------------------------------------------------------------------------- its state


def test_finished_file_is_healthy(finished: Path):
    """Nothing to be done, and nothing to be said."""
    found = diagnose(finished)
    assert (found.contents.state, found.contents.rows) == ("finished", 300)
    assert found.healthy
    assert not found.advice


@pytest.mark.parametrize("kind", ["rawwriter", "datasets", "file"])
def test_living_writer_is_found_and_named(path: Path, kind: str):
    """Live, and held by that process for writing; all is well."""
    with running(kind, path, batch=10, batches=1000, pause=0.05) as writer:
        writer.wait_for(50)
        found = diagnose(path)
        pid = writer._process.pid
        writer.kill()
    assert found.contents.state == "live"
    assert found.healthy, found.advice
    (holder,) = found.holders.found
    assert (holder.pid, holder.writes, holder.lock) == (pid, True, None)
    assert f"tests.live.writers {kind}" in holder.command


@pytest.mark.parametrize(
    ("kind", "flushes"),
    [
        pytest.param("rawwriter", "file", marks=pytest.mark.nightly),
        ("datasets", "datasets only"),
        ("file", "file"),
    ],
)
def test_what_a_living_writer_flushes_is_told(path: Path, kind: str, flushes: str):
    """Only who never flushes the file keeps h5py from its messages."""
    with running(kind, path, batch=100, batches=1000, pause=0.05) as writer:
        writer.wait_for(500)
        found = diagnose(path)
        writer.kill()
    assert found.contents.flushes == flushes
    assert ("flushes-datasets-only" in names(found)) == (flushes == "datasets only")


def test_file_that_h5py_cannot_read_is_one_whose_writer_flushes_datasets(path: Path):
    """What the doctor says of h5py is so."""
    with running("datasets", path, batch=100, batches=1000, pause=0.05) as writer:
        writer.wait_for(500)
        found = diagnose(path)
        rows = found.contents.rows
        with (
            h5py.File(path, "r", swmr=True, locking=False) as file,
            pytest.raises(OSError, match=r"EOA|end of allocation"),
        ):
            file["msgs"][rows - 1]
        writer.kill()
    assert "h5py see no message" in text(found, "flushes-datasets-only")


def test_killed_writer_that_flushed_datasets_is_told_with_what_is_at_stake(path: Path):
    """Many bytes lie behind the end that the superblock states; opening for writing cuts there."""
    with running("datasets", path, batch=100, batches=1000, pause=0.02) as writer:
        writer.wait_for(500)
        writer.kill()
    long_ago(path)
    found = diagnose(path)
    assert found.contents.state == "writer gone"
    assert {"writer-gone", "end-behind"} <= wrong(found)
    size, end = path.stat().st_size, found.contents.end_bytes
    assert size - end > 10_000
    assert f"{size - end:,} bytes" in text(found, "end-behind")


@pytest.mark.parametrize("kind", ["rawwriter", pytest.param("file", marks=pytest.mark.nightly)])
def test_killed_writer_is_told(path: Path, kind: str):
    """Left by a killed writer; nobody holds it."""
    with running(kind, path, batch=100, batches=1000, pause=0.02) as writer:
        writer.wait_for(300)
        writer.kill()
    long_ago(path)
    found = diagnose(path)
    assert found.contents.state == "writer gone"
    assert "writer-gone" in wrong(found)
    assert not found.holders.found


def test_writer_that_pauses_is_not_taken_for_a_dead_one(path: Path):
    """It has the file open, which its process number proves."""
    with running("datasets", path, batch=10, batches=1000, pause=0.05) as writer:
        writer.wait_for(50)
        os.kill(writer._process.pid, signal.SIGSTOP)
        long_ago(path)
        found = diagnose(path)
        writer.kill()
    assert found.contents.state == "live"
    assert "has it open for writing, and pauses" in found.contents.because
    assert "writer-gone" not in names(found)


def test_writer_killed_a_moment_ago_is_not_seen(path: Path):
    """It may count as live for 5 s, but nobody has the file."""
    with running("file", path, batch=10, batches=1000, pause=0.02) as writer:
        writer.wait_for(50)
        writer.kill()
    found = diagnose(path)
    if found.holders.hidden:
        pytest.skip("there are processes that may not be looked into")
    assert found.contents.state == "live"
    assert "writer-not-seen" in names(found)


def test_stock_writer_between_batches_leaves_a_closed_file(path: Path):
    """It opens the file for each batch; in between nobody has it, and all is well."""
    with running("stock", path, batch=10, batches=3) as writer:
        writer.wait()
    found = diagnose(path)
    assert found.contents.state == "closed"
    assert "may open it again" in found.contents.because
    assert found.contents.flushes is None
    assert found.healthy


def test_stock_writer_at_work_is_never_found_wrong(path: Path):
    """Whatever moment of a batch the doctor meets."""
    with running("stock", path, batch=200, batches=1000, pause=0.005) as writer:
        writer.wait_for(400)
        seen = [diagnose(path) for _ in range(10)]
        writer.kill()
    assert {found.contents.state for found in seen} <= {"live", "closed"}
    assert all(found.healthy for found in seen), [wrong(found) for found in seen]


# ------------------------------------------------------------------------- its rows


def resize(path: Path, msgs: int, headers: int) -> None:
    with h5py.File(path, "r+", libver=("v110", "v114")) as file:
        file["msgs"].resize((msgs,))
        file["msg_headers"].resize((headers,))


def test_lengths_that_differ_are_told(finished: Path):
    """And how many rows are not committed."""
    resize(finished, 310, 300)
    found = diagnose(finished)
    assert found.contents.lengths == (310, 300)
    assert (found.uncommitted, found.unwritten) == (10, 0)
    assert wrong(found) == {"lengths-differ"}


def test_rows_of_a_dead_resize_first_writer_are_announced_and_not_written(path: Path):
    """Both datasets announce them, and there is no message."""
    with running("resize-first", path, batch=100, batches=3) as writer:
        writer.wait()
    reopened_and_killed(path, 309)
    long_ago(path)
    found = diagnose(path)
    assert found.contents.state == "writer gone"
    assert (found.contents.rows, found.unwritten) == (300, 9)
    assert "rows-not-written" in wrong(found)


RESIZE_AND_DIE = """
import os, signal, sys, h5py
file = h5py.File(sys.argv[1], "r+", libver=("v110", "v114"))
file.swmr_mode = True
for name in ("msgs", "msg_headers"):
    file[name].resize((int(sys.argv[2]),))
file.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def reopened_and_killed(path: Path, rows: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RESIZE_AND_DIE, path, str(rows)], env=environment(), check=False
    )
    assert done.returncode == -signal.SIGKILL


def test_living_writer_whose_rows_are_not_written_yet_is_not_wrong(path: Path):
    """Rows that are announced first are told, and nothing has to be done."""
    with RawWriter(path) as out:
        out.append([b"message"] * 10, io_groups=1)
    script = RESIZE_AND_DIE.replace("os.kill(os.getpid(), signal.SIGKILL)", "print(1, flush=True)")
    with subprocess.Popen(
        [sys.executable, "-c", f"{script}\nsys.stdin.read()", path, "14"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"1\n"
        found = diagnose(path)
        process.stdin.close()
    assert (found.contents.state, found.unwritten) == ("live", 4)
    assert "rows-not-written" in names(found)
    assert found.healthy


def test_damaged_message_among_the_samples_is_told(finished: Path):
    """The last messages are always among them."""
    data = bytearray(finished.read_bytes())
    place = data.rindex(b"message")
    data[place - 16 : place - 8] = b"\xff" * 8
    finished.write_bytes(data)
    assert "damaged" in wrong(diagnose(finished))


def test_a_big_file_is_not_read_through(path: Path):
    """Of 100 MB, a few rows are read."""
    with RawWriter(path) as out:
        for _ in range(10):
            out.append([bytes(10_000)] * 1000, io_groups=1)
    before = time.monotonic()
    found = diagnose(path)
    assert time.monotonic() - before < 1
    assert found.healthy
    assert 0 < found.contents.samples < 1000


# ------------------------------------------------------------------- what is no raw file


def test_absent_file_is_told(path: Path):
    """Absent in its folder, without its folder, or behind a link."""
    assert diagnose(path).contents.state == "absent"
    assert "no folder" in diagnose(path / "more.h5").contents.because
    link = path.with_name("link.h5")
    link.symlink_to(path)
    assert f"link to {path}" in diagnose(link).contents.because


def test_folder_is_told_with_what_is_in_it(finished: Path):
    """Which is more help than an error."""
    found = diagnose(finished.parent)
    assert found.contents.state == "folder"
    assert "*.h5 files in it: 1" in found.contents.because


@pytest.mark.parametrize("begun", [b"", bytes(1000), b"\x89HDF\r\n\x1a\n", None])
def test_file_that_was_just_begun_is_told(finished: Path, path: Path, begun: bytes | None):
    """Nothing, zeros, a signature, and half a superblock are all that a writer may leave."""
    path.write_bytes(finished.read_bytes()[:30] if begun is None else begun)
    assert diagnose(path).contents.state == "empty"
    long_ago(path)
    found = diagnose(path)
    assert "nothing to be saved" in text(found, "empty")


def test_file_that_is_not_hdf5_is_told(path: Path):
    """With the bytes that it begins with."""
    path.write_bytes(b"\x1f\x8b" + bytes(range(100)))
    found = diagnose(path)
    assert found.contents.state == "not HDF5"
    assert "\\x1f\\x8b" in found.contents.because


def test_hdf5_file_of_another_kind_is_told(path: Path):
    """It has no messages."""
    with h5py.File(path, "w", libver=("v110", "v114")) as file:
        file["image"] = [1, 2, 3]
    found = diagnose(path)
    assert found.contents.state == "not a raw file"
    assert "meta" in found.contents.because


def test_copy_that_is_not_complete_is_told(finished: Path):
    """And how many bytes are missing."""
    size = finished.stat().st_size
    os.truncate(finished, size - 3000)
    found = diagnose(finished)
    assert "cut-short" in wrong(found)
    assert "3,000 bytes" in text(found, "cut-short")


AS_NOBODY = """
import os, sys
from pathlib import Path
from streamer.doctor import diagnose
if not os.geteuid():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
found = diagnose(Path(sys.argv[1]))
print(found.contents.state, found.healthy, found.contents.because, sep=";")
"""


@pytest.mark.parametrize(
    ("closed", "because"), [("raw.h5", "mode 0"), (".", "a folder on the way to it")]
)
def test_file_that_may_not_be_read_is_told(finished: Path, closed: str, because: str):
    """Whose it is, or that it is the folder; to a user who is not root."""
    barred = finished.parent / closed
    mode = barred.stat().st_mode
    barred.chmod(0)
    # Also the folders of a temporary folder may be closed to other users.
    above = [] if closed == "." or os.geteuid() else list(finished.parents)[:-2]
    modes = [(folder, folder.stat().st_mode) for folder in above]
    try:
        for folder, old in modes:
            folder.chmod(old | 0o011)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, finished],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        for folder, old in modes:
            folder.chmod(old)
        barred.chmod(mode)
    state, healthy, why = done.stdout.strip().split(";", 2)
    assert (state, healthy) == ("not accessible", "False")
    assert because in why


# -------------------------------------------------------------------- who has it


def test_reader_with_a_lock_is_named(finished: Path):
    """The DAQ's next open fails because of it: which process is said."""
    with RawWriter(finished) as out:
        out.append([b"message"], io_groups=1)
        out.close(finished=False)
    with holding(finished, "r", swmr=True) as pid:
        found = diagnose(finished)
        with pytest.raises(OSError, match="unable to lock file"):
            h5py.File(finished, "r+", libver=("v110", "v114"))
    (holder,) = found.holders.found
    assert (holder.pid, holder.writes, holder.lock) == (pid, False, "shared")
    assert wrong(found) == {"reader-locks"}
    assert f"Process {pid} " in text(found, "reader-locks")


def test_reader_without_a_lock_is_named_and_harmless(finished: Path):
    """As all readers of this project are."""
    with holding(finished, "r", swmr=True, locking=False) as pid:
        found = diagnose(finished)
    (holder,) = found.holders.found
    assert (holder.pid, holder.writes, holder.lock) == (pid, False, None)
    assert found.healthy


def test_writer_with_a_lock_is_no_reader(finished: Path):
    """HDF5's own lock of a writer keeps others out, as it should."""
    with holding(finished, "r+", libver=("v110", "v114")) as pid:
        seen = holders(finished)
        found = diagnose(finished)
    (holder,) = seen.found
    assert (holder.pid, holder.writes, holder.lock) == (pid, True, "exclusive")
    assert "reader-locks" not in names(found)


def test_file_with_two_names_is_found_by_either(finished: Path):
    """A second name of a file is the same file."""
    other = finished.with_name("other.h5")
    other.hardlink_to(finished)
    with holding(finished, "r", locking=False) as pid:
        assert [holder.pid for holder in holders(other).found] == [pid]


def test_doctor_leaves_no_lock_and_no_trace(finished: Path):
    """Neither on the file nor in it."""
    before = finished.read_bytes(), finished.stat().st_mtime_ns
    diagnose(finished)
    assert not locked_by_anybody(finished)
    assert (finished.read_bytes(), finished.stat().st_mtime_ns) == before


# --------------------------------------------------------------------- where it is

MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:40 / /nfs rw,relatime shared:9 master:2 - nfs4 server:/export rw,vers=4.2
31 21 0:41 / /lustre rw - lustre mds@tcp:/fs rw
32 21 0:42 / /ceph rw - ceph mon:/ rw
33 21 0:43 / /ssh rw - fuse.sshfs user@host: rw
34 21 0:44 / /shared rw - 9p share rw
35 21 0:45 / /var/lib rw - overlay overlay rw,lowerdir=/a
36 21 0:46 / /strange rw - strangefs dev rw
37 21 0:47 / /fuse rw - fuse.something dev rw
38 21 0:48 / /with\\040space rw - cifs //host/share rw
39 30 8:2 / /nfs/local rw - xfs /dev/sdb rw
40 21 0:49 / /over rw - nfs server:/ rw
41 21 8:3 / /over rw - ext4 /dev/sdc rw
42 21 0:50 / /dev/shm rw - tmpfs tmpfs rw
not a mount at all
""".splitlines()


@pytest.mark.parametrize(
    ("file", "kind", "reach"),
    [
        ("/raw.h5", "ext4", "local"),
        ("/nfs/run/raw.h5", "nfs4", "network"),
        ("/nfsother/raw.h5", "ext4", "local"),
        ("/lustre/raw.h5", "lustre", "network"),
        ("/ceph/raw.h5", "ceph", "network"),
        ("/ssh/raw.h5", "fuse.sshfs", "network"),
        ("/shared/raw.h5", "9p", "network"),
        ("/var/lib/raw.h5", "overlay", "local"),
        ("/strange/raw.h5", "strangefs", "unknown"),
        ("/fuse/raw.h5", "fuse.something", "unknown"),
        ("/with space/raw.h5", "cifs", "network"),
        ("/nfs/local/raw.h5", "xfs", "local"),
        ("/over/raw.h5", "ext4", "local"),
        ("/dev/shm/raw.h5", "tmpfs", "local"),
    ],
)
def test_file_system_is_that_of_the_nearest_mount(file: str, kind: str, reach: str):
    """The longest that matches; of two in one place, the later."""
    found = find_file_system(Path(file), MOUNTS)
    assert (found.kind, found.reach, found.remote) == (kind, reach, reach != "local")


def test_file_system_that_cannot_be_found_out_counts_as_remote():
    """As where there is no /proc."""
    found = find_file_system(Path("/raw.h5"), [])
    assert (found.kind, found.remote) == ("unknown", True)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm")
def test_memory_is_a_local_file_system():
    """By the real list of mounts."""
    found = file_system(Path("/dev/shm/raw.h5"))
    assert (found.kind, found.mount, found.reach) == ("tmpfs", "/dev/shm", "local")


# --------------------------------------------------------------------- the environment


VALUES = ("BEST_EFFORT", "0", "false", None)
RARER = ("TRUE", "1", "FALSE", "")


@pytest.mark.parametrize(
    "value", [*VALUES, *(pytest.param(value, marks=pytest.mark.nightly) for value in RARER)]
)
def test_what_the_environment_does_is_what_hdf5_does(finished: Path, value: str | None):
    """A process that is started with it locks as told, by default and with locking=False."""
    variables = environment() | ({} if value is None else {VARIABLE: value})
    script = (
        "import fcntl, h5py, sys\n"
        "for options in ({}, {'locking': False}):\n"
        "    with h5py.File(sys.argv[1], 'r', **options), open(sys.argv[1]) as file:\n"
        "        try:\n"
        "            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "            print(False)\n"
        "        except OSError:\n"
        "            print(True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, finished], env=variables, capture_output=True, check=True
    )
    told = locking(variables)
    assert done.stdout.decode().split() == [str(told.by_default), str(told.always)]


@pytest.mark.parametrize(
    ("value", "name"), [("TRUE", "locking-forced"), ("false", "locking-ignored")]
)
def test_environment_that_endangers_the_daq_is_wrong(
    finished: Path, monkeypatch: pytest.MonkeyPatch, value: str, name: str
):
    """Also if the file itself is well."""
    monkeypatch.setenv(VARIABLE, value)
    found = diagnose(finished)
    assert wrong(found) == {name}
    assert f"{VARIABLE}={value}" in text(found, name)


def test_environment_without_locks_is_nothing_to_speak_of(
    finished: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is what is advised."""
    monkeypatch.setenv(VARIABLE, "FALSE")
    assert not diagnose(finished).advice


def test_plain_environment_is_explained_while_a_file_may_grow(path: Path):
    """It is not wrong, but plain h5py scripts lock."""
    with RawWriter(path):
        found = diagnose(path)
    assert "locking-by-default" in names(found)
    assert found.healthy


LOCKS = """
import sys
from pathlib import Path
from streamer.doctor import diagnose
done = diagnose(Path(sys.argv[1]))
print(done.contents.state, done.contents.rows)
"""


@pytest.mark.parametrize("value", ["TRUE", pytest.param("BEST_EFFORT", marks=pytest.mark.nightly)])
def test_doctor_never_locks_even_if_the_environment_wants_it(path: Path, value: str):
    """A DAQ that opens the file with HDF5's locks all the time never fails because of it."""
    with RawWriter(path) as out:
        out.append([b"message"] * 10, io_groups=1)
    process = subprocess.Popen(
        [sys.executable, "-c", LOCKS, path],
        cwd=ROOT,
        env=environment() | {VARIABLE: value},
        stdout=subprocess.PIPE,
    )
    looks = 0
    with process:
        while process.poll() is None:
            assert not locked_by_anybody(path)
            looks += 1
        assert process.stdout.read() == b"finished 10\n"
    assert looks > 100


# --------------------------------------------------------------------- the command


def test_command_says_it_in_lines(finished: Path, capsys: pytest.CaptureFixture[str]):
    """The state, the rows, the holders, the place and the environment."""
    assert main(["doctor", str(finished)]) == 0
    said = capsys.readouterr().out
    for line in (
        "state        finished",
        "rows         300 committed",
        "held by ",
        "file system ",
    ):
        assert f"\n{line}" in said
    assert said.endswith("Nothing is wrong.\n")


def test_command_fails_if_something_has_to_be_done(path: Path, capsys: pytest.CaptureFixture[str]):
    """Without an error message: what was found is the answer."""
    assert main(["doctor", str(path)]) == 1
    seen = capsys.readouterr()
    assert "absent" in seen.out
    assert not seen.err


@pytest.mark.parametrize("there", [True, False])
def test_json_has_the_same_keys_for_every_file(
    finished: Path, capsys: pytest.CaptureFixture[str], there: bool
):
    """One object, also of an absent file."""
    if not there:
        finished.unlink()
    main(["doctor", str(finished), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == KEYS
    assert found["healthy"] is there
    assert found["locking"][VARIABLE] is None
    assert all(finding.keys() == {"name", "wrong", "text"} for finding in found["findings"])


def test_wrong_call_is_code_2():
    """As of all commands."""
    assert main(["doctor"]) == 2
