"""Drafts: events as a builder finds them, and what a builder is."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from streamer.events.backlog import Triggers
from streamer.events.hits import RawHits
from streamer.whole import whole_number

__all__ = ["Builder", "Building", "Draft", "Trigger", "cards", "check", "made", "whole"]


class Trigger(NamedTuple):
    """A trigger word.

    Examples
    --------
    >>> Trigger(row=8, io_group=5, bits=2, ticks=17_000_000_000_000_000).io_group
    5
    """

    #: Row of the message in its file.
    row: int
    #: PACMAN card that saw it.
    io_group: int
    #: Which of its inputs.
    bits: int
    ticks: int


class Draft(NamedTuple):
    """An event, before it gets a number."""

    #: The tick up to which all hits have to be known for it to be known.
    needs: int
    #: It is from start to before stop.
    start: int
    stop: int
    hits: RawHits
    trigger: Trigger | None = None
    #: Whether it went on, and was cut because of its length.
    is_cut: bool = False


class Building(Protocol):
    """Builds the events of one time scale, hit by hit in the order of time.

    The same events come in the same order, however many hits are added at once.
    """

    def add(self, hits: RawHits, triggers: Triggers, upto: int) -> list[Draft]:
        """Add the next hits and triggers, and return what they complete.

        Parameters
        ----------
        hits, triggers
            Sorted by time; none before the last `upto`.
        upto
            All that there is before this tick has been added.

        Returns
        -------
        list of Draft
            All with ``needs <= upto`` that were not returned before, sorted by `needs`.
        """


@runtime_checkable
class Builder(Protocol):
    """A rule by which hits make events."""

    def begin(self) -> Building:
        """Begin to build, with nothing known."""


def whole(name: str, value: object, least: int) -> int:
    """Return a parameter that has to be a whole number of at least so much.

    >>> whole("gap_ticks", 0, 1)
    Traceback (most recent call last):
    ...
    ValueError: gap_ticks is 0, not a whole number from 1 on
    """
    number = whole_number(value, least)
    if number is None:
        msg = f"{name} is {value!r}, not a whole number from {least} on"
        raise ValueError(msg)
    return number


def check(rule: Builder, **least: int) -> None:
    """Check that attributes of a frozen rule are whole numbers, and make them plain ints.

    Small ones of numpy would overflow, as soon as they were added to ticks.
    """
    for name, lowest in least.items():
        object.__setattr__(rule, name, whole(name, getattr(rule, name), lowest))


def cards(io_groups: int | Collection[int] | None) -> NDArray[np.int64] | None:
    """Return which cards are chosen, as (N,) i8: one, several, or None for all.

    >>> cards(5), cards([5, 6])
    (array([5]), array([5, 6]))
    """
    if io_groups is None:
        return None
    several = io_groups if isinstance(io_groups, Collection) else (io_groups,)
    numbers = [whole_number(number, 0, 255) for number in several]
    # Of no card, or of one that cannot be, there would never be an event.
    if not numbers or None in numbers:
        msg = f"io_groups is {io_groups!r}, not a number, or numbers, from 0 to 255"
        raise ValueError(msg)
    return np.array(numbers, np.int64)


def made(kind: type, how: str, **values: object) -> None:
    """Check that parameters are objects of a kind, or None; not its class, nor a path to it.

    >>> made(Builder, "GapBuilder()", builder="gap")
    Traceback (most recent call last):
    ...
    TypeError: builder is 'gap', not an object such as GapBuilder()
    """
    for name, value in values.items():
        if value is not None and (isinstance(value, type) or not isinstance(value, kind)):
            msg = f"{name} is {value!r:.60}, not an object such as {how}"
            raise TypeError(msg)
