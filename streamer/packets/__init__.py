"""Packets: the words of messages, decoded into columns; of both wires and all chips."""

from streamer.packets.packets import DECODED_BYTES, Packets, check_options, decode

__all__ = ["DECODED_BYTES", "Packets", "check_options", "decode"]
