"""The time of hits, unwrapped: from counters of cards and chips that begin again and again."""

from streamer.clock.clock import COMMON, REASONS, CardState, Clock, Times

__all__ = ["COMMON", "REASONS", "CardState", "Clock", "Times"]
