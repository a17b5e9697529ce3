"""How far a conversion is: counted as it goes on, and stored beside what it has made."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np

from streamer.convert.report import Fault
from streamer.packets import Packets
from streamer.position import Position

__all__ = ["Progress"]


@dataclass
class Progress:
    """How far a conversion is.

    Examples
    --------
    >>> progress = Progress({"to": "hdf5"}, np.dtype([("io_group", "u1")]))
    >>> progress.faults["truncated"] = Fault(1, (7,))
    >>> Progress.from_facts(json.loads(json.dumps(progress.facts()))) == progress
    True
    """

    #: How the output is to be made: only a call that wants the same may go on with it.
    options: dict[str, Any]
    #: Of the output's records; None until the first packets say what they need.
    dtype: np.dtype[Any] | None = None
    #: Where to go on in the raw file.
    position: Position = field(default_factory=lambda: Position(0))
    #: Messages that were gone through, and packets that came of them.
    messages: int = 0
    packets: int = 0
    #: Whether any packet is a hit.
    has_data: bool = False
    faults: dict[str, Fault] = field(default_factory=dict)
    #: How it ended; then the output is complete, and has only to be given its name.
    outcome: str | None = None

    def count(self, messages: int, packets: Packets) -> None:
        """Count so many messages more, and what they were decoded into."""
        self.messages += messages
        self.packets += len(packets)
        # To count them would cost time, and nobody needs more.
        self.has_data = self.has_data or bool(packets.is_data.any())
        for kind, rows in packets.faults.items():
            self.faults[kind] = self.faults.get(kind, Fault()).more(rows)

    def facts(self) -> dict[str, Any]:
        """Return the same as JSON can hold it."""
        facts = {one.name: getattr(self, one.name) for one in fields(self)}
        facts["dtype"] = None if self.dtype is None else self.dtype.descr
        facts["position"] = json.loads(self.position.to_json())
        return facts

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Self:
        """Return what :meth:`facts` returned of it, also if that has been JSON meanwhile."""
        dtype, faults = facts["dtype"], facts["faults"]
        return cls(
            **facts
            | {
                "dtype": None if dtype is None else np.dtype([(*one,) for one in dtype]),
                "position": Position.from_json(json.dumps(facts["position"])),
                "faults": {kind: Fault(total, (*rows,)) for kind, (total, rows) in faults.items()},
            }
        )
