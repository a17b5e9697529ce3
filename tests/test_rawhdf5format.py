"""The classic functions do what the documentation of larpix-control's promises."""

import inspect
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import h5py
import numpy as np
import pytest

from streamer.errors import BadMask, LayoutError, NotReady, NotSynchronized, RowUnreadable
from streamer.handle import open_unlocked
from streamer.rawfile import RawFile
from streamer.rawhdf5format import (
    dataset_dtypes,
    from_rawfile,
    latest_version,
    len_rawfile,
    to_rawfile,
)
from streamer.retry import Patience
from writer import BadBatch, IncompatibleVersion, LengthMismatch, RawWriter, UnknownField
from writer.layout import PAUSED

ROOT = Path(__file__).parents[1]
MSGS = [b"first", b"the second", b"", b"x" * 1000, b"last"]
GROUPS = [1, 2, 3, 255, 0]
FAR = 1e5  # seconds by which a file's time is moved, to be young or old without waiting


@pytest.fixture(scope="module")
def stock():
    """larpix-control's module, whose import must not change this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HDF5_USE_FILE_LOCKING", "")
        import larpix.format.rawhdf5format as module
    assert "HDF5_USE_FILE_LOCKING" not in os.environ
    return module


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raw.h5"


@pytest.fixture
def raw(path: Path) -> Path:
    """A closed file of five messages without an io_version."""
    to_rawfile(path, MSGS, msg_headers={"io_groups": GROUPS})
    return path


def stamp(path: Path, **attributes) -> None:
    """Change what a closed file says of itself."""
    with h5py.File(path, "r+") as file:
        for name, value in attributes.items():
            if value is None:
                file["meta"].attrs.pop(name, None)
            else:
                file["meta"].attrs[name] = value


def attribute(path: Path, name: str):
    with h5py.File(path) as file:
        return file["meta"].attrs.get(name)


@contextmanager
def plain(path: Path, *fields, **attributes):
    """Make a raw file with h5py alone, with further header fields and attributes."""
    with h5py.File(path, "w", libver=("v110", "v114")) as file:
        meta = {"created": 1.0, "modified": 2.0, "version": "0.0", **attributes}
        file.create_group("meta").attrs.update(meta)
        for name, dtype in (
            ("msgs", h5py.vlen_dtype(np.dtype("u1"))),
            ("msg_headers", np.dtype([*fields, ("io_groups", "u1")])),
        ):
            file.create_dataset(name, shape=(0,), maxshape=(None,), dtype=dtype)
        yield file


def fill_msgs(file: h5py.File, rows: int) -> None:
    first = len(file["msgs"])
    file["msgs"].resize((rows,))
    for row in range(first, rows):
        file["msgs"][row] = np.frombuffer(b"message %d" % row, "u1")
    file["msgs"].flush()


def fill_headers(file: h5py.File, rows: int) -> None:
    first = len(file["msg_headers"])
    file["msg_headers"].resize((rows,))
    file["msg_headers"]["io_groups", first:rows] = 1 + np.arange(first, rows)
    file["msg_headers"].flush()


def unequal(path: Path, msgs: int, headers: int) -> Path:
    """Make a closed file whose datasets differ in length."""
    with plain(path) as file:
        fill_msgs(file, msgs)
        fill_headers(file, headers)
    return path


@contextmanager
def torn(path: Path, msgs: int = 3, headers: int = 2):
    """Write a file as another program does, and be in the middle of a batch."""
    with plain(path) as file:
        file.swmr_mode = True
        fill_msgs(file, msgs)
        fill_headers(file, headers)
        file.flush()
        make_young(path)
        yield file


def make_young(path: Path) -> None:
    """Let a file look as if it had just been written to, however slow the test is."""
    os.utime(path, (time.time() + FAR,) * 2)


def make_old(path: Path) -> None:
    """Let a file look as if it had not been written to for long."""
    os.utime(path, (time.time() - FAR,) * 2)


# ------------------------------------------------------------------------- the drop-in


@pytest.mark.parametrize("name", ["to_rawfile", "from_rawfile", "len_rawfile"])
def test_functions_take_the_arguments_of_the_stock_ones(name: str, stock):
    """Names, order and defaults of all parameters are those of larpix-control."""

    def taken(function):
        parameters = inspect.signature(function).parameters.values()
        return [(one.name, one.default, one.kind) for one in parameters]

    assert taken(globals()[name]) == taken(getattr(stock, name))


def test_constants_are_those_of_the_stock_module(stock):
    """The latest version, and the types of the datasets by version, are the same."""
    assert latest_version == stock.latest_version == "0.0"
    assert dataset_dtypes == stock.dataset_dtypes
    for name, dtype in stock.dataset_dtypes["0.0"].items():
        assert h5py.check_vlen_dtype(dataset_dtypes["0.0"][name]) == h5py.check_vlen_dtype(dtype)


def test_documented_examples_of_the_stock_module_work(path: Path):
    """What larpix-control's module documentation shows does what it says."""
    to_rawfile(str(path), [b"this is a test message", b"this is a different message"])
    found = from_rawfile(str(path))
    assert found["msgs"] == [b"this is a test message", b"this is a different message"]
    to_rawfile(
        str(path),
        msgs=[b"message from 1", b"message from 2"],
        msg_headers={"io_groups": [1, 2]},
    )
    found = from_rawfile(str(path), 2)
    assert found["msgs"] == [b"message from 1", b"message from 2"]
    assert found["msg_headers"]["io_groups"] == [1, 2]


# ---------------------------------------------------------------------------- the file


def test_new_file_has_the_documented_datasets(raw: Path):
    """Both datasets have one unlimited dimension and the documented types."""
    with h5py.File(raw) as file:
        assert {"meta", "msgs", "msg_headers"} <= set(file)
        for name in ("msgs", "msg_headers"):
            assert (file[name].shape, file[name].maxshape) == ((5,), (None,))
        assert h5py.check_vlen_dtype(file["msgs"].dtype) == np.dtype("u1")
        assert file["msg_headers"].dtype == np.dtype([("io_groups", "u1")])


