"""What came of converting a file, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Conversion", "Fault", "asic_text"]

# So many io_groups there can be.
_IO_GROUPS = 256
# So many rows are named for each kind of fault.
_MOST_ROWS = 5

_OUTCOMES = {
    "finished": "the run is over",
    "end": "all rows that there were",
    "stopped": "stopped, with all rows that there were then",
    "replaced": "the name is another file's now; all rows of the one that was followed",
}


class Fault(NamedTuple):
    """Faults of one kind in the messages of a file.

    Examples
    --------
    >>> Fault().more(np.array([3, 3, 17]))
    Fault(total=3, rows=(3, 17))
    """

    #: How many there are; a message may have several.
    total: int = 0
    #: The first messages that have one.
    rows: tuple[int, ...] = ()

    def more(self, rows: NDArray[np.integer]) -> Self:
        """Count more of them, in these rows."""
        named = dict.fromkeys([*self.rows, *np.unique(rows)[:_MOST_ROWS].tolist()])
        return type(self)(self.total + len(rows), tuple(named)[:_MOST_ROWS])


class Conversion(NamedTuple):
    """What was converted, and what could not be."""

    path: Path
    out: Path
    #: Messages that were gone through, and packets that were written.
    messages: int
    packets: int
    #: What could not be decoded, by its kind, as in :attr:`streamer.packets.Packets.faults`.
    faults: Mapping[str, Fault]
    #: ``"finished"``: the run is over. ``"end"``: all rows that there were. ``"stopped"``: the
    #: same, when following was stopped. ``"replaced"``: another file has the name now.
    outcome: str
    #: The row at which it went on after an interruption; None if it began with the first.
    resumed_at: int | None = None
    #: What else is to be known of it.
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what to say of it, a line each."""
        how = _OUTCOMES[self.outcome]
        said = [
            f"{self.path}: {self.messages:,} messages, {self.packets:,} packets, in {self.out}",
            f"  {how}",
        ]
        if self.resumed_at is not None:
            said.append(f"  went on from row {self.resumed_at:,}")
        for kind, fault in sorted(self.faults.items()):
            rows = ", ".join(map(str, fault.rows))
            # A row may have several; only if no more are named, there may be others.
            more = ", ..." if _MOST_ROWS <= len(fault.rows) < fault.total else ""
            said.append(f"  not decoded: {kind}: {fault.total:,}, in rows {rows}{more}")
        return [*said, *(f"  {note}" for note in self.notes)]

    def as_dict(self) -> dict[str, Any]:
        """Return the same for a program, ready for JSON."""
        return {
            "file": str(self.path),
            "out": str(self.out),
            "messages": self.messages,
            "packets": self.packets,
            "faults": {
                kind: {"count": fault.total, "first_rows": list(fault.rows)}
                for kind, fault in sorted(self.faults.items())
            },
            "outcome": self.outcome,
            "resumed_at": self.resumed_at,
            "notes": list(self.notes),
        }


def asic_text(asic: str | Mapping[int, str]) -> str:
    """Return which chips were said to be there, as ``--asic`` takes it.

    Examples
    --------
    >>> asic_text("v3"), asic_text({1: "v2", 5: "v3"})
    ('v3', '1=v2, 5=v3')
    >>> asic_text(dict.fromkeys(range(256), "v2") | {5: "v3"})
    'v2, 5=v3'
    """
    if isinstance(asic, str):
        return asic
    common = []
    if len(asic) == _IO_GROUPS:
        common = [one for one, _ in Counter(asic.values()).most_common(1)]
    others = [f"{group}={one}" for group, one in asic.items() if one not in common]
    return ", ".join(common + others) or "none"
