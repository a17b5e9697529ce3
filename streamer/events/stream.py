"""events(): hits that belong together, of any stream of packets, as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Generic, Self, TypedDict, TypeVar, Unpack, cast, overload

from streamer.batch import Gap
from streamer.clock import Clock
from streamer.events.assembly import DEFAULT_LATENESS, DEFAULT_MAX_HITS, Assembly, Event
from streamer.events.drafts import Builder
from streamer.events.pedestals import Pedestals
from streamer.events.window import WindowBuilder
from streamer.packets import Packets

if TYPE_CHECKING:
    from streamer.geometry import Geometry

__all__ = ["AsyncEvents", "Events", "Options", "events"]

ItemT = TypeVar("ItemT")


class Options(TypedDict, total=False):
    """The arguments of `events` but the first."""

    builder: Builder | None
    geometry: Geometry | None
    pedestals: Pedestals | None
    clock: Clock | None
    lateness: float
    max_hits: int
    io_groups: int | Collection[int] | None
    bad_parity: bool
    veto_ticks: int


@overload
def events(packets: AsyncIterable[Packets], **options: Unpack[Options]) -> AsyncEvents[Event]: ...


@overload
def events(
    packets: AsyncIterable[Packets | Gap], **options: Unpack[Options]
) -> AsyncEvents[Event | Gap]: ...


@overload
def events(packets: Iterable[Packets], **options: Unpack[Options]) -> Events[Event]: ...


@overload
def events(
    packets: Iterable[Packets | Gap], **options: Unpack[Options]
) -> Events[Event | Gap]: ...


def events(
    packets: AsyncIterable[Any] | Iterable[Any],
    *,
    builder: Builder | None = None,
    geometry: Geometry | None = None,
    pedestals: Pedestals | None = None,
    clock: Clock | None = None,
    lateness: float = DEFAULT_LATENESS,
    max_hits: int = DEFAULT_MAX_HITS,
    io_groups: int | Collection[int] | None = None,
    bad_parity: bool = False,
    veto_ticks: int = 0,
) -> AsyncEvents[Any] | Events[Any]:
    """Build events of the hits in a stream of packets, as they come.

    Parameters
    ----------
    packets
        :class:`streamer.Packets`: of a follower, ``follow(...).packets()``, or any other
        asynchronous iterator; of ``tail(...).packets()``, or any other iterable. All packets of
        the stream, in order. What :class:`streamer.Gap` comes among them is passed on.
    builder
        The rule by which hits make events: a :class:`GapBuilder`, :class:`WindowBuilder` or
        :class:`TriggerBuilder`. A WindowBuilder if not given.
    geometry
        Gives hits their places; a :class:`streamer.geometry.Geometry`.
    pedestals
        Give hits their charges; :class:`streamer.events.pedestals.Pedestals`.
    clock
        Unwraps the time; a :class:`streamer.clock.Clock` that nobody else uses. One with the
        mode ``"auto"`` if not given.
    lateness
        Seconds to wait for hits that arrive out of order, since chips take time to read out and
        the messages of one card can lag behind another's. Time further back than this before
        the newest word is closed: a hit for it is counted as late and dropped. Events are
        delayed by as much.
    max_hits
        Most hits of one time scale that may wait; further ones are counted and dropped. The
        hits of the event being built are held in addition; builders cut one that gets too
        long.
    io_groups
        Cards whose hits are wanted: one, several, or None for all.
    bad_parity
        Whether hits with a bad parity are wanted: any of their fields may be wrong.
    veto_ticks
        Drop hits whose chip counter is below this: it cuts the noise of the pulse that resets
        the counter.

    Returns
    -------
    AsyncEvents or Events
        To be iterated with ``async for``, or with ``for`` if `packets` is no asynchronous
        iterator.

    Raises
    ------
    TypeError
        If `builder`, `geometry`, `pedestals` or `clock` is no such object; and later, in the
        iteration, if what comes is neither Packets nor a Gap.
    ValueError
        If another argument makes no sense.

    Notes
    -----
    The same events come in the same order, however the stream was cut into batches.

    The hits of about the first second of a stream are in no event, as the time of none is known
    yet (see :class:`streamer.clock.Clock`): so there are none of a stream that is no longer
    than that. They are counted as ``"not placed"``.

    At the end of the stream, what waits is given, with the event that could have gone on. When
    the stream raises an error it is not, as more may come: whoever asks again goes on.

    Cards that are reset by one pulse share one time scale (see :class:`streamer.clock.Clock`),
    and events are of the hits of all of them. A card that runs free has its own scale, and
    events of its own.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from streamer import tail
    >>> from streamer.events import GapBuilder, TriggerBuilder, events
    >>> from writer import RawWriter
    >>> from writer.simulate import simulate
    >>> path = Path(tempfile.mkdtemp()) / "raw.h5"
    >>> with RawWriter(path, io_version="0.0") as out:
    ...     for batch in simulate("module0", seconds=2, seed=1):
    ...         rows = out.append(batch.tolist(), batch.io_groups)
    >>> for event in events(tail(path).packets(), builder=TriggerBuilder(io_groups=1)):
    ...     if event.n_hits > 30:
    ...         print(event)
    <Event 3: 38 hits in 200.3 us, trigger of io_group 1>
    """
    assembly = Assembly(
        WindowBuilder() if builder is None else builder,
        geometry=geometry,
        pedestals=pedestals,
        clock=clock,
        lateness=lateness,
        max_hits=max_hits,
        io_groups=io_groups,
        bad_parity=bad_parity,
        veto_ticks=veto_ticks,
    )
    if isinstance(packets, AsyncIterable):
        return AsyncEvents(packets, assembly)
    return Events(packets, assembly)


class _Found:
    """What both kinds of iterators share."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._ready: deque[Event | Gap] = deque()
        self._is_over = False

    @property
    def counts(self) -> dict[str, int]:
        """What became of the hits so far: `streamer.events.assembly.Assembly.counts`."""
        return self._assembly.counts

    @property
    def clock(self) -> Clock:
        """What unwraps the time."""
        return self._assembly.clock

    def _take(self, item: object) -> None:
        if isinstance(item, Packets):
            self._ready.extend(self._assembly.add(item))
        elif isinstance(item, Gap):
            self._ready.append(item)
        else:
            msg = (
                f"events() takes Packets, but a {type(item).__name__} came: "
                "give it those of .packets(), of a follower or of each batch"
            )
            raise TypeError(msg)

    def _end(self) -> None:
        self._is_over = True
        self._ready.extend(self._assembly.finish())


