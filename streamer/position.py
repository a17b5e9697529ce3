"""Position: where a reader is in a file, in a form that outlives it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Self, TypeGuard

from streamer.batch import Message

__all__ = ["Position", "anchor_of"]


def anchor_of(message: Message) -> str:
    """Return a digest of a message and its io_group, to know it again by.

    Examples
    --------
    >>> anchor_of(Message(row=0, io_group=1, data=b"first"))
    '8837156e5b839ae4'
    """
    content = bytes([message.io_group]) + message.data
    return hashlib.blake2b(content, digest_size=8).hexdigest()


@dataclass(frozen=True)
class Position:
    """A row of one particular file.

    Parameters
    ----------
    row
        The next row to read.
    created
        When the file says that it was made, in Unix seconds; None if it has not been read.
    run_id
        The file's run id, if its writer is of this project.
    anchor_row, anchor
        A row that has been delivered, and the digest of its message; None if none has.
    source
        The name of the file, without its folder: where to look first among many. A file that
        was renamed is still the same one.
    newest
        Of a folder: when the newest run begun so far was made, in Unix seconds, if it is not
        this one.
    passed_over
        Of a folder: names of files that come before that one, or may do so, and that have not
        been given: they could not be read then, or came late.

    Notes
    -----
    A position is never applied to another file: whoever starts from one compares what it
    says of the file first, the message of the anchor included.

    Examples
    --------
    >>> position = Position(row=5, created=1.7e9)
    >>> Position.from_json(position.to_json()) == position
    True
    """

    row: int
    created: float | None = None
    run_id: str | None = None
    anchor_row: int | None = None
    anchor: str | None = None
    source: str | None = None
    newest: float | None = None
    passed_over: tuple[str, ...] = ()

    def at(self, row: int) -> Position:
        """Return another row of the same file."""
        return replace(self, row=row)

    def to_json(self) -> str:
        """Return the position as a line of JSON."""
        return json.dumps(asdict(self))

    def __post_init__(self) -> None:
        anchored = self.anchor_row is not None
        right = (
            _is_row(self.row)
            and (self.created is None or type(self.created) in (int, float))
            and (self.run_id is None or type(self.run_id) is str)
            and (not anchored or (_is_row(self.anchor_row) and self.anchor_row < self.row))
            and (type(self.anchor) is str if anchored else self.anchor is None)
            and (self.source is None or type(self.source) is str)
            and (self.newest is None or type(self.newest) in (int, float))
            and type(self.passed_over) is tuple
            and all(type(name) is str for name in self.passed_over)
        )
        if not right:
            msg = f"these do not belong together, or are not of a row: {self}"
            raise ValueError(msg)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the position that :meth:`to_json` wrote.

        Raises
        ------
        ValueError
            If the text is something else.
        """
        try:
            fields: dict[str, Any] = dict(json.loads(text))
            # JSON knows lists only.
            return cls(**fields | {"passed_over": tuple(fields.get("passed_over", ()))})
        except (TypeError, ValueError) as error:
            msg = f"not a position: {error}"
            raise ValueError(msg) from error


def _is_row(value: object) -> TypeGuard[int]:
    return type(value) is int and value >= 0
