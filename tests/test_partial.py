"""A file that is being made is set back by a crash to what was stored, and never spoiled."""

import hashlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.convert.partial import CannotMake, Partial

PAGE = 4096
# Where to make sure of what is on disk takes no time.
FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(file: Partial) -> bytes:
    file.seek(0)
    return file.read(file.size)


def begun(out: Path, *parts: bytes) -> None:
    """Store a file of these parts, one store for each, and leave it as a crash does."""
    with Partial(out) as file:
        for number, part in enumerate(parts, start=1):
            file.seek(0, os.SEEK_END)
            file.write(part)
            file.store({"parts": number}, b"tail" * number)
        file.write(b"lost")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 3 * PAGE), st.integers(1, 2 * PAGE)),
        st.tuples(st.just("truncate"), st.integers(0, 3 * PAGE), st.just(0)),
        st.tuples(st.just("store"), st.just(0), st.just(0)),
        st.tuples(st.just("crash"), st.just(0), st.just(0)),
        st.tuples(st.just("crash in store"), st.just(0), st.just(0)),
    ),
    max_size=25,
)


class Model:
    """What a file should hold, and what of it a crash should leave."""

    def __init__(self) -> None:
        self.now, self.stored = bytearray(), b""

    def write(self, place: int, data: bytes) -> None:
        self.now.extend(bytes(max(0, place + len(data) - len(self.now))))
        self.now[place : place + len(data)] = data

    def truncate(self, size: int) -> None:
        self.now = self.now[:size] + bytes(max(0, size - len(self.now)))


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_crashes_set_back_to_what_was_stored(steps: list):
    """Whatever is written where, also over what was stored, and whenever it crashes."""
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        out, model = Path(folder) / "out", Model()
        file = Partial(out)
        for number, (step, place, size) in enumerate(steps):
            if step == "write":
                data = bytes([number + 1]) * size
                file.seek(place)
                file.write(data)
                model.write(place, data)
            elif step == "truncate":
                if place < len(model.now):
                    # What comes back behind a shorter end is not zero for sure.
                    continue
                file.truncate(place)
                model.truncate(place)
            elif step == "store":
                file.store({"number": number}, bytes([number]))
                model.stored = bytes(model.now)
            elif step == "crash":
                file.close()
                file = Partial(out)
                model.now = bytearray(model.stored)
            else:  # after the state has its name, and before its pages are in their places
                before = file.path.read_bytes()
                file.store({"number": number}, bytes([number]))
                model.stored = bytes(model.now)
                file.close()
                out.with_name("out.partial").write_bytes(before.ljust(len(model.stored), b"\0"))
                file = Partial(out)
                assert file.stored.facts == {"number": number}
                assert file.stored.tail == bytes([number])
            assert content(file) == bytes(model.now)
        file.store({})
        file.finish()
        assert out.read_bytes() == bytes(model.now)
        assert names(out.parent) == ["out"]


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_state_is_not_believed(damage: str, tmp_path: Path, caplog):
    """Then it starts over: nothing is known to be good."""
    begun(tmp_path / "out", b"first", b"second")
    state = tmp_path / "out.partial.state"
    text = bytearray(state.read_bytes())
    text[len(text) // 2] ^= 1
    state.write_bytes({"cut": text[:-1], "flipped": text}[damage])
    with Partial(tmp_path / "out") as file:
        assert file.stored is None
        assert file.size == 0
        assert (tmp_path / "out.partial").stat().st_size == 0
    assert "out.partial: damaged, or of another version; starting over" in caplog.text


def test_state_of_another_form_is_not_understood(tmp_path: Path, caplog):
    """Of a later version, or of an earlier one; it is known as a state all the same."""
    begun(tmp_path / "out", b"first", b"second")
    state = tmp_path / "out.partial.state"
    body = state.read_bytes()[:-32].replace(b"partial 3\n", b"partial 9\n", 1)
    state.write_bytes(body + hashlib.blake2b(body, digest_size=32).digest())
    with Partial(tmp_path / "out") as file:
        assert (file.stored, file.size) == (None, 0)
    assert "of another version; starting over" in caplog.text


def test_file_shorter_than_stored_starts_over(tmp_path: Path):
    """Somebody has cut it off; what is missing is missing."""
    begun(tmp_path / "out", b"first", b"second")
    os.truncate(tmp_path / "out.partial", 5)
    with Partial(tmp_path / "out") as file:
        assert (file.stored, file.size) == (None, 0)


def test_state_left_half_written_is_of_no_account(tmp_path: Path):
    """It has another name until it is complete."""
    begun(tmp_path / "out", b"first", b"second")
    (tmp_path / "out.partial.state.new").write_bytes(b"larpix-str")
    with Partial(tmp_path / "out") as file:
        assert file.stored == ({"parts": 2}, b"tailtail")
        assert content(file) == b"firstsecond"
        file.finish()
    assert (tmp_path / "out").read_bytes() == b"firstsecond"


def test_starting_over_in_vain_keeps_nothing(tmp_path: Path):
    """What was stored is gone by then, and nobody goes on with it."""
    with Partial(tmp_path / "out") as file:
        file.write(b"first")
        file.store({"parts": 1})
        (tmp_path / "out.partial.state.new").mkdir()
        with pytest.raises(CannotMake, match="out: cannot be written: Is a directory"):
            file.restart()
        assert file.stored is None
    (tmp_path / "out.partial.state.new").rmdir()
    with Partial(tmp_path / "out") as file:
        assert (file.stored, file.size) == (None, 0)


def test_two_cannot_make_the_same(tmp_path: Path):
    """The second is told, and the first not disturbed."""
    with Partial(tmp_path / "out") as file:
        file.write(b"first")
        with pytest.raises(CannotMake, match="is being made by another process"):
            Partial(tmp_path / "out")
        file.finish()
    assert (tmp_path / "out").read_bytes() == b"first"


def test_file_that_somebody_removed_takes_no_name(tmp_path: Path):
    """Nor does it disturb the one that was begun under that name since."""
    first = Partial(tmp_path / "out")
    first.write(b"first")
    first.store({"maker": "first"})
    for name in names(tmp_path):
        (tmp_path / name).unlink()
    begun(tmp_path / "out", b"second")
    with pytest.raises(CannotMake, match="was removed, or replaced, by somebody else"):
        first.store({"maker": "first"})
    assert first.stored is None
    first.discard()
    for overwrite in (False, True):
        with Partial(tmp_path / "other") as file:
            (tmp_path / "other.partial").replace(tmp_path / "older")
            (tmp_path / "other.partial").write_bytes(b"half")
            with pytest.raises(CannotMake, match="was removed, or replaced, by somebody else"):
                file.finish(overwrite=overwrite)
        (tmp_path / "other.partial").unlink()
    assert not (tmp_path / "other").exists()
    with Partial(tmp_path / "out") as second:
        assert second.stored == ({"parts": 1}, b"tail")
        assert content(second) == b"second"


def test_file_that_cannot_be_begun_leaves_nothing(tmp_path: Path):
    """As on a full disk, which has room for a name and for nothing else."""
    (tmp_path / "out.partial.state.new").mkdir()
    with pytest.raises(CannotMake, match="out: cannot be written: Is a directory"):
        Partial(tmp_path / "out")
    assert names(tmp_path) == ["out.partial.state.new"]


def test_file_of_somebody_else_is_left_alone(tmp_path: Path):
    """A file of that name without a state was not left by this."""
    (tmp_path / "out.partial").write_bytes(b"mine")
    with pytest.raises(CannotMake, match=r"out\.partial: is in the way"):
        Partial(tmp_path / "out")
    (tmp_path / "out.partial.state").write_bytes(b"mine too")
    with pytest.raises(CannotMake, match=r"out\.partial\.state: is in the way"):
        Partial(tmp_path / "out")
    assert (tmp_path / "out.partial").read_bytes() == b"mine"
    assert (tmp_path / "out.partial.state").read_bytes() == b"mine too"


def test_name_that_was_taken_meanwhile_is_left(tmp_path: Path):
    """The file stays as it is, and gets its name when it can."""
    with Partial(tmp_path / "out") as file:
        file.write(b"ours")
        (tmp_path / "out").write_bytes(b"theirs")
        with pytest.raises(CannotMake, match="File exists"):
            file.finish()
    assert (tmp_path / "out").read_bytes() == b"theirs"
    (tmp_path / "out").unlink()
    with Partial(tmp_path / "out") as file:
        file.finish()
    assert (tmp_path / "out").read_bytes() == b"ours"


def test_overwriting_takes_the_name(tmp_path: Path):
    """The old file is whole until then."""
    (tmp_path / "out").write_bytes(b"old")
    with Partial(tmp_path / "out") as file:
        file.write(b"new")
        assert (tmp_path / "out").read_bytes() == b"old"
        file.finish(overwrite=True)
    assert (tmp_path / "out").read_bytes() == b"new"
    assert names(tmp_path) == ["out"]


def test_crash_between_the_two_names_is_mended(tmp_path: Path):
    """A complete file that has both names keeps the right one."""
    begun(tmp_path / "out", b"first")
    os.truncate(tmp_path / "out.partial", 5)
    os.link(tmp_path / "out.partial", tmp_path / "out")
    with Partial(tmp_path / "out") as file:
        assert file.stored is None
        file.write(b"second")
        file.finish(overwrite=True)
    assert (tmp_path / "out").read_bytes() == b"second"
    assert names(tmp_path) == ["out"]


def test_folder_without_a_way_in_is_said(tmp_path: Path):
    """The system's own word, and the name."""
    (tmp_path / "folder").write_bytes(b"")
    with pytest.raises(CannotMake, match=r"out: cannot be made: Not a directory"):
        Partial(tmp_path / "folder" / "out")


def test_no_damage_by_what_is_closed(tmp_path: Path):
    """Who still holds it, as HDF5 may at the end of a program, writes nowhere."""
    file = Partial(tmp_path / "out")
    file.write(b"first")
    file.store({})
    file.close()
    other = (tmp_path / "other").open("wb")
    file.write(b"second")
    other.close()
    assert (tmp_path / "other").read_bytes() == b""
    assert (tmp_path / "out.partial").read_bytes() == b"first"


# ------------------------------------------------------------------- what is on disk when


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return the calls that matter when the machine crashes, as they are made: name and file.

    Of an fsync also how many bytes the file has by then.
    """
    made = []

    def of_descriptor(fd: int, *_) -> str:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        return "folder" if path.is_dir() else path.name

    def watch(name: str, file_of) -> None:
        call = getattr(os, name)

        def watched(*arguments, **options):
            done = call(*arguments, **options)
            made.append((name, file_of(*arguments)))
            return done

        monkeypatch.setattr(os, name, watched)

    def with_size(fd: int) -> str:
        name = of_descriptor(fd)
        return name if name == "folder" else f"{name} {os.fstat(fd).st_size}"

    watch("pwrite", of_descriptor)
    watch("fsync", with_size)
    watch("unlink", lambda path, **_: Path(path).name)
    for name in ("replace", "link"):
        watch(name, lambda source, target, **_: Path(target).name)
    return made


def test_what_a_state_promises_is_on_disk_before_it_is_promised(tmp_path: Path, calls: list):
    """New data, then the state, then its name; only then stored data is written over."""
    with Partial(tmp_path / "out") as file:
        file.write(b"first")
        file.store({})
        calls.clear()
        file.seek(0)
        file.write(b"new")
        assert calls == []
        file.seek(0, os.SEEK_END)
        file.write(b", second")
        file.store({})
    size = (tmp_path / "out.partial.state").stat().st_size
    assert calls == [
        ("pwrite", "out.partial"),
        ("fsync", "out.partial 13"),
        ("fsync", f"out.partial.state.new {size}"),
        ("replace", "out.partial.state"),
        ("fsync", "folder"),
        ("pwrite", "out.partial"),
    ]
    assert (tmp_path / "out.partial").read_bytes() == b"newst, second"


def test_partial_file_is_known_as_one_before_anything_is_in_it(tmp_path: Path, calls: list):
    """Also on disk: after a crash, nobody takes it for somebody else's."""
    with Partial(tmp_path / "out") as file:
        file.write(b"first")
    size = (tmp_path / "out.partial.state").stat().st_size
    assert calls == [
        ("fsync", f"out.partial.state.new {size}"),
        ("replace", "out.partial.state"),
        ("fsync", "folder"),
        ("pwrite", "out.partial"),
    ]


@pytest.mark.parametrize("overwrite", [False, True])
def test_file_is_on_disk_before_it_gets_its_name(overwrite: bool, tmp_path: Path, calls: list):
    """And so is the name, before what was stored of the file is removed."""
    with Partial(tmp_path / "out") as file:
        file.write(b"first")
        file.store({})
        file.seek(0)
        file.write(b"new")
        file.store({})
        calls.clear()
        file.finish(overwrite=overwrite)
    state_removed, name_removed = ("unlink", "out.partial.state"), ("unlink", "out.partial")
    on_disk, settled = ("fsync", "out.partial 5"), ("fsync", "folder")
    assert calls == (
        [on_disk, ("replace", "out"), settled, state_removed]
        if overwrite
        else [on_disk, ("link", "out"), settled, state_removed, name_removed]
    )