class AsyncEvents(_Found, Generic[ItemT]):
    """What :func:`events` returns of an asynchronous stream: an asynchronous iterator.

    Do not construct it directly, nor use it from two tasks at once. Cancelling loses nothing
    and yields nothing twice: iterating again goes on with the next event. The same holds after
    an error of the stream, if the stream can go on.

    Examples
    --------
    >>> from streamer.events import GapBuilder
    >>> import anyio, tempfile
    >>> from pathlib import Path
    >>> from streamer import follow
    >>> from writer import RawWriter
    >>> from writer.simulate import simulate
    >>> path = Path(tempfile.mkdtemp()) / "raw.h5"
    >>> with RawWriter(path, io_version="0.0") as out:
    ...     for batch in simulate("tile", seconds=2, seed=1):
    ...         rows = out.append(batch.tolist(), batch.io_groups)
    >>> async def main():
    ...     async with follow(path) as live:
    ...         found = events(live.packets(), builder=GapBuilder(min_hits=34))
    ...         async for event in found:
    ...             print(event)
    ...     return found.counts["late"]
    >>> anyio.run(main)
    <Event 0: 34 hits in 524.1 us>
    <Event 1: 34 hits in 515.4 us>
    <Event 2: 34 hits in 542.6 us>
    0
    """

    def __init__(self, packets: AsyncIterable[Packets | Gap], assembly: Assembly) -> None:
        super().__init__(assembly)
        self._packets = aiter(packets)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT:
        while not self._ready:
            if self._is_over:
                raise StopAsyncIteration
            try:
                item = await anext(self._packets)
            except StopAsyncIteration:
                self._end()
            else:
                # No await between here and the next one: all of it counts, or nothing.
                self._take(item)
        return cast("ItemT", self._ready.popleft())


class Events(_Found, Generic[ItemT]):
    """What :func:`events` returns of any other stream: an iterator; as `AsyncEvents`.

    Examples
    --------
    >>> list(events([]))
    []
    """

    def __init__(self, packets: Iterable[Packets | Gap], assembly: Assembly) -> None:
        super().__init__(assembly)
        self._packets = iter(packets)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT:
        while not self._ready:
            if self._is_over:
                raise StopIteration
            try:
                item = next(self._packets)
            except StopIteration:
                self._end()
            else:
                self._take(item)
        return cast("ItemT", self._ready.popleft())
