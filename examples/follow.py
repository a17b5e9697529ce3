"""Print every message of a raw file as it comes: ``python examples/follow.py raw.h5``."""

import sys

import anyio

from streamer import follow


async def main() -> None:
    async for msg in follow(sys.argv[1]):
        print(f"row {msg.row}, io_group {msg.io_group}: {len(msg.data)} bytes")


anyio.run(main)
