"""Clock: the time of every packet, from counters that are reset or roll over.

A tick is 100 ns. A PACMAN card stamps each word with its counter when it receives it, and a
chip each hit with its own when it digitises it; the same resets begin both anew. The rules are
those of ``unroll_timestamps`` in DUNE/ndlar_flow: the time goes on by a whole second at each
SYNC word of a PPS, and a hit whose chip's counter is above the card's was digitised before the
last reset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.clock.cardtime import CardTime
from streamer.clock.phase import Phase
from streamer.clock.placing import Placed, place, read, words_by_card
from streamer.clock.reading import CORRECTIONS, Reason
from writer.pacman import TICKS_PER_SECOND

if TYPE_CHECKING:
    from streamer.packets import Packets

__all__ = ["COMMON", "REASONS", "CardState", "Clock", "Times"]

#: The scale of all cards that one pulse a second resets.
COMMON: Final = -1

#: Why a packet is not placed, as in `Clock.counts`.
REASONS: Final = {
    Reason.NO_SYNC: "before the first sync",
    Reason.NO_SECOND: "second not known yet",
    Reason.CONTRADICTS: "contradicts the header",
    Reason.NO_COUNT_BEFORE: "from a count that is not known",
    Reason.OUT_OF_STEP: "chip out of step",
    Reason.IMPOSSIBLE: "impossible counter",
}

_Ticks = NDArray[np.int64]


class Times(NamedTuple):
    """When P packets were; in ticks of Unix time, or from the start of a card's own clock."""

    #: (P,) i8: when the hit was digitised, or else as `receipts`; -1 if not placed.
    ticks: _Ticks
    #: (P,) i8: when the card received it; -1 if not placed.
    receipts: _Ticks
    #: (P,) i2: the scale of these: `COMMON`, or its io_group if that counts for itself.
    scales: NDArray[np.int16]


class CardState(NamedTuple):
    """What is known of a card's clock."""

    #: ``"pps"``, ``"free"`` or None.
    mode: str | None
    #: Whether its packets can be placed.
    is_placed: bool
    #: Whether its times can be compared with those of other cards.
    is_tied: bool
    #: Whether its ticks are those of Unix time.
    has_time: bool


