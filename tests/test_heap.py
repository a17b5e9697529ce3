"""gather: references and the bytes of a heap become messages, or an honest end of them."""

import tracemalloc
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer import heap as heap_module
from streamer.heap import REFERENCE, gather

HEADER = 16
SMALLEST = 4096  # bytes of a collection
FLIPS = (0x01, 0xFF)


@pytest.fixture(scope="module", params=["few", "many"], autouse=True)
def way(request):
    """Few references go another way; that of many takes them too, and both are the same."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "many":
            patch.setattr(heap_module, "_FEW", 0)
        yield request.param


def padded(size: int) -> int:
    return -(-size // 8) * 8


# ------------------------------------------------------- a heap as HDF5 makes it, in memory


@dataclass
class Collection:
    """Objects by index, in the order in which they lie; addresses count from the file's start."""

    address: int
    size: int
    room: int
    objects: dict[int, bytes] = field(default_factory=dict)
    used: int = 0

    @property
    def free(self) -> int:
        return self.size - HEADER - sum(HEADER + padded(len(o)) for o in self.objects.values())

    def image(self) -> bytes:
        parts = [b"GCOL\1\0\0\0", self.size.to_bytes(8, "little")]
        for index, data in self.objects.items():
            parts += [index.to_bytes(8, "little"), len(data).to_bytes(8, "little")]
            parts += [data.ljust(padded(len(data)), b"\0")]
        if self.free >= HEADER:
            parts += [bytes(8), self.free.to_bytes(8, "little")]
        return b"".join(parts).ljust(self.size, b"\0")


@dataclass
class Heap:
    """The file: collections with other bytes between them."""

    end: int = 715
    collections: list[Collection] = field(default_factory=list)

    def open(self, need: int = 0, room: int = 0, gap: int = 0) -> Collection:
        size = max(SMALLEST, need + 2 * HEADER)
        made = Collection(self.end + gap, size, max(size, room))
        self.end = made.address + made.room
        self.collections.append(made)
        return made

    def insert(self, into: Collection, data: bytes) -> tuple[int, int, int] | None:
        """Store an object, let the collection grow if it may; return the reference."""
        need = HEADER + padded(len(data))
        while into.free < need and into.size + SMALLEST <= into.room:
            into.size += SMALLEST
        if into.free < need:
            return None
        into.used += 1
        into.objects[into.used] = data
        return len(data), into.address, into.used

    def image(self) -> bytearray:
        whole = bytearray(self.end)
        for part in self.collections:
            whole[part.address : part.address + part.size] = part.image()
        return whole


class Reads:
    """The `read` of a file that is in memory; keeps account."""

    def __init__(self, image):
        self.image = image
        self.done: list[tuple[int, int]] = []

    def __call__(self, offset, view):
        assert offset >= 0
        got = self.image[offset : offset + len(view)]
        view[: len(got)] = got
        self.done.append((offset, len(view)))
        return len(got)

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.done)


def as_refs(found) -> np.ndarray:
    return np.array(found, REFERENCE)


def messages(found) -> list[bytes]:
    assert len(found.starts) == len(found.lengths)
    data = found.buffer.tobytes()
    pairs = zip(found.starts.tolist(), found.lengths.tolist(), strict=True)
    made = [data[start : start + length] for start, length in pairs]
    assert [len(message) for message in made] == found.lengths.tolist(), "beyond the buffer"
    return made


def slowly(image, refs) -> list[bytes | None]:
    """Find each message by looking through its collection; None where there is none."""
    found: list[bytes | None] = []
    for length, address, index in refs.tolist():
        if (length, address, index) == (0, 0, 0):
            found.append(b"")
            continue
        size = int.from_bytes(image[address + 8 : address + 16], "little")
        place, data = address + HEADER, None
        while place + HEADER <= address + size:
            here = int.from_bytes(image[place : place + 2], "little")
            long = int.from_bytes(image[place + 8 : place + 16], "little")
            if here == 0:
                break
            if here == index and long == length:
                data = bytes(image[place + HEADER : place + HEADER + long])
            place += HEADER + padded(long)
        found.append(data)
    return found


