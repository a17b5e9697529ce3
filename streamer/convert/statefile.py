"""What has to be known of a file that is being made, stored so that no crash can spoil it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from streamer.convert.naming import settle

__all__ = ["State", "read_state", "write_state"]

# How it begins, and the number of its form: to be raised with any change of what is stored,
# of the facts of its makers too.
_MARK = b"larpix-streamer partial "
_FORM = b"3\n"
_DIGEST_BYTES = 32


class State(NamedTuple):
    """What is stored of a file.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "state"
    >>> write_state(path, State({"row": 5}, 4096, {0: b"page"}, b"tail"))
    >>> read_state(path)
    State(facts={'row': 5}, size=4096, pages={0: b'page'}, tail=b'tail')
    """

    #: What its maker has to know to go on; None if there is nothing to go on with.
    facts: dict[str, Any] | None
    #: Bytes of the file.
    size: int
    #: What has to be in its pages, by their number.
    pages: dict[int, bytes]
    #: Bytes that belong behind what is in the file.
    tail: bytes


def write_state(path: Path, state: State) -> None:
    """Store a state, on disk when this returns; until then the one before is there.

    Raises
    ------
    OSError
        If that is not possible.
    """
    head = {
        "facts": state.facts,
        "size": state.size,
        "pages": [[number, len(page)] for number, page in state.pages.items()],
        "tail": len(state.tail),
    }
    parts = [_MARK, _FORM, json.dumps(head).encode(), b"\n", *state.pages.values(), state.tail]
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    # Always the same name: what a killed process leaves is overwritten by the next.
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            file.writelines([*parts, digest.digest()])
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    settle(path.parent)


def read_state(path: Path) -> State | None:
    """Return what a state file holds; None if it is damaged, or of another form.

    Raises
    ------
    ValueError
        If it is something else.
    OSError
        If it cannot be read.
    """
    content = path.read_bytes()
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    right = hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()
    if not content.startswith(_MARK):
        msg = "not a state file"
        raise ValueError(msg)
    begin = len(_MARK + _FORM)
    if digest != right or body[len(_MARK) : begin] != _FORM:
        return None
    stop = body.index(b"\n", begin)
    head = json.loads(body[begin:stop])
    place, pages = stop + 1, {}
    for number, size in head["pages"]:
        pages[number] = body[place : place + size]
        place += size
    return State(head["facts"], head["size"], pages, body[place : place + head["tail"]])
