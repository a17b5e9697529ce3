"""Reading: how words of a card are to be read, and why not."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

__all__ = ["CORRECTIONS", "Reading", "Reason"]

#: What was put right, or is worth a note, while words were placed.
CORRECTIONS: Final = (
    "syncs lost",
    "seconds set back",
    "irregular syncs",
    "syncs ignored",
    "resets without a sync",
    "clocks begun anew",
    "received before a sync",
    "digitised before a sync",
    "chips that missed a sync",
)


class Reason(IntEnum):
    """Why a word is not placed."""

    NONE = 0
    NO_SYNC = 1
    NO_SECOND = 2
    CONTRADICTS = 3
    NO_COUNT_BEFORE = 4
    OUT_OF_STEP = 5
    IMPOSSIBLE = 6


class Reading(NamedTuple):
    """How a stretch of words is to be read."""

    #: Tick at which the count began in which the words were received.
    base: int
    #: The count before: its length by the counter, -1 if that is not known; and in ticks.
    counted: int
    step: int
    #: Unix ticks of tick 0; 0 if not known.
    origin: int
    reason: Reason
    is_pps: bool
    #: Whether ticks can be compared with those of other such cards.
    is_tied: bool
    #: Whether the words were received before the last SYNC word.
    is_straggling: bool