def test_new_file_has_the_documented_attributes(path: Path):
    """The times are floats of now, the versions texts."""
    before = time.time()
    to_rawfile(path, io_version="2.1")
    after = time.time()
    with h5py.File(path) as file:
        meta = dict(file["meta"].attrs)
    assert meta["created"].dtype == meta["modified"].dtype == np.float64
    assert before <= meta["created"] <= meta["modified"] <= after
    assert (meta["version"], meta["io_version"]) == ("0.0", "2.1")
    assert type(meta["version"]) is type(meta["io_version"]) is str


def test_io_version_is_optional(raw: Path):
    """A file made without an io_version has no such attribute, and reads as None."""
    assert attribute(raw, "io_version") is None
    assert from_rawfile(raw)["io_version"] is None


def test_header_fields_are_read_by_name(path: Path):
    """Where in the header a field stands does not matter."""
    with plain(path, ("before", "<u4"), ("flag", "?")) as file:
        fill_msgs(file, 2)
        file["msg_headers"].resize((2,))
        file["msg_headers"][:] = np.array(
            [(70000, True, 5), (3, False, 6)], file["msg_headers"].dtype
        )
    found = from_rawfile(path)
    assert found["msg_headers"]["io_groups"] == [5, 6]
    assert found["msgs"] == [b"message 0", b"message 1"]


def test_unknown_header_fields_are_passed_on(path: Path):
    """Fields that nobody knows here are in the result, with their values."""
    with plain(path, ("ticks", "<u8"), ("weight", "<f8")) as file:
        fill_msgs(file, 2)
        file["msg_headers"].resize((2,))
        file["msg_headers"][:] = np.array(
            [(2**63, 0.5, 1), (7, 2.0, 2)], file["msg_headers"].dtype
        )
    assert from_rawfile(path)["msg_headers"] == {
        "ticks": [2**63, 7],
        "weight": [0.5, 2.0],
        "io_groups": [1, 2],
    }


def test_header_fields_of_a_file_can_be_written(path: Path):
    """Appending fills any field that the file has, and zeros where one is left out."""
    with plain(path, ("ticks", "<u8"), ("weight", "<f8")) as file:
        fill_msgs(file, 0)
    to_rawfile(path, [b"one"], msg_headers={"ticks": [2**63], "weight": [0.5]})
    to_rawfile(path, [b"two"], msg_headers={"io_groups": [9], "weight": [2]})
    assert from_rawfile(path)["msg_headers"] == {
        "ticks": [2**63, 0],
        "weight": [0.5, 2.0],
        "io_groups": [0, 9],
    }


def test_wider_header_fields_of_a_file_take_larger_values(path: Path):
    """The type that counts is that of the file, not that of new files."""
    with h5py.File(path, "w", libver=("v110", "v114")) as file:
        meta = {"created": 1.0, "modified": 2.0, "version": "0.0"}
        file.create_group("meta").attrs.update(meta)
        options = {"shape": (0,), "maxshape": (None,)}
        file.create_dataset("msgs", dtype=h5py.vlen_dtype(np.dtype("u1")), **options)
        file.create_dataset("msg_headers", dtype=[("io_groups", "<i2")], **options)
    to_rawfile(path, [b"one", b"two"], msg_headers={"io_groups": [300, -1]})
    assert from_rawfile(path)["msg_headers"]["io_groups"] == [300, -1]
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"message 0 .*40000 is outside -32768\.\.32767"):
        to_rawfile(path, [b"one"], msg_headers={"io_groups": [40000]})
    assert path.read_bytes() == before


