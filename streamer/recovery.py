"""What came of recovering a file, for people and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from streamer.left import Left

__all__ = ["Recovery"]

# So many ranges of rows are shown for each cause.
_MOST_RANGES = 4


class Recovery(NamedTuple):
    """What was kept of a damaged file, and what was left out and why."""

    path: Path
    #: The copy; None if nothing is wrong, and nothing was written.
    out: Path | None
    #: Rows of the copy, and the bytes of their messages; of the file itself if there is none.
    rows: int
    payload_bytes: int
    #: What is wrong with the file as a whole.
    troubles: list[str]
    #: Rows that were left out, in the file's own numbers, in order.
    left: list[Left]
    #: What else is to be known of the copy.
    notes: list[str]

    @property
    def nothing_wrong(self) -> bool:
        """Whether the file is as it should be, so that there is no copy."""
        return self.out is None

    @property
    def rows_left(self) -> int:
        """Number of rows that were left out."""
        return sum(stop - start for start, stop, _ in self.left)

    def lines(self) -> list[str]:
        """Return what to say of it, a line each."""
        if self.out is None:
            return [
                f"{self.path}: nothing is wrong with it: {self.rows:,} rows, all readable. "
                "No copy was made.",
                *self.notes,
            ]
        said = [f"{self.path}:", *(f"  {trouble}" for trouble in self.troubles)]
        if not self.troubles:
            said.append("  closed properly, but damaged inside")
        said += [f"kept      {self.rows:,} rows, {self.payload_bytes:,} bytes, in {self.out}"]
        said += [f"left out  {self.rows_left:,} rows" if self.left else "left out  nothing"]
        causes: dict[str, list[Left]] = {}
        for left in self.left:
            causes.setdefault(left.cause, []).append(left)
        for cause, ranges in causes.items():
            count = sum(stop - start for start, stop, _ in ranges)
            shown = ", ".join(_words(one) for one in ranges[:_MOST_RANGES])
            more = len(ranges) - _MOST_RANGES
            shown += f" and {more:,} more ranges" if more > 0 else ""
            said.append(f"  {count:,} rows: {cause}: {shown}")
        return [*said, *self.notes]

    def as_dict(self) -> dict[str, Any]:
        """Return the same for a program, ready for JSON."""
        return {
            "file": str(self.path),
            "copy": None if self.out is None else str(self.out),
            "rows": self.rows,
            "payload_bytes": self.payload_bytes,
            "troubles": self.troubles,
            "rows_left_out": self.rows_left,
            "left_out": [left._asdict() for left in self.left],
            "notes": self.notes,
        }


def _words(left: Left) -> str:
    last = left.stop - 1
    return f"{left.start}" if last == left.start else f"{left.start} to {last}"