# ------------------------------------------------------------------------------ strategies

LENGTHS = st.one_of(
    st.integers(0, 40),
    st.sampled_from([0, 1, 7, 8, 9, 16, 17, 136, 2000, 4063, 4064, 4065, 8191]),
    st.integers(0, 5000),
    st.just(70_001),
)


@st.composite
def histories(draw):
    """Draw the rows of a file, and its image after each batch; many collections are open."""
    heap = Heap(end=draw(st.sampled_from([48, 715, 2048])))
    width = draw(st.sampled_from([1, 2, 16]))
    rows: list[tuple[int, int, int]] = []
    datas: list[bytes] = []
    stages = []
    opened: list[Collection] = []
    for batch in range(draw(st.integers(1, 4))):
        for length in draw(st.lists(LENGTHS, min_size=1, max_size=12)):
            if draw(st.integers(0, 5)) == 0:  # an attribute's string
                heap.insert(opened[0] if opened else heap.open(), b"attribute of the file")
            seed = 1 + (7 * len(rows) + batch) % 250
            data = bytes((seed + k) % 255 + 1 for k in range(length))
            if not length:
                rows.append((0, 0, 0))
                datas.append(b"")
                continue
            into = opened[draw(st.integers(0, len(opened) - 1))] if opened else None
            made = heap.insert(into, data) if into is not None else None
            if made is None:
                room = draw(st.sampled_from([0, 2, 16])) * SMALLEST
                gap = draw(st.sampled_from([0, 3, 1000, 40_000]))
                opened.append(heap.open(HEADER + padded(length), room, gap))
                opened = opened[-width:]
                made = heap.insert(opened[-1], data)
            rows.append(made)
            datas.append(data)
        stages.append((len(rows), heap.image()))
    return heap, as_refs(rows), datas, stages


def cuts_of(draw, start, stop):
    inner = draw(st.lists(st.integers(start, stop), max_size=6))
    return list(pairwise(sorted({start, stop, *inner})))


SLOW = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


# ----------------------------------------------------------------------------- what is right


@SLOW
@given(st.data())
def test_growing_file_gives_every_message_in_whatever_steps(data):
    """Collections interleave and grow from call to call; marks are carried; nothing is missed."""
    _, refs, datas, stages = data.draw(histories())
    marks, start = {}, 0
    for stop, image in stages:
        read = Reads(image)
        for low, high in cuts_of(data.draw, start, stop):
            found = gather(refs[low:high], read, len(image), marks)
            assert found.cause is None
            assert messages(found) == datas[low:high]
        start = stop


