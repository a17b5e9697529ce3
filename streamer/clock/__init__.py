"""The time of hits, unwrapped: from counters of cards and chips that begin again and again.

How the pieces work together, from the words of a stream to their times:

- `placing`: many words at once, as arrays. It cuts them into stretches that are read alike, lets
  the cards follow these one by one, and places the words; also those of chips whose counter is
  that of before a reset.
- `cardtime`: one card. It puts together what its counter and its headers say, in a `reading`.
- `counter`: its counter through SYNC words, rollovers and drops; so each word has a tick, exact,
  but from an unknown beginning, the origin. `count` is what is seen between two resets.
- `headertime`: what headers of messages say of the origin. At first they are gathered (`ends`);
  once it has been found, they are compared with what is `known`, and words are in `doubt`
  while headers contradict.
- `phase`: when in a second PPS resets all cards, so that their times agree to the tick.

`clock` is what users see: a card each, and counts of what was not placed or was put right.
"""

from streamer.clock.clock import COMMON, REASONS, CardState, Clock, Times

__all__ = ["COMMON", "REASONS", "CardState", "Clock", "Times"]
