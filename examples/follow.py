"""Print every message of a raw file as it comes: ``python examples/follow.py raw.h5``."""

import argparse
import sys

import anyio

from streamer import LayoutError, StreamError, follow


async def main(raw: str) -> None:
    async for msg in follow(raw):
        print(f"row {msg.row}, io_group {msg.io_group}: {len(msg.data)} bytes")


parser = argparse.ArgumentParser(description="Print every message of a raw file as it comes.")
parser.add_argument("raw", help="raw file, also one that is being written")
try:
    anyio.run(main, parser.parse_args().raw)
except KeyboardInterrupt:
    print("stopped")
except (StreamError, LayoutError) as error:
    sys.exit(f"error: {error}")