class Clock:
    """Unwraps the time of packets, card by card.

    Parameters
    ----------
    mode
        ``"pps"``: a pulse resets the counters each second. ``"free"``: they run, and roll over.
        ``"auto"``: found for each card, as soon as its words show it: PPS by a SYNC word at a
        whole second or two, or a drop of the counter from there; free by a counter that is
        2.5 s or more, or a SYNC word of a rollover. Until then nothing is placed.

    Attributes
    ----------
    counts : dict of str to int
        Packets that could not be placed, by reason, without message headers, which never are.
        ``"before the first sync"``: nothing tells to what second they belong, as in the first
        second of a run or of following it, or the mode is not known yet; ``"second not known
        yet"``: nor do the headers so far; ``"contradicts the header"``: the header of its
        message, or of one shortly before, is of another second than the count says; ``"from a
        count that is not known"``: they were digitised before a reset of which only the end is
        known; ``"chip out of step"``: the chip's counter can be no time of this card, or its
        chip missed more than 8 pulses; ``"impossible counter"``: above 2^62 ticks.
    corrections : dict of str to int
        What was put right, or is worth a note: ``"syncs lost"``: pulses that the count had to
        make up for, by the counter's value, its drop or the headers; ``"seconds set back"``:
        that the headers took back; ``"irregular syncs"``: at no whole second; ``"syncs
        ignored"``: whose value is below what had been read, or that only repeat the last one;
        ``"resets without a sync"``: drops of the counter; ``"clocks begun anew"``: of a card
        that runs free; ``"received before a sync"`` and ``"digitised before a sync"``: packets
        that were placed in the count before; ``"chips that missed a sync"``: packets whose
        chip counted on.

    Notes
    -----
    **Ticks.** Of cards with PPS, ticks are those of Unix time: all share one scale, in which a
    reset is at the same tick for all, so that times of different cards can be compared to the
    tick. Which second a reset belongs to is taken from the message headers. That of a SYNC word
    alone is not enough, as it is written just when the second may change: headers are compared
    until only one second fits, which takes up to a second on a busy card, longer on an idle one.
    The cards' Unix clocks have to agree to half a second. The phase of the pulse, at the whole
    second or not, is found from the first card and is the same for all. So the first second of
    a stream is never placed: each packet is placed when it comes, and not revised later.

    A card that runs free has a scale of its own: Unix time to half a second. Where headers have
    no time, as of the newer wire's data servers, a card counts from its first reset (PPS) or
    from 0 (free), also on a scale of its own.

    **Faults.** A SYNC word that was lost is noticed by the drop of the counter where words come
    before and after it, and else, as any number of lost seconds, by headers: words that
    contradict them are not placed, nor what comes after them, until a word speaks for the count
    or a full second only against it. A header can be late, by up to a tenth of a second; but
    not that of the first word after a tenth of a second without any. What remains is an outage
    of a whole number of seconds, to a tenth: if it ends in the last tenth of a second, words
    there are placed a second early. The same holds, for longer, of cards with a few words a
    second, before these have shown by how much their Unix clock is off.

    Hits that a chip sends more than a second after it digitised them look like those of a later
    second, and are placed there: nothing in a packet tells them apart.

    **Independence.** What is returned for a packet depends on it and on those before it in the
    file, not on how they were cut into batches, of whole messages: the state is kept between
    calls. Packets of one stream have to be given in order, all of them.

    **Cost.** Arrays throughout, but for a few steps of Python at each SYNC word and at each
    quarter of a second, of each card.

    Examples
    --------
    >>> from streamer import Batch
    >>> from writer.simulate import simulate
    >>> clock = Clock()
    >>> for sent in simulate("tile", seconds=3, start_time=1_700_000_000):
    ...     batch = Batch(
    ...         rows=np.arange(len(sent.lengths)),
    ...         io_groups=sent.io_groups,
    ...         buffer=sent.buffer,
    ...         starts=np.cumsum(sent.lengths) - sent.lengths,
    ...         lengths=sent.lengths,
    ...     )
    ...     ticks = clock.unwrap(batch.packets())
    >>> print(round(ticks.max() / TICKS_PER_SECOND, 1), clock.cards[1].mode, clock.phase)
    1700000003.0 pps 0.0
    """

    def __init__(self, mode: str = "auto") -> None:
        if mode not in ("auto", "pps", "free"):
            msg = f"mode is one of auto, pps, free, not {mode!r}"
            raise ValueError(msg)
        self.mode = mode
        self.counts = dict.fromkeys(REASONS.values(), 0)
        self.corrections = dict.fromkeys(CORRECTIONS, 0)
        self._phase = Phase()
        self._cards: dict[int, CardTime] = {}

    @property
    def cards(self) -> dict[int, CardState]:
        """What is known of each card that has been seen, by io_group."""
        return {
            io_group: CardState(card.mode, card.origin is not None, card.is_tied, card.has_time)
            for io_group, card in sorted(self._cards.items())
        }

    @property
    def phase(self) -> float | None:
        """Seconds from a whole Unix second to the pulse, -0.5 to 0.5; None if not known."""
        ticks = self._phase.ticks
        return None if ticks is None else ticks / TICKS_PER_SECOND

    def unwrap(self, packets: Packets) -> _Ticks:
        """Return the time of packets.

        Parameters
        ----------
        packets
            The next P of the stream.

        Returns
        -------
        numpy.ndarray
            (P,) i8, ticks: `Times.ticks`.
        """
        return self.times(packets).ticks

    def times(self, packets: Packets) -> Times:
        """Return the time of packets, when they were received, and the scale of both.

        Parameters
        ----------
        packets
            The next P of the stream.

        Returns
        -------
        Times
            Three columns of P: ticks, receipts and scales.
        """
        ticks, receipts = np.full((2, len(packets)), -1)
        scales = np.full(len(packets), COMMON, np.int16)
        words = words_by_card(packets)
        self.counts[REASONS[Reason.IMPOSSIBLE]] += words.n_impossible
        if not len(words.places):
            return Times(ticks, receipts, scales)
        placed = place(packets, words, read(words, self._card))
        ticks[words.places] = placed.ticks
        receipts[words.places] = placed.receipts
        scales[words.places] = np.where(placed.is_tied, COMMON, words.io_groups.astype(np.int16))
        self._count(placed)
        return Times(ticks, receipts, scales)

    def _card(self, io_group: int) -> CardTime:
        if io_group not in self._cards:
            self._cards[io_group] = CardTime(self.mode, self._phase, self.corrections)
        return self._cards[io_group]

    def _count(self, placed: Placed) -> None:
        for reason, count in enumerate(np.bincount(placed.reasons).tolist()):
            if reason and count:
                self.counts[REASONS[Reason(reason)]] += count
        self.corrections["received before a sync"] += placed.n_straggling
        self.corrections["digitised before a sync"] += placed.n_before_reset
        self.corrections["chips that missed a sync"] += placed.n_missed
