"""Packets: the words of messages, decoded into columns; of both wires and all chips."""

from streamer.packets.decoding import DECODED_BYTES, check_options, decode
from streamer.packets.packets import Packets

__all__ = ["DECODED_BYTES", "Packets", "check_options", "decode"]