def add_daq_configs(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["daq_configs"] = np.arange(100, dtype="u1")
        file["daq_configs"].attrs["dirname"] = "configs"
        file["meta"].attrs["run"] = 42
        file.create_group("more").attrs["anything"] = "else"


def test_unknown_objects_are_ignored_when_reading(raw: Path):
    """What the DAQ adds at a run's end does not change what is read."""
    before = from_rawfile(raw)
    add_daq_configs(raw)
    assert from_rawfile(raw) == before
    assert len_rawfile(raw) == 5


def test_unknown_objects_survive_appending(raw: Path):
    """A file with what the DAQ adds can be continued, and keeps it."""
    add_daq_configs(raw)
    to_rawfile(raw, [b"more"])
    assert from_rawfile(raw)["msgs"] == [*MSGS, b"more"]
    with h5py.File(raw) as file:
        assert file["daq_configs"][:].tolist() == list(range(100))
        assert file["daq_configs"].attrs["dirname"] == "configs"
        assert file["meta"].attrs["run"] == 42
        assert file["more"].attrs["anything"] == "else"


def test_all_file_versions_go_with_all_io_versions(raw: Path):
    """The versions of the file and of its messages have nothing to do with each other."""
    msgs = list(MSGS)
    for version in ("0.0", "0.3"):
        for io_version in ("0.0", "1.0", "17.4", "new-v1-word24"):
            stamp(raw, version=version, io_version=io_version)
            to_rawfile(raw, [b"more"], version="0.0", io_version=io_version)
            msgs.append(b"more")
            found = from_rawfile(raw, version="0.0", io_version=io_version)
            assert (found["msgs"], found["io_version"]) == (msgs, io_version)


# ------------------------------------------------------------------------ the versions

COMPATIBLE = [
    ("0.0", "0.0"),
    ("0.1", "0.0"),
    ("0.10", "0.9"),
    ("0.100", "0.20"),
    ("0.10", "0.10"),
]
INCOMPATIBLE = [
    ("0.0", "0.1"),
    ("0.0", "1.0"),
    ("1.0", "0.0"),
    ("0.9", "0.10"),
    ("10.0", "1.0"),
    ("1.0", "10.0"),
    ("0.0", "0"),
    ("0.0", "new-v1-word24"),
]
ATTRIBUTES = ["version", "io_version"]


@pytest.mark.parametrize(("found", "asked"), COMPATIBLE)
def test_compatible_versions_are_read(raw: Path, found: str, asked: str):
    """Same major, and a minor that is not smaller, compared as numbers: it is read."""
    stamp(raw, version=found, io_version=found)
    for what in ATTRIBUTES:
        assert from_rawfile(raw, **{what: asked})["msgs"] == MSGS


@pytest.mark.parametrize(("found", "asked"), INCOMPATIBLE)
def test_incompatible_versions_are_not_read(raw: Path, found: str, asked: str):
    """Another major, or a smaller minor as a number: the error names file and versions."""
    stamp(raw, version=found, io_version=found)
    for what in ATTRIBUTES:
        text = rf"raw\.h5: its {what} is {re.escape(found)}, .*'{re.escape(asked)}'"
        with pytest.raises(IncompatibleVersion, match=text):
            from_rawfile(raw, **{what: asked})


@pytest.mark.parametrize(("found", "asked"), COMPATIBLE)
def test_compatible_versions_are_continued(raw: Path, found: str, asked: str):
    """The same rule holds for appending; the file's versions stay."""
    stamp(raw, version=found, io_version=found)
    for what in ATTRIBUTES:
        to_rawfile(raw, [b"more"], **({"version": "0.0"} | {what: asked}))
    result = from_rawfile(raw)
    assert result["msgs"] == [*MSGS, b"more", b"more"]
    assert (result["version"], result["io_version"]) == (found, found)


@pytest.mark.parametrize("what", ATTRIBUTES)
@pytest.mark.parametrize(("found", "asked"), INCOMPATIBLE)
def test_nothing_is_written_to_an_incompatible_file(raw: Path, what: str, found: str, asked: str):
    """No byte of the file changes when a version does not go with it."""
    stamp(raw, **{what: found})
    before = raw.read_bytes()
    text = rf"raw\.h5: its {what} is {re.escape(found)}, .*'{re.escape(asked)}'"
    with pytest.raises(IncompatibleVersion, match=text):
        to_rawfile(raw, [b"more"], **{what: asked})
    assert raw.read_bytes() == before


@pytest.mark.parametrize("version", ["1.0", "2.7"])
def test_file_of_another_major_is_not_continued_without_asking(raw: Path, version: str):
    """A layout that this software does not know is not written to by default."""
    stamp(raw, version=version)
    before = raw.read_bytes()
    with pytest.raises(IncompatibleVersion):
        to_rawfile(raw, [b"more"])
    assert raw.read_bytes() == before


def test_incompatible_version_is_an_assertion_error():
    """What the classic functions document is what is caught, and it is a LayoutError too."""
    assert issubclass(IncompatibleVersion, AssertionError)
    assert issubclass(IncompatibleVersion, LayoutError)


@pytest.mark.parametrize("version", ["0.1", "0.00", "1.0", "", "latest"])
def test_unknown_version_cannot_be_created(path: Path, version: str):
    """A version that is not known is refused with the list of those that are."""
    for empty in (False, True):
        if empty:
            path.touch()
        with pytest.raises(IncompatibleVersion, match=rf"'{re.escape(version)}'; known: 0\.0$"):
            to_rawfile(path, [b"one"], version=version)
        assert path.exists() == empty
        assert not empty or not path.stat().st_size


def test_known_version_can_be_created(path: Path):
    """The version that is asked for is that of the file."""
    for version in dataset_dtypes:
        to_rawfile(path, version=version)
        assert attribute(path, "version") == version
        path.unlink()


def test_default_version_is_the_latest(path: Path):
    """A new file gets the latest version."""
    to_rawfile(path)
    assert attribute(path, "version") == latest_version


@pytest.mark.parametrize(
    ("found", "asked", "result"),
    [("0.3", "0.1", "0.1"), ("0.10", "0.9", "0.9"), ("0.3", None, "0.3"), ("0.3", "0.3", "0.3")],
)
def test_result_states_the_smaller_minor(raw: Path, found: str, asked: str | None, result: str):
    """The version of a result is that which asked and found have in common."""
    stamp(raw, version=found)
    assert from_rawfile(raw, version=asked)["version"] == result


def test_result_states_the_io_version_of_the_file(raw: Path):
    """The io_version of a result is the file's, whatever was asked for."""
    stamp(raw, io_version="0.7")
    assert from_rawfile(raw, io_version="0.3")["io_version"] == "0.7"


@pytest.mark.parametrize("text", ["new-v1-word24", "24", "v1", "1.2.3", "müon 1.x", ""])
def test_any_text_is_met_as_io_version(path: Path, text: str):
    """Texts that are not two numbers are written, read, asked for, and continued."""
    to_rawfile(path, [b"one"], io_version=text)
    to_rawfile(path, [b"two"], io_version=text)
    assert from_rawfile(path)["io_version"] == text
    assert from_rawfile(path, io_version=text)["msgs"] == [b"one", b"two"]
    with pytest.raises(IncompatibleVersion):
        from_rawfile(path, io_version="0.0")
    with pytest.raises(IncompatibleVersion):
        to_rawfile(path, [b"three"], io_version="0.0")
    assert len_rawfile(path) == 2


def test_io_version_is_not_added_to_a_file_without(raw: Path):
    """Appending with an io_version to a file that states none is refused."""
    before = raw.read_bytes()
    with pytest.raises(IncompatibleVersion, match="io_version is not stated"):
        to_rawfile(raw, [b"more"], io_version="0.0")
    assert raw.read_bytes() == before


def test_io_version_may_be_left_out_when_appending(path: Path):
    """A file that states an io_version is continued by who asks for none, and keeps it."""
    to_rawfile(path, [b"one"], io_version="0.4")
    to_rawfile(path, [b"two"])
    assert from_rawfile(path)["io_version"] == "0.4"
    assert len_rawfile(path) == 2


def test_file_without_io_version_serves_every_reader(raw: Path):
    """Asking for an io_version that the file does not state is accepted."""
    found = from_rawfile(raw, io_version="9.9")
    assert (found["msgs"], found["io_version"]) == (MSGS, None)


# -------------------------------------------------------------------------- to_rawfile


def test_file_is_made_if_absent(path: Path):
    """The first call makes the file, without messages if none are given."""
    to_rawfile(path)
    assert len_rawfile(path) == 0
    assert from_rawfile(path)["msgs"] == []


def test_file_is_made_if_empty(path: Path):
    """A file of no bytes, as tempfile makes it, is as good as none."""
    path.touch()
    to_rawfile(path, [b"one"])
    assert from_rawfile(path)["msgs"] == [b"one"]


def test_messages_are_appended(raw: Path):
    """Later calls go on after the last row."""
    to_rawfile(raw, [b"six", b"seven"], msg_headers={"io_groups": [6, 7]})
    found = from_rawfile(raw)
    assert found["msgs"] == [*MSGS, b"six", b"seven"]
    assert found["msg_headers"] == {"io_groups": [*GROUPS, 6, 7]}


@pytest.mark.parametrize("msgs", [None, [], [b"one"]])
def test_every_call_updates_modified(raw: Path, msgs: list[bytes] | None):
    """Also one without messages; created stays, and so do the rows there were."""
    stamp(raw, created=1.5, modified=2.5)
    before = time.time()
    to_rawfile(raw, msgs)
    found = from_rawfile(raw)
    assert found["created"] == 1.5
    assert before <= found["modified"] <= time.time()
    assert found["msgs"] == MSGS + (msgs or [])


def test_run_is_not_over_after_a_call(path: Path):
    """The next call may follow: the file never says that the run has ended, even if it had."""
    to_rawfile(path, [b"one"])
    assert attribute(path, "finished") == PAUSED
    with RawWriter(path) as out:
        out.append([b"two"])
    assert attribute(path, "finished") == 2
    to_rawfile(path, [b"three"])
    assert attribute(path, "finished") == PAUSED


@pytest.mark.parametrize("headers", [None, {}], ids=["none", "empty"])
def test_headers_left_out_are_zeros(path: Path, headers: dict | None):
    """Without any header fields, all of them are 0."""
    to_rawfile(path, [b"one", b"two"], msg_headers=headers)
    to_rawfile(path, [b"three"], msg_headers=headers)
    assert from_rawfile(path)["msg_headers"] == {"io_groups": [0, 0, 0]}


@pytest.mark.parametrize(
    "groups",
    [[1, 2, 255], (1, 2, 255), np.array([1, 2, 255]), np.array([1.0, 2.0, 255.0]), range(1, 4)],
    ids=["list", "tuple", "integers", "whole floats", "range"],
)
def test_header_values_may_be_any_sequence(path: Path, groups):
    """Lists, tuples, arrays and ranges are taken, whatever the type of their integers."""
    to_rawfile(path, [b"one", b"two", b"three"], msg_headers={"io_groups": groups})
    assert from_rawfile(path)["msg_headers"]["io_groups"] == [int(group) for group in groups]


MESSAGES = {
    "list": MSGS,
    "tuple": tuple(MSGS),
    "generator": (msg for msg in MSGS),
    "iterator": iter(MSGS),
    "bytearrays": [bytearray(msg) for msg in MSGS],
    "memoryviews": [memoryview(msg) for msg in MSGS],
    "slices of a memoryview": [memoryview(b"--" + msg + b"--")[2:-2] for msg in MSGS],
    "arrays of u1": [np.frombuffer(msg, "u1") for msg in MSGS],
    "array of objects": np.array([*MSGS, None], dtype=object)[:-1],
    "of many kinds": [b"first", bytearray(b"the second"), b"", memoryview(b"x" * 1000), b"last"],
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_messages_may_be_any_iterable_of_bytes(path: Path, kind: str):
    """Whatever has bytes inside is a message, and whatever yields messages is taken."""
    to_rawfile(path, MESSAGES[kind], msg_headers={"io_groups": GROUPS})
    found = from_rawfile(path)
    assert found["msgs"] == MSGS
    assert found["msg_headers"]["io_groups"] == GROUPS


def test_messages_of_wider_elements_are_taken_by_their_bytes(path: Path):
    """An array of words is the message of its bytes, next to plain ones."""
    words = np.array([1, 2, 2**32 - 1], "<u4")
    to_rawfile(path, [words, b"plain", words[:1], words.reshape(1, 3)])
    data = words.tobytes()
    assert from_rawfile(path)["msgs"] == [data, b"plain", data[:4], data]


def test_rows_of_a_matrix_are_messages(path: Path):
    """A matrix of u1 is one message a row."""
    matrix = np.arange(24, dtype="u1").reshape(4, 6)
    to_rawfile(path, matrix)
    assert from_rawfile(path)["msgs"] == [row.tobytes() for row in matrix]


@pytest.mark.parametrize(
    "msgs",
    [
        [b""],
        [b"", b"", b""],
        [b"alone"],
        [b"same", b"size", b"here"],
        [b"a", b"bc", b"def"],
        [b"", b"one", b""],
        [b"\0\0", b"\0", bytes(range(256))],
        [bytes(1_048_568)],
    ],
    ids=["empty", "empties", "one", "equal", "unequal", "with empties", "zeros", "longest"],
)
def test_messages_of_any_lengths(path: Path, msgs: list[bytes]):
    """Equal and different lengths, one message, and empty ones are all the same."""
    to_rawfile(path, msgs, msg_headers={"io_groups": [7] * len(msgs)})
    assert from_rawfile(path)["msgs"] == msgs
    assert len_rawfile(path) == len(msgs)


def test_more_messages_than_a_chunk(path: Path):
    """Batches that end in the middle of HDF5's and of the reader's steps are whole."""
    msgs = [b"%d" % row * (row % 5) for row in range(20_000)]
    groups = [row % 256 for row in range(20_000)]
    for start, stop in ((0, 1), (1, 1023), (1023, 9000), (9000, 20_000)):
        to_rawfile(path, msgs[start:stop], msg_headers={"io_groups": groups[start:stop]})
    found = from_rawfile(path)
    assert found["msgs"] == msgs
    assert found["msg_headers"]["io_groups"] == groups


def test_many_calls_from_one_process(path: Path):
    """As the DAQ writes: a call for every batch, and nothing is kept open."""
    for call in range(100):
        to_rawfile(path, [b"call %d" % call] * 3, msg_headers={"io_groups": [1 + call] * 3})
    found = from_rawfile(path)
    assert found["msgs"] == [b"call %d" % (row // 3) for row in range(300)]
    assert found["msg_headers"]["io_groups"] == [1 + row // 3 for row in range(300)]


REFUSED = {
    "unknown field": (UnknownField, RuntimeError, "'colour'", {"colour": [1, 2]}),
    "unknown field too": (
        UnknownField,
        RuntimeError,
        "'io_group'",
        {"io_groups": [1, 2], "io_group": [1, 2]},
    ),
    "too few": (LengthMismatch, AssertionError, "2 messages, but io_groups", {"io_groups": [1]}),
    "too many": (LengthMismatch, AssertionError, r"\(3,\)", {"io_groups": [1, 2, 3]}),
    "one for all": (LengthMismatch, AssertionError, "io_groups", {"io_groups": 1}),
    "a matrix": (LengthMismatch, AssertionError, r"\(2, 1\)", {"io_groups": [[1], [2]]}),
    "ragged": (BadBatch, ValueError, "io_groups", {"io_groups": [[1], [2, 3]]}),
    "300": (BadBatch, ValueError, r"message 1 .*300 is outside 0\.\.255", {"io_groups": [1, 300]}),
    "256": (BadBatch, ValueError, "message 0 .*256", {"io_groups": [256, 1]}),
    "-1": (BadBatch, ValueError, "message 1 .*-1", {"io_groups": np.array([1, -1])}),
    "huge": (BadBatch, ValueError, f"message 1 .*{2**70}", {"io_groups": [1, 2**70]}),
    "a fraction": (BadBatch, ValueError, "message 1 .*2.5", {"io_groups": [1, 2.5]}),
    "not a number": (BadBatch, ValueError, "message 0 .*nan", {"io_groups": [np.nan, 1]}),
    "infinite": (BadBatch, ValueError, "message 0 .*inf", {"io_groups": [np.inf, 1]}),
    "a text": (BadBatch, ValueError, "message 0 .*'a'", {"io_groups": ["a", "b"]}),
    "nothing": (BadBatch, ValueError, "message 1 .*None", {"io_groups": [1, None]}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_headers_are_refused_before_the_first_change(path: Path, case: str):
    """No byte changes, no file is made, and the error says what is wrong with which one."""
    ours, classic, text, headers = REFUSED[case]
    assert issubclass(ours, classic)
    for state in ("absent", "empty", "paused", "finished"):
        if state == "empty":
            path.touch()
        elif state == "paused":
            to_rawfile(path, MSGS)
        elif state == "finished":
            with RawWriter(path) as out:
                out.append(MSGS)
        before = path.read_bytes() if path.exists() else None
        with pytest.raises(ours, match=text):
            to_rawfile(path, [b"one", b"two"], msg_headers=headers)
        assert (path.read_bytes() if path.exists() else None) == before, state


@pytest.mark.parametrize(
    ("msgs", "text"),
    [
        ([b"one", "two"], "message 1 .*str"),
        ([None, b"two"], "message 0 .*NoneType"),
        ([b"one", 2], "message 1 .*int"),
        ([b"one", [1, 2]], "message 1 .*list"),
        ([b"one", memoryview(b"abcd")[::2]], "message 1 .*memoryview"),
        (b"one", "one message, not a list"),
    ],
    ids=["str", "None", "int", "list", "strided", "bare"],
)
def test_what_is_not_bytes_is_refused_before_the_first_change(raw: Path, msgs, text: str):
    """The error names the message that is not bytes, and no byte of the file changes."""
    before = raw.read_bytes()
    with pytest.raises(BadBatch, match=text):
        to_rawfile(raw, msgs)
    assert raw.read_bytes() == before


@pytest.mark.parametrize("headers", [None, {"io_groups": [300]}, {"colour": [1]}])
def test_other_files_are_not_written_to(path: Path, headers: dict | None):
    """A file of another kind is refused, and stays as it is."""
    for content in (b"some text, not HDF5 at all", other_hdf5(path)):
        path.write_bytes(content)
        with pytest.raises(LayoutError, match="not a LArPix raw file"):
            to_rawfile(path, [b"one"], msg_headers=headers)
        assert path.read_bytes() == content


def other_hdf5(path: Path) -> bytes:
    with h5py.File(path, "w", libver=("v110", "v114")) as file:
        file["packets"] = np.arange(3)
    return path.read_bytes()


# -------------------------------------------------------- from_rawfile and len_rawfile


def test_result_has_the_documented_keys_and_types(raw: Path):
    """Lists of bytes and of int, floats and texts, not numpy's look-alikes."""
    stamp(raw, io_version="0.0")
    found = from_rawfile(raw)
    assert list(found) == ["created", "modified", "version", "io_version", "msgs", "msg_headers"]
    assert type(found) is type(found["msg_headers"]) is dict
    assert type(found["created"]) is type(found["modified"]) is float
    assert type(found["version"]) is type(found["io_version"]) is str
    assert type(found["msgs"]) is type(found["msg_headers"]["io_groups"]) is list
    assert {type(msg) for msg in found["msgs"]} == {bytes}
    assert {type(group) for group in found["msg_headers"]["io_groups"]} == {int}


def test_result_of_an_empty_file(path: Path):
    """A file without messages gives empty lists, one for each field."""
    to_rawfile(path)
    found = from_rawfile(path)
    assert (found["msgs"], found["msg_headers"]) == ([], {"io_groups": []})
    assert from_rawfile(path, msg_headers_only=True)["msg_headers"] == {"io_groups": []}


def test_result_states_the_times_of_the_file(raw: Path):
    """created and modified are what the file says."""
    stamp(raw, created=1.25, modified=2.5)
    found = from_rawfile(raw)
    assert (found["created"], found["modified"]) == (1.25, 2.5)


def test_length_is_an_int(raw: Path):
    """len_rawfile counts the messages, as Python counts."""
    assert len_rawfile(raw) == 5
    assert type(len_rawfile(raw)) is int


BOUNDS = [None, 0, 1, 3, 5, 6, 10**9, -1, -2, -5, -6, -(10**9)]


def test_rows_are_chosen_as_slices_choose(raw: Path):
    """Negative rows count from the end, and beyond the ends there is nothing."""
    for start in BOUNDS:
        for end in BOUNDS:
            found = from_rawfile(raw, start=start, end=end)
            assert found["msgs"] == MSGS[start:end], (start, end)
            assert found["msg_headers"] == {"io_groups": GROUPS[start:end]}


def test_rows_may_be_numpy_integers(raw: Path):
    """Rows that come out of numpy are as good as Python's."""
    assert from_rawfile(raw, np.int64(1), np.uint8(3))["msgs"] == MSGS[1:3]


@pytest.mark.parametrize(
    "mask",
    [
        [True, False, True, False, True],
        np.array([False, False, False, True, False]),
        np.ones(5, bool),
        np.zeros(5, bool),
    ],
    ids=["list", "array", "all", "none"],
)
def test_mask_chooses_rows(raw: Path, mask):
    """One bool a row says which rows are read."""
    found = from_rawfile(raw, mask=mask)
    assert found["msgs"] == [msg for msg, taken in zip(MSGS, mask, strict=True) if taken]
    assert found["msg_headers"]["io_groups"] == [
        group for group, taken in zip(GROUPS, mask, strict=True) if taken
    ]


def test_mask_over_many_chunks(path: Path):
    """A mask is cut as the steps are in which a long file is read."""
    msgs = [b"%d" % row for row in range(30_000)]
    to_rawfile(path, msgs, msg_headers={"io_groups": [row % 251 for row in range(30_000)]})
    rows = [5, 8191, 8192, 8197, 25_000]
    mask = np.zeros(30_000, bool)
    mask[rows] = True
    found = from_rawfile(path, mask=mask)
    assert found["msgs"] == [msgs[row] for row in rows]
    assert found["msg_headers"]["io_groups"] == [row % 251 for row in rows]


def test_mask_replaces_start_and_end(raw: Path):
    """With a mask, start and end do nothing."""
    mask = [True, False, False, False, True]
    assert from_rawfile(raw, start=1, end=2, mask=mask)["msgs"] == [MSGS[0], MSGS[4]]


def test_mask_of_an_empty_file(path: Path):
    """No rows take a mask of no values, also where it has no type."""
    to_rawfile(path)
    assert from_rawfile(path, mask=[])["msgs"] == []
    assert from_rawfile(path, mask=np.zeros(0, bool))["msgs"] == []


@pytest.mark.parametrize(
    "mask",
    [[], [True], [True] * 4, [True] * 6, [[True] * 5], True, [1, 0, 1, 0, 1], [0, 3], "masks"],
    ids=["empty", "one", "short", "long", "matrix", "scalar", "integers", "indices", "text"],
)
def test_wrong_mask_is_a_clear_error(raw: Path, mask):
    """Anything but one bool a row is refused, with the shape that it should have."""
    with pytest.raises(BadMask, match=r"raw\.h5: a mask is one bool a row, \(5,\)") as caught:
        from_rawfile(raw, mask=mask)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "rows", [{}, {"start": 1, "end": 3}, {"mask": [True, False, False, False, True]}]
)
def test_headers_only_leaves_the_messages_out(raw: Path, rows: dict):
    """msgs is None then, and everything else as it is otherwise."""
    whole = from_rawfile(raw, **rows)
    assert from_rawfile(raw, msg_headers_only=True, **rows) == {**whole, "msgs": None}


def test_headers_only_does_not_read_messages(raw: Path):
    """A message that is damaged does not keep one from the headers."""
    content = raw.read_bytes()
    assert content.count(MSGS[1]) == 1
    # The header of the heap object before its bytes: index, count and length.
    start = content.index(MSGS[1]) - 16
    raw.write_bytes(content[:start] + b"\xff" * 16 + content[start + 16 :])
    assert from_rawfile(raw, msg_headers_only=True)["msg_headers"]["io_groups"] == GROUPS
    with pytest.raises(RowUnreadable, match="row 1 cannot be read"):
        from_rawfile(raw)


@pytest.mark.parametrize("function", [from_rawfile, len_rawfile])
def test_absent_file_is_an_error_at_once(path: Path, function):
    """Nobody waits for a file that is not there, with any attempts."""
    for attempts in (1, 0, 1000, -1):
        begun = time.perf_counter()
        with pytest.raises(FileNotFoundError, match=r"raw\.h5"):
            function(path, attempts=attempts)
        assert time.perf_counter() - begun < 1
    assert not path.exists()


@pytest.mark.parametrize("function", [from_rawfile, len_rawfile])
def test_folder_is_an_error_at_once(tmp_path: Path, function):
    """A folder is no file, as open() says it."""
    with pytest.raises(IsADirectoryError):
        function(tmp_path)


def without(name: str):
    def spoil(file: h5py.File) -> None:
        del file[name]

    return spoil


def without_attribute(name: str):
    def spoil(file: h5py.File) -> None:
        del file["meta"].attrs[name]

    return spoil


def replaced(name: str, **options):
    def spoil(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **options)

    return spoil


OTHERS = {
    "no meta": without("meta"),
    "no msgs": without("msgs"),
    "no msg_headers": without("msg_headers"),
    "no created": without_attribute("created"),
    "no version": without_attribute("version"),
    "meta a dataset": replaced("meta", data=[1]),
    "msgs of integers": replaced("msgs", data=[1, 2]),
    "msgs of texts": replaced("msgs", data=["a", "b"]),
    "msgs a matrix": replaced("msgs", shape=(2, 2), dtype=h5py.vlen_dtype(np.dtype("u1"))),
    "headers without io_groups": replaced("msg_headers", shape=(5,), dtype=[("x", "u1")]),
    "headers without fields": replaced("msg_headers", shape=(5,), dtype="u1"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_hdf5_file_is_a_layout_error(raw: Path, case: str):
    """A closed HDF5 file that is not this format is told at once, and by name."""
    with h5py.File(raw, "r+") as file:
        OTHERS[case](file)
    begun = time.perf_counter()
    for function in (from_rawfile, len_rawfile):
        with pytest.raises(LayoutError, match=r"raw\.h5: not a LArPix raw file"):
            function(raw)
    assert time.perf_counter() - begun < 1


@pytest.mark.parametrize("function", [from_rawfile, len_rawfile])
@pytest.mark.parametrize("content", [b"some text", bytes(range(256)) * 100])
def test_file_that_is_not_hdf5_is_a_layout_error(path: Path, content: bytes, function):
    """Anything that is not HDF5 is told at once, and by name."""
    path.write_bytes(content)
    begun = time.perf_counter()
    with pytest.raises(LayoutError, match=r"raw\.h5"):
        function(path)
    assert time.perf_counter() - begun < 1


def test_file_that_never_becomes_readable_is_given_up(path: Path, monkeypatch):
    """Waiting for a file that is being made has an end, and the error is NotReady."""
    path.touch()
    monkeypatch.setattr("streamer.rawhdf5format._OPENING", Patience(attempts=50, seconds=0.1))
    begun = time.monotonic()
    with pytest.raises(NotReady, match=r"raw\.h5"):
        len_rawfile(path)
    assert 0.05 < time.monotonic() - begun < 2


def test_reading_changes_nothing(raw: Path):
    """The file has the same bytes and the same time after it was read."""
    make_old(raw)
    before = raw.read_bytes(), raw.stat().st_mtime_ns
    from_rawfile(raw)
    len_rawfile(raw)
    assert (raw.read_bytes(), raw.stat().st_mtime_ns) == before


def test_read_only_file_is_read(raw: Path):
    """Who may not write a file may read it."""
    raw.chmod(0o444)
    assert from_rawfile(raw)["msgs"] == MSGS


# ---------------------------------------------------------------------------- attempts


@pytest.mark.parametrize("attempts", [1, 2, 7])
def test_attempts_bound_the_looks(path: Path, attempts: int, monkeypatch):
    """Beside a writer in the middle of a batch, so many looks, then a RuntimeError."""
    looks = []
    look = RawFile.look

    def counted(self: RawFile) -> int:
        looks.append(time.monotonic())
        return look(self)

    monkeypatch.setattr(RawFile, "look", counted)
    for function in (len_rawfile, from_rawfile):
        with torn(path):
            looks.clear()
            with pytest.raises(
                NotSynchronized, match="msgs has 3 rows and msg_headers 2"
            ) as caught:
                function(path, attempts=attempts)
            assert isinstance(caught.value, RuntimeError)
            assert len(looks) == attempts


@pytest.mark.parametrize(("msgs", "headers"), [(3, 2), (2, 3)])
def test_no_attempts_take_the_common_length(path: Path, msgs: int, headers: int):
    """attempts=0 does not wait for equal lengths: what both datasets have is read."""
    with torn(path, msgs, headers):
        assert len_rawfile(path, attempts=0) == 2
        found = from_rawfile(path, attempts=0)
        assert found["msgs"] == [b"message 0", b"message 1"]
        assert found["msg_headers"]["io_groups"] == [1, 2]


@pytest.mark.parametrize("attempts", [-1, 10**6])
@pytest.mark.parametrize("function", [from_rawfile, len_rawfile])
def test_waiting_ends_when_the_lengths_agree(path: Path, function, attempts: int):
    """Looks go on until the batch is complete, with pauses that leave the processor alone."""
    with torn(path) as file:
        timer = threading.Timer(0.3, fill_headers, (file, 3))
        begun, used = time.monotonic(), time.process_time()
        timer.start()
        try:
            found = function(path, attempts=attempts)
        finally:
            timer.join()
        took, used = time.monotonic() - begun, time.process_time() - used
        assert (found if function is len_rawfile else len(found["msgs"])) == 3
        assert 0.25 < took < 2
        assert used < 0.7 * took


@pytest.mark.parametrize("attempts", [1, -1, 0])
def test_writer_that_rests_in_the_middle_of_a_batch_keeps_nobody(path: Path, attempts: int):
    """Lengths that stay unequal were left so by a writer that died: the common one counts."""
    with torn(path):
        make_old(path)
        assert len_rawfile(path, attempts=attempts) == 2


@pytest.mark.parametrize(("msgs", "headers"), [(4, 2), (2, 4), (3, 0), (0, 3)])
def test_closed_file_of_unequal_lengths_is_read(path: Path, msgs: int, headers: int):
    """It is not an error: the common length is what the file holds."""
    unequal(path, msgs, headers)
    make_young(path)
    rows = min(msgs, headers)
    for attempts in (1, 5, 0, -1):
        assert len_rawfile(path, attempts) == rows
        found = from_rawfile(path, attempts=attempts)
        assert found["msgs"] == [b"message %d" % row for row in range(rows)]
        assert found["msg_headers"]["io_groups"] == list(range(1, rows + 1))


@pytest.fixture
def killed(path: Path) -> Path:
    """A file whose writer, another process, was killed in the middle of a batch."""
    script = (
        "import os, signal, sys\n"
        "from tests.test_rawhdf5format import Path, torn\n"
        "with torn(Path(sys.argv[1]), 4, 2):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], cwd=ROOT, timeout=60)
    assert done.returncode < 0
    with pytest.raises(OSError, match="already open for"):
        h5py.File(path)
    return path


def test_killed_file_of_unequal_lengths_is_read(killed: Path):
    """What both datasets have is read, once the file has been left alone for a second."""
    make_old(killed)
    for attempts in (1, 5, 0, -1):
        assert len_rawfile(killed, attempts) == 2
        found = from_rawfile(killed, attempts=attempts)
        assert found["msgs"] == [b"message 0", b"message 1"]
        assert found["msg_headers"]["io_groups"] == [1, 2]


def test_waiting_for_a_killed_writer_ends(killed: Path):
    """attempts below 0 come back although the lengths never agree."""
    os.utime(killed)
    begun = time.monotonic()
    assert len_rawfile(killed, attempts=-1) == 2
    assert time.monotonic() - begun < 5


# ------------------------------------------------------- what is wrong in the stock code


def test_fault_1_headers_may_be_left_out(path: Path, tmp_path: Path, stock):
    """Stock: a TypeError without headers, a KeyError without io_groups. Ours: zeros."""
    with pytest.raises(TypeError, match="NoneType"):
        stock.to_rawfile(tmp_path / "stock1.h5", [b"one"])
    with pytest.raises(KeyError, match="io_groups"):
        stock.to_rawfile(tmp_path / "stock2.h5", [b"one"], msg_headers={})
    to_rawfile(path, [b"one"])
    to_rawfile(path, [b"two"], msg_headers={})
    assert from_rawfile(path)["msg_headers"] == {"io_groups": [0, 0]}


def test_fault_2_files_being_made_are_waited_for(raw: Path, tmp_path: Path, stock):
    """Stock: one try of from_rawfile, 100 in no time of len_rawfile. Ours: pauses between."""
    coming = tmp_path / "coming.h5"
    coming.touch()
    for function, tries in ((stock.from_rawfile, 1), (stock.len_rawfile, 100)):
        begun = time.monotonic()
        with (
            pytest.warns(RuntimeWarning, match="trying again") as warned,
            pytest.raises(OSError, match="Unable to"),
        ):
            function(coming)
        assert len(warned) == tries
        assert time.monotonic() - begun < 1
    for function in (from_rawfile, len_rawfile):
        coming.write_bytes(b"")
        timer = threading.Timer(0.3, shutil.copyfile, (raw, coming))
        timer.start()
        try:
            found = function(coming)
        finally:
            timer.join()
        assert (found if function is len_rawfile else len(found["msgs"])) == 5


def test_fault_3_versions_are_numbers(raw: Path, tmp_path: Path, stock):
    """Stock: compares texts, and fails with a KeyError at what it does not know."""
    with pytest.raises(KeyError, match=r"0\.1"):
        stock.to_rawfile(tmp_path / "stock.h5", version="0.1")
    with pytest.raises(KeyError, match="io_version"):
        stock.to_rawfile(raw, io_version="0.0")
    stamp(raw, version="0.10", io_version="0.10")
    with pytest.raises(AssertionError, match="mismatch"):
        stock.from_rawfile(raw, version="0.9")
    with pytest.raises(AssertionError, match="mismatch"):
        stock.from_rawfile(raw, io_version="0.9")

    assert from_rawfile(raw, version="0.9", io_version="0.9")["msgs"] == MSGS
    with pytest.raises(IncompatibleVersion):
        to_rawfile(tmp_path / "ours.h5", version="0.1")
    stamp(raw, io_version=None)
    with pytest.raises(IncompatibleVersion):
        to_rawfile(raw, io_version="0.0")


def test_fault_4_lengths_are_looked_at_anew(path: Path, stock):
    """Stock: asks h5py, which remembers; so no number of looks helps. Ours: asks HDF5."""
    with torn(path) as file:
        # Not through the driver that the writer has in this process: HDF5 would share it.
        with h5py.File(open_unlocked(str(path), swmr=True)) as other:
            datasets = other["msgs"], other["msg_headers"]
            with pytest.raises(RuntimeError, match="after 1 attempts"):
                stock._synchronize(1, *datasets)
            fill_headers(file, 3)
            with pytest.raises(RuntimeError, match="after 200 attempts"):
                stock._synchronize(200, *datasets)
            stock._synchronize(1, other["msgs"], other["msg_headers"])
        assert len_rawfile(path, attempts=1) == 3


@pytest.mark.parametrize(("msgs", "headers"), [(4, 2), (2, 4)])
def test_fault_5_files_of_killed_writers_are_read(path: Path, stock, msgs: int, headers: int):
    """Stock: a RuntimeError for ever. Ours: what both datasets have."""
    unequal(path, msgs, headers)
    for attempts in (1, 100):
        with pytest.raises(RuntimeError, match="stable file state"):
            stock.from_rawfile(path, attempts=attempts)
        with pytest.raises(RuntimeError, match="stable file state"):
            stock.len_rawfile(path, attempts=attempts)
    assert len_rawfile(path) == len(from_rawfile(path)["msgs"]) == 2


def test_fault_6_the_environment_is_left_alone():
    """Stock: sets HDF5's variable for the process, when HDF5 has long been loaded."""
    run_alone("""
        import larpix
        assert "h5py" in sys.modules, "HDF5 is not loaded yet"
        assert "HDF5_USE_FILE_LOCKING" not in os.environ
        import larpix.format.rawhdf5format
        assert os.environ["HDF5_USE_FILE_LOCKING"] == "FALSE"
        """)
    run_alone("""
        before = dict(os.environ)
        import streamer.rawhdf5format
        assert dict(os.environ) == before
        """)


def run_alone(script: str) -> None:
    """Run some lines in a fresh interpreter, and fail if they do."""
    environment = {name: text for name, text in os.environ.items() if "HDF5" not in name}
    done = subprocess.run(
        [sys.executable, "-c", "import os, sys\n" + dedent(script)],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_fault_7_io_versions_without_a_dot_are_read(raw: Path, stock):
    """Stock: a ValueError from taking the text apart. Ours: the text."""
    stamp(raw, io_version="new-v1-word24")
    with pytest.raises(ValueError, match="values to unpack"):
        stock.from_rawfile(raw)
    found = from_rawfile(raw)
    assert (found["msgs"], found["io_version"]) == (MSGS, "new-v1-word24")