@SLOW
@given(st.data())
def test_any_ranges_in_any_order_give_what_a_slow_reader_finds(data):
    """Ranges back and forth, with marks of others, equal a search through each collection."""
    _, refs, datas, stages = data.draw(histories())
    image = stages[-1][1]
    assert slowly(image, refs) == datas
    marks: dict = {}
    for _ in range(6):
        start = data.draw(st.integers(0, len(refs)))
        stop = data.draw(st.integers(start, len(refs)))
        final = data.draw(st.sampled_from([0, (stop - start) // 2, stop - start]))
        found = gather(refs[start:stop], Reads(image), len(image), marks, final=final)
        assert found.cause is None
        assert messages(found) == datas[start:stop]


@SLOW
@given(st.data())
def test_wrong_marks_cost_work_and_never_change_the_result(data):
    """Whatever the marks claim, places in the file or beyond it, the messages are right."""
    _, refs, datas, stages = data.draw(histories())
    image = stages[-1][1]
    marks = {
        (int(ref["address"]), int(ref["index"]) + data.draw(st.integers(0, 1))): (
            data.draw(st.one_of(st.integers(16, 9000), st.just(1 << 40))),
            data.draw(st.sampled_from([0, 64, 4096, 1 << 40])),
        )
        for ref in refs
        if ref["index"]
    }
    low, high = data.draw(st.sampled_from(cuts_of(data.draw, 0, len(refs))))
    found = gather(refs[low:high], Reads(image), len(image), marks, final=high - low)
    assert found.cause is None
    assert messages(found) == datas[low:high]


@SLOW
@given(st.data())
def test_moved_and_removed_objects(data):
    """When objects are removed, HDF5 moves the others: those are found, these end the rows."""
    heap, refs, datas, stages = data.draw(histories().filter(lambda made: made[0].collections))
    image = stages[-1][1]
    marks: dict = {}
    for low, high in cuts_of(data.draw, 0, len(refs)):
        assert gather(refs[low:high], Reads(image), len(image), marks, final=high - low)
    for _ in range(data.draw(st.integers(1, 4))):
        part = heap.collections[data.draw(st.integers(0, len(heap.collections) - 1))]
        if part.objects:
            del part.objects[data.draw(st.sampled_from(sorted(part.objects)))]
    image = heap.image()
    there = slowly(image, refs)
    for low, high in cuts_of(data.draw, 0, len(refs)):
        expected = there[low:high]
        good = expected.index(None) if None in expected else len(expected)
        found = gather(refs[low:high], Reads(image), len(image), marks, final=high - low)
        assert messages(found) == datas[low:high][:good]
        assert (found.cause is None) == (good == len(expected))


# ------------------------------------------------------------------------- what is damaged


def small_file(lengths):
    """Make two collections that are filled in turns, with strings of attributes before."""
    heap = Heap(end=101)
    parts = [heap.open(), heap.open(gap=50)]
    heap.insert(parts[0], b"0.0")
    rows, datas = [], []
    for number, length in enumerate(lengths):
        data = bytes((16 * number + k * (number + 1)) % 255 + 1 for k in range(length))
        rows.append(heap.insert(parts[number // 2 % 2], data))
        datas.append(data)
    # After the last object the free space; the rest of the file is of no interest.
    return heap.image(), as_refs(rows), datas, parts


def own_bytes(image, refs, datas) -> list[range]:
    """Return the offsets of the messages' own bytes: a change there cannot be told."""
    heads = [
        int(ref["index"]).to_bytes(8, "little") + int(ref["length"]).to_bytes(8, "little")
        for ref in refs
    ]
    places = [image.index(head + data) + HEADER for head, data in zip(heads, datas, strict=True)]
    return [range(at, at + len(data)) for at, data in zip(places, datas, strict=True)]


def assert_honest(found, datas, what):
    good = len(found.starts)
    assert messages(found) == datas[:good], f"wrong bytes: {what}"
    assert (found.cause is None) == (good == len(datas)), what


EQUAL = [24] * 12
MIXED = [1, 24, 24, 7, 8, 136, 24, 24, 3, 3, 64, 9]


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("lengths", [EQUAL, MIXED], ids=["equal", "mixed"])
def test_no_changed_byte_of_the_heap_makes_a_wrong_message(lengths, final):
    """Each byte outside the messages, changed: all rows, single rows and steps stay honest."""
    image, refs, datas, parts = small_file(lengths)
    own = set().union(*own_bytes(image, refs, datas))
    count = len(refs)
    ranges = [*((row, row + 1) for row in range(count)), (3, 8), (0, count)]
    fewer = 0
    for part in parts:
        for at in range(part.address, part.address + part.size - part.free + HEADER):
            if at in own:
                continue
            for flip in FLIPS:
                image[at] ^= flip
                marks: dict = {}
                for start, stop in ranges:
                    known = stop - start if final else 0
                    read = Reads(image)
                    found = gather(refs[start:stop], read, len(image), marks, final=known)
                    assert_honest(found, datas[start:stop], (at, flip, start, stop))
                    fewer += found.cause is not None
                image[at] ^= flip
    assert fewer > 500, "nothing was ever found to be wrong"


@pytest.mark.parametrize("lengths", [EQUAL, MIXED], ids=["equal", "mixed"])
def test_no_changed_byte_of_the_references_makes_a_wrong_message(lengths):
    """Each bit of the references, changed: a message may be missing, none is another's."""
    image, refs, datas, _ = small_file(lengths)
    plain = bytearray(refs.tobytes())
    fewer = 0
    for at in range(len(plain)):
        for flip in (1, 2, 4, 8, 16, 32, 64, 128, 0xFF):
            plain[at] ^= flip
            changed = np.frombuffer(bytes(plain), REFERENCE)
            found = gather(changed, Reads(image), len(image), {}, final=len(refs))
            assert_honest(found, datas, (at, flip))
            assert found.cause is not None, "every byte of a reference matters"
            fewer += 1
            plain[at] ^= flip
    assert fewer == 9 * 16 * len(refs)


def test_object_index_in_use_twice_is_not_believed():
    """Of two objects with one index none is the right one: the row is unreadable."""
    image, refs, _, parts = small_file(EQUAL)
    first = refs[refs["address"] == parts[0].address]
    at = parts[0].address + HEADER + HEADER + 8  # the second object: behind the string "0.0"
    image[at : at + 2] = int(first["index"][4]).to_bytes(2, "little")
    found = gather(first[4:5], Reads(image), len(image), {}, final=1)
    assert len(found.starts) == 0
    assert found.cause


@pytest.mark.parametrize("step", [1, 3])
def test_message_that_moved_to_the_place_of_another(step):
    """Of equal messages one is removed: marks then lead to another of the same length."""
    image, refs, datas, heap = long_file(40, 136)
    marks: dict = {}
    for row in range(0, 40, step):
        found = gather(refs[row : row + step], Reads(image), len(image), marks, final=step)
        assert found.cause is None
    del heap.collections[0].objects[2]
    image = heap.image()
    for row in range(3, 40, step):
        found = gather(refs[row : row + step], Reads(image), len(image), marks, final=step)
        assert messages(found) == datas[row : row + step]


def test_cut_at_every_byte_gives_the_messages_before_it():
    """A file that shrinks while it is read ends the rows, and raises nothing."""
    image, refs, datas, parts = small_file(MIXED)
    stop = parts[1].address + parts[1].size - parts[1].free
    ends = [place.stop for place in own_bytes(image, refs, datas)]
    for size in range(parts[0].address, stop):
        # The size is asked for before the read: it may be the old one or the new.
        stated = len(image) if size % 2 else size
        found = gather(refs, Reads(image[:size]), stated, {}, final=len(refs))
        assert_honest(found, datas, size)
        whole = next((k for k, end in enumerate(ends) if end > size), len(ends))
        assert len(found.starts) <= whole
        assert found.cause is not None or whole == len(ends)


def test_reads_that_give_nothing_end_the_rows():
    """A file cut to nothing between two calls is an end with a cause, also with marks."""
    image, refs, datas, _ = small_file(EQUAL)
    marks: dict = {}
    assert messages(gather(refs[:4], Reads(image), len(image), marks, final=4)) == datas[:4]
    for stated in (0, len(image)):
        found = gather(refs[4:], Reads(b""), stated, marks, final=len(refs))
        assert messages(found) == []
        assert found.cause


# ------------------------------------------------------------------------------- what it costs


def long_file(count, length, room=16, gap=0):
    """Make collections one after the other, each full of equal messages."""
    heap = Heap()
    rows, datas, into = [], [], None
    for number in range(count):
        data = number.to_bytes(4, "little") * (length // 4)
        made = None if into is None else heap.insert(into, data)
        if made is None:
            into = heap.open(room=room * SMALLEST, gap=gap)
            made = heap.insert(into, data)
        rows.append(made)
        datas.append(data)
    return heap.image(), as_refs(rows), datas, heap


@pytest.mark.parametrize("gap", [0, 1000, 100_000])
def test_each_stretch_is_read_once(gap):
    """Of a range over many collections no byte is read twice, and what is near in one go."""
    image, refs, datas, heap = long_file(3000, 136, gap=gap)
    read = Reads(image)
    found = gather(refs, read, len(image), {}, final=len(refs))
    assert messages(found) == datas
    done = sorted(read.done)
    assert all(start + size <= after for (start, size), (after, _) in pairwise(done))
    assert len(done) == (len(heap.collections) if gap == 100_000 else 1)
    between = 0 if gap == 100_000 else gap * len(heap.collections)
    assert read.bytes <= sum(part.size for part in heap.collections) + between


@pytest.mark.parametrize("final", [0, 1])
def test_single_steps_do_not_walk(final):
    """Messages one at a time cost their own bytes, and some headers, not their collection."""
    image, refs, datas, _ = long_file(900, 136)
    read, marks = Reads(image), {}
    for row in range(len(refs)):
        found = gather(refs[row : row + 1], read, len(image), marks, final=final)
        assert messages(found) == datas[row : row + 1]
    assert read.bytes <= len(refs) * (HEADER + 136 + 3 * HEADER)
    assert len(read.done) <= len(refs) * (1 if final else 3) + 50


def test_polls_of_sixteen_open_collections_do_not_walk():
    """Marks last for as many collections as HDF5 fills at a time."""
    heap = Heap()
    parts = [heap.open(room=16 * SMALLEST) for _ in range(16)]
    rows, datas = [], []
    for number in range(1600):
        datas.append(number.to_bytes(4, "little") * 20)
        rows.append(heap.insert(parts[number * 7 % 16], datas[-1]))
    image, refs = heap.image(), as_refs(rows)
    read, marks = Reads(image), {}
    for start in range(0, len(refs), 16):
        found = gather(refs[start : start + 16], read, len(image), marks, final=16)
        assert messages(found) == datas[start : start + 16]
    assert max(size for _, size in read.done) < 40_000, "a collection was walked"


def test_single_row_of_a_long_collection_is_walked_to_once():
    """A row in the middle is looked for once; those after it follow from its mark."""
    image, refs, datas, _ = long_file(300, 136)
    read, marks = Reads(image), {}
    gather(refs[200:201], read, len(image), marks, final=1)
    walked = read.bytes
    for row in range(201, 250):
        found = gather(refs[row : row + 1], read, len(image), marks, final=1)
        assert messages(found) == datas[row : row + 1]
    assert read.bytes - walked == 49 * (HEADER + 136)


def test_marks_do_not_pile_up():
    """However many collections are read, few of them are remembered."""
    image, refs, _, heap = long_file(3000, 136, room=1)
    marks: dict = {}
    for start in range(0, len(refs), 100):
        gather(refs[start : start + 100], Reads(image), len(image), marks, final=100)
    assert len(heap.collections) > 100
    assert len(marks) <= 64


class Enormous(Reads):
    """A file of a terabyte: zeros behind what there is."""

    def __call__(self, offset, view):
        got = super().__call__(offset, view)
        view[got:] = bytes(len(view) - got)
        return len(view)


@pytest.mark.parametrize("final", [0, 12])
@pytest.mark.parametrize("row", [0, 5, 11])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("length", 0xFFFF_FFFF),
        ("length", 1 << 31),
        ("length", 1 << 27),
        ("address", (1 << 64) - 1),
        ("address", 1 << 63),
        ("address", (1 << 39) + 3),
        ("index", 0xFFFF_FFFF),
        ("index", 0x10001),
    ],
)
def test_absurd_reference_in_a_huge_file_costs_little(name, value, row, final):
    """In a file of a terabyte a damaged reference neither fills the memory nor reads for long."""
    image, refs, datas, _ = small_file(EQUAL)
    refs[name][row] = value
    read = Enormous(image)
    tracemalloc.start()
    found = gather(refs, read, 1 << 40, {}, final=final)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert messages(found) == datas[:row]
    assert found.cause
    assert peak < 4 << 20
    assert read.bytes < 4 << 20


@pytest.mark.parametrize("size", [0, 16, 1 << 20, 1 << 39, (1 << 64) - 1])
def test_absurd_size_of_a_collection_in_a_huge_file_costs_little(size):
    """A collection that claims half the file is neither read nor walked to its end."""
    image, refs, datas, parts = small_file(EQUAL)
    at = parts[0].address + 8
    image[at : at + 8] = size.to_bytes(8, "little")
    for start in (0, 5):
        read = Enormous(image)
        found = gather(refs[start:], read, 1 << 40, {}, final=len(refs))
        assert_honest(found, datas[start:], size)
        assert read.bytes < 4 << 20


def test_large_message_is_read_whole():
    """A message larger than any collection has one of its own."""
    heap = Heap()
    datas = [bytes([k + 1]) * size for k, size in enumerate([40, 3_000_000, 40, 70_000, 5])]
    small = heap.open()
    rows = [
        heap.insert(small if len(data) < 100 else heap.open(HEADER + padded(len(data))), data)
        for data in datas
    ]
    image = heap.image()
    for final in (0, len(rows)):
        found = gather(as_refs(rows), Reads(image), len(image), {}, final=final)
        assert messages(found) == datas


def test_no_references():
    """Of nothing nothing is read."""
    read = Reads(b"")
    found = gather(as_refs([]), read, 0, {})
    assert (messages(found), found.cause, read.done) == ([], None, [])


def test_only_empty_messages():
    """Empty messages lie nowhere: they are there without a read."""
    read = Reads(b"")
    found = gather(as_refs([(0, 0, 0)] * 3), read, 100, {}, final=3)
    assert (messages(found), found.cause, read.done) == ([b""] * 3, None, [])


@pytest.mark.parametrize("ref", [(0, 715, 1), (3, 0, 1), (3, 715, 0), (0, 0, 1), (0, 715, 0)])
def test_half_a_reference_ends_the_rows(ref):
    """A reference that is neither one nor nothing is named in the cause."""
    image, refs, datas, _ = long_file(4, 136)
    refs[2] = ref
    found = gather(refs, Reads(image), len(image), {}, final=4)
    assert messages(found) == datas[:2]
    assert "reference" in found.cause


# ------------------------------------------------------------------- what is not on disk yet


@pytest.mark.parametrize("length", [24, 136, 5000])
def test_message_without_its_last_bytes_is_held_back(length):
    """A collection whose end was not written yet gives what is complete, and no more."""
    image, refs, datas, heap = long_file(40, length, room=16)
    part = heap.collections[-1]
    for end in range(part.address + HEADER, part.address + part.size, 517):
        torn = image[:end] + bytes(len(image) - end)
        found = gather(refs, Reads(torn), len(image), {})
        assert_honest(found, datas, end)


@pytest.mark.parametrize("grown", [False, True])
def test_old_image_of_a_collection_shows_its_old_messages(grown):
    """References may come before their objects: the rows end there, and go on later."""
    image, refs, datas, heap = long_file(300, 136, room=16)
    part = heap.collections[0]
    behind = {
        index: part.objects.pop(index)
        for index in range(30 if grown else 10, 301)
        if index in part.objects
    }
    part.size = SMALLEST if not grown else 2 * SMALLEST
    old = heap.image()
    there = len(part.objects)
    marks: dict = {}
    found = gather(refs, Reads(old), len(old), marks)
    assert messages(found) == datas[:there]
    assert found.cause
    found = gather(refs[there:], Reads(image), len(image), marks)
    assert messages(found) == datas[there:]
    assert behind
